package kube

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"cairn.dev/cairn/internal/agent"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
)

// A model is what is known of a cluster. It is pure: items go in, uses come
// out. Whoever holds it keeps callers apart.
type model struct {
	cluster string
	kinds   map[text]map[place]*item
	pods    map[place]*item // kinds["Pod"], which is the big one
}

type place struct {
	namespace text
	name      string
}

func newModel(cluster string) *model {
	pods := map[place]*item{}
	return &model{cluster: cluster, pods: pods, kinds: map[text]map[place]*item{intern("Pod"): pods}}
}

// put takes a new or changed object, and returns what it tells that was not
// known: containers that started or ended. first is true while a list is read:
// what runs then is for the snapshot to say.
func (m *model) put(i *item, first bool) []usage.Use {
	all := m.kinds[i.kind]
	if all == nil {
		all = map[place]*item{}
		m.kinds[i.kind] = all
	}
	i.version = "" // the reflector has read it
	at := place{i.namespace, i.name}
	before := all[at]
	all[at] = i
	if i.kind.Value() != "Pod" {
		return nil
	}
	var out []usage.Use
	for _, u := range i.used {
		if before.knows(u) || first && !u.over {
			continue
		}
		out = append(out, m.use(i, u, u.at))
	}
	return out
}

// knows reports whether this was known of the pod already.
func (i *item) knows(u used) bool {
	if i == nil {
		return false
	}
	for _, k := range i.used {
		if k == u {
			return true
		}
	}
	return false
}

// drop forgets an object that was deleted, and returns what it used until now.
func (m *model) drop(i *item, now time.Time) []usage.Use {
	all := m.kinds[i.kind]
	at := place{i.namespace, i.name}
	before := all[at]
	delete(all, at)
	if i.kind.Value() != "Pod" {
		return nil
	}
	var out []usage.Use
	for _, u := range i.used {
		switch {
		case before.knows(u) && u.over:
		case u.over:
			out = append(out, m.use(i, u, u.at))
		default:
			out = append(out, m.use(i, u, now.UnixMilli()))
		}
	}
	return out
}

func (m *model) use(pod *item, u used, at int64) usage.Use {
	out := usage.Use{Digest: digestOf(u.digest), Source: usage.Container, Subject: m.subject(pod)}
	if at > 0 {
		out.At = time.UnixMilli(at).UTC()
	}
	return out
}

// snapshot is all that is in use and all that is wanted.
func (m *model) snapshot() agent.Snapshot {
	var s agent.Snapshot
	type key struct{ subject, what string }
	uses, wants := map[key]nodes{}, map[key]bool{}
	want := func(subject string, reference text) {
		k := key{subject, reference.Value()}
		if wants[k] {
			return
		}
		wants[k] = true
		if d, ok := agent.ReferenceDigest(k.what); ok {
			s.Uses = append(s.Uses, usage.Use{Digest: d, Source: usage.Workload, Subject: subject})
			return
		}
		s.Wanted = append(s.Wanted, agent.Wanted{Reference: k.what, Subject: subject})
	}
	for kind, all := range m.kinds {
		if kind.Value() == "Node" {
			continue
		}
		for _, i := range all {
			if len(i.wanted) == 0 && (i.done || len(i.used) == 0) {
				continue
			}
			subject := m.subject(i)
			for _, r := range i.wanted {
				want(subject, r)
			}
			if i.done {
				continue
			}
			for _, u := range i.used {
				k := key{subject, u.digest.Value()}
				uses[k] = uses[k].with(i.node)
			}
		}
	}
	for k, on := range uses {
		s.Uses = append(s.Uses, usage.Use{Digest: image.Digest(k.what), Source: usage.Container, Subject: k.subject, Nodes: on.count()})
	}
	s.Platforms = m.platforms()
	return s
}

// nodes are those that run one image for one workload. Most often it is one,
// which takes no map.
type nodes struct {
	one  text
	more map[text]bool
}

func (n nodes) with(node text) nodes {
	switch {
	case node == (text{}) || node.Value() == "" || node == n.one:
	case n.one == (text{}):
		n.one = node
	default:
		if n.more == nil {
			n.more = map[text]bool{}
		}
		n.more[node] = true
	}
	return n
}

func (n nodes) count() int {
	if n.one == (text{}) {
		return 0
	}
	return 1 + len(n.more)
}

// subject names whoever an object belongs to in the end.
func (m *model) subject(i *item) string {
	kind, name := m.top(i)
	return agent.Subject(m.cluster, i.namespace.Value(), kind, name)
}

// top follows owners up: pod, ReplicaSet, Deployment; pod, Job, CronJob; and so
// on. Owners of kinds that are not watched are the top.
func (m *model) top(i *item) (kind, name string) {
	for range 5 { // nobody builds higher, and nobody goes round in circles
		if i.owner.none() {
			break
		}
		kind, name = i.owner.kind.Value(), i.owner.name.Value()
		if kind == "Node" { // a static pod: the kubelet adds the name of the node
			return "Pod", strings.TrimSuffix(i.name, "-"+name)
		}
		up := m.kinds[i.owner.kind][place{i.namespace, name}]
		if up == nil {
			if deployment, ok := strings.CutSuffix(name, "-"+i.hash); ok && kind == "ReplicaSet" && i.hash != "" {
				return "Deployment", deployment // it was deleted before its pod, or comes later
			}
			return kind, tidy(kind, name, "")
		}
		i = up
	}
	kind = i.kind.Value()
	return kind, tidy(kind, i.name, i.stem)
}

// tidy is the name of an owner. Kinds whose objects stay are called by their
// names, those that come and go by what is common to their names.
func tidy(kind, name, stem string) string {
	switch kind {
	case "Deployment", "StatefulSet", "DaemonSet", "CronJob", "ReplicationController", "PodTemplate":
		return name
	}
	if stem != "" {
		return stem
	}
	return agent.Stem(name)
}

// platforms counts the nodes of each platform, in order.
func (m *model) platforms() []usage.Platform {
	counts := map[usage.Platform]int{}
	for _, n := range m.kinds[intern("Node")] {
		counts[usage.Platform{OS: n.os.Value(), Architecture: n.arch.Value()}]++
	}
	var out []usage.Platform
	for p, n := range counts {
		p.Count = n
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b usage.Platform) int {
		return cmp.Or(cmp.Compare(a.OS, b.OS), cmp.Compare(a.Architecture, b.Architecture))
	})
	return out
}
