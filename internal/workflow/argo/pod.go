package argo

import (
	"slices"
	"strings"

	"cairn.dev/cairn/internal/workflow"
	"cairn.dev/cairn/internal/workflow/document"
)

// podFields is what only Kubernetes can do of what a template asks for: fields
// of a PodSpec, and container, those of the container that the program runs in.
// They are handed on as they are, once their tags are filled in.
type podFields struct {
	c      *compiler
	p      *place
	fields map[string]workflow.Expr
	inner  map[string]workflow.Expr // container
}

// handed reports whether a field goes to Kubernetes.
func handed(f fate) bool {
	return strings.HasPrefix(string(f), "#") || strings.HasPrefix(string(f), "@")
}

// pod collects what there is for a pod; nil where tasks do not run in pods.
func (c *compiler) pod(tmpl, container *document.Node, p *place) map[string]workflow.Expr {
	if !c.opts.Cluster {
		return nil
	}
	x := &podFields{c: c, p: p, fields: map[string]workflow.Expr{}, inner: map[string]workflow.Expr{}}
	for _, k := range slices.Sorted(keys(tables["spec"])) {
		if n := c.spec(k); n != nil && handed(tables["spec"][k]) {
			x.take(x.fields, k, n)
		}
	}
	if patch := tmpl.Get("podSpecPatch"); patch != nil && c.spec("podSpecPatch") != nil {
		patch.FailKey("podSpecPatch stands in the workflow, too: write one that has both")
	}
	x.all(x.fields, "template", tmpl.Without("containerSet")) // which has its own
	x.all(x.inner, "container", container)
	x.env(container.Get("env"))
	if r := container.Get("resources"); r != nil {
		x.take(x.inner, "resources", r)
	}
	if s := container.Get("securityContext"); has(s, "security") {
		x.take(x.inner, "securityContext", s)
	}
	x.volumes(tmpl, container.Get("volumeMounts"))
	if len(x.inner) > 0 {
		x.fields["container"] = tree{fields: x.inner}
	}
	return x.fields
}

// all takes the fields of n that go to Kubernetes.
func (x *podFields) all(into map[string]workflow.Expr, table string, n *document.Node) {
	for _, e := range n.Entries() {
		if handed(tables[table][e.Key]) && !e.Node.IsNull() {
			x.take(into, e.Key, e.Node)
		}
	}
}

// has reports whether n has fields that go to Kubernetes.
func has(n *document.Node, table string) bool {
	return slices.ContainsFunc(n.Entries(), func(e document.Entry) bool { return handed(tables[table][e.Key]) && !e.Node.IsNull() })
}

func (x *podFields) take(into map[string]workflow.Expr, key string, n *document.Node) {
	if e := x.tree(n); e != nil {
		into[key] = e
	}
}

func (x *podFields) tree(n *document.Node) workflow.Expr {
	e, err := x.p.tree(n)
	if err != nil {
		n.Fail("%v", err)
		return nil
	}
	return e
}

// list takes those of the nodes that are wanted, if there are any.
func (x *podFields) list(into map[string]workflow.Expr, key string, nodes []*document.Node, wanted func(*document.Node) bool) {
	var l []workflow.Expr
	for _, n := range nodes {
		if wanted(n) {
			if e := x.tree(n); e != nil {
				l = append(l, e)
			}
		}
	}
	if len(l) > 0 {
		into[key] = tree{list: l}
	}
}

// env takes variables whose values are a cluster's.
func (x *podFields) env(n *document.Node) {
	x.list(x.inner, "env", n.List(), func(e *document.Node) bool { return has(e.Get("valueFrom"), "envFrom") })
}

// volumes takes those that are mounted, unless they are plain folders that are
// new for each task: those every pool has.
func (x *podFields) volumes(tmpl, mounts *document.Node) {
	x.list(x.inner, "volumeMounts", mounts.List(), func(m *document.Node) bool { return has(m, "volumeMount") })
	used, beside := map[string]bool{}, false
	lists := []*document.Node{mounts}
	for _, k := range []string{"sidecars", "initContainers"} {
		for _, c := range tmpl.Get(k).List() {
			lists, beside = append(lists, c.Get("volumeMounts")), true
		}
	}
	set := tmpl.Get("containerSet")
	lists = append(lists, set.Get("volumeMounts"))
	for _, c := range set.Get("containers").List() {
		lists, beside = append(lists, c.Get("volumeMounts")), true
	}
	for _, l := range lists {
		for _, m := range l.List() {
			used[m.Get("name").Text()] = true
		}
	}
	all := append(slices.Clone(x.c.spec("volumes").List()), tmpl.Get("volumes").List()...)
	x.list(x.fields, "volumes", all, func(v *document.Node) bool {
		return used[v.Get("name").Text()] && (beside || has(v, "volume") || len(v.Get("emptyDir").Entries()) > 0)
	})
}
