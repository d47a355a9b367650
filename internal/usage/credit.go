package usage

import (
	"math"
	"slices"

	"cairn.dev/cairn/internal/image"
)

// A Lookup answers with the best use of a digest (see [Better]): that of any
// repository, and that among the uses which name repository or none. A Use
// whose At is zero stands for none. [Ledger.LastUse] is one.
type Lookup func(d image.Digest, repository string) (anywhere, here Use)

// Better reports whether a says more for keeping an image than b: a use that
// goes on beats one that is over, then the newer one wins. The zero Use is
// beaten by every other.
func Better(a, b Use) bool {
	if a.Now != b.Now {
		return a.Now
	}
	return a.At.After(b.At)
}

// A Graph credits the uses of digests to the manifests of one repository. It is
// meant to be kept and filled again for the next repository, so that it
// allocates next to nothing. It is not safe for concurrent use.
//
// The rules: a use of a digest counts for the manifest that has it and for
// everything that needs, whichever repository it names. A use that names this
// repository or none also goes up, by child to index as far as that leads and
// by config to manifest; what it reaches passes it down again. What came down
// never goes up: two indexes that share a child do not keep each other. Layers,
// subjects and the empty config are no edges.
type Graph struct {
	repository string
	nodes      []node
	edges      []int32
	index      map[image.Digest]int32
	uses       []Use

	// scratch of Credit
	order []int32
	into  []int32
}

type node struct {
	digest      image.Digest
	config      image.Digest
	first, last int32 // edges[first:last] are the children
	added       bool  // false: only known as somebody's child
	own         best  // uses given by [Graph.Use]
	up          best  // best use that may go up
	total       best  // best use of all
}

// best is a use with what decides, so that comparing does not touch the use.
type best struct {
	key int64 // time, or math.MaxInt64 for one that goes on
	use int32 // index in Graph.uses
}

var none = best{key: math.MinInt64, use: -1}

// Reset empties the graph for another repository.
func (g *Graph) Reset(repository string) {
	g.repository = repository
	g.nodes, g.edges, g.uses = g.nodes[:0], g.edges[:0], g.uses[:0]
	// Clearing a map costs as much as it was ever large.
	if g.index == nil || len(g.index) > 1024 {
		g.index = make(map[image.Digest]int32)
	} else {
		clear(g.index)
	}
}

// Add adds a manifest and returns its number. config is what
// [image.Manifest.CreditConfig] says, so "" for none. Children that are never
// added (a sparse index) still carry their uses up. A manifest that was added
// already keeps its number and edges.
func (g *Graph) Add(d, config image.Digest, children []image.Digest) int {
	i := g.node(d)
	if g.nodes[i].added {
		return int(i)
	}
	first := int32(len(g.edges))
	for _, c := range children {
		if c != d {
			g.edges = append(g.edges, g.node(c))
		}
	}
	n := &g.nodes[i]
	n.added, n.config, n.first, n.last = true, config, first, int32(len(g.edges))
	return int(i)
}

func (g *Graph) node(d image.Digest) int32 {
	i, ok := g.index[d]
	if !ok {
		i = int32(len(g.nodes))
		g.index[d] = i
		g.nodes = append(g.nodes, node{digest: d, own: none})
	}
	return i
}

// Use adds a fact that is not in the ledger (a push, a pin) for manifest i. It
// is taken to be of this repository, and so goes up as well.
func (g *Graph) Use(i int, u Use) {
	n := &g.nodes[i]
	n.own = g.better(n.own, u)
}

func (g *Graph) better(b best, u Use) best {
	if u.At.IsZero() && !u.Now {
		return b
	}
	key := min(nanos(u.At), math.MaxInt64-1)
	if u.Now {
		key = math.MaxInt64
	}
	if key < b.key || key == b.key && (!u.Now || !u.At.After(g.uses[b.use].At)) {
		return b
	}
	g.uses = append(g.uses, u)
	return best{key: key, use: int32(len(g.uses) - 1)}
}

// of compares two bests of this graph.
func (g *Graph) of(a, b best) best {
	if b.key > a.key || b.key == a.key && b.key == math.MaxInt64 && g.uses[b.use].At.After(g.uses[a.use].At) {
		return b
	}
	return a
}

// Credit looks up the uses and passes them on. [Graph.Last] answers afterwards.
// It takes time linear in manifests and edges.
func (g *Graph) Credit(l Lookup) {
	for i := range g.nodes {
		n := &g.nodes[i]
		anywhere, here := l(n.digest, g.repository)
		n.up = g.better(n.own, here)
		if n.config != "" {
			_, here = l(n.config, g.repository)
			n.up = g.better(n.up, here)
		}
		n.total = g.better(none, anywhere)
	}
	cyclic := g.sort()
	for again := len(cyclic) > 0; again; { // below all others
		again = false
		for _, i := range cyclic {
			again = g.pull(i) || again
		}
	}
	for k := len(g.order) - 1; k >= 0; k-- { // children first
		g.pull(g.order[k])
	}
	for i := range g.nodes {
		n := &g.nodes[i]
		n.total = g.of(n.total, n.up)
	}
	for _, i := range g.order { // parents first
		g.push(i)
	}
	for again := len(cyclic) > 0; again; {
		again = false
		for _, i := range cyclic {
			again = g.push(i) || again
		}
	}
}

// pull takes up what the children have, push passes down to them; both report
// whether that changed anything.
func (g *Graph) pull(i int32) bool {
	n := &g.nodes[i]
	was := n.up
	for _, c := range g.edges[n.first:n.last] {
		n.up = g.of(n.up, g.nodes[c].up)
	}
	return n.up != was
}

func (g *Graph) push(i int32) (changed bool) {
	n := &g.nodes[i]
	for _, c := range g.edges[n.first:n.last] {
		t := &g.nodes[c].total
		if b := g.of(*t, n.total); b != *t {
			*t, changed = b, true
		}
	}
	return changed
}

// sort puts the nodes into g.order, parents before children. Those in a cycle
// or below one are returned instead. Digests make a cycle impossible to build,
// so that only a damaged database can hold one; passing uses around it until
// nothing changes ends, because a use is only ever replaced by a better one.
func (g *Graph) sort() (cyclic []int32) {
	g.into = append(g.into[:0], make([]int32, len(g.nodes))...)
	for _, c := range g.edges {
		g.into[c]++
	}
	g.order = g.order[:0]
	for i, n := range g.into {
		if n == 0 {
			g.order = append(g.order, int32(i))
		}
	}
	for k := 0; k < len(g.order); k++ {
		n := &g.nodes[g.order[k]]
		for _, c := range g.edges[n.first:n.last] {
			if g.into[c]--; g.into[c] == 0 {
				g.order = append(g.order, c)
			}
		}
	}
	if len(g.order) < len(g.nodes) {
		for i, n := range g.into {
			if n > 0 {
				cyclic = append(cyclic, int32(i))
			}
		}
	}
	return cyclic
}

// Last is the best use credited to manifest i (see [Better]); false if there is
// none. Its Digest tells where it came from.
func (g *Graph) Last(i int) (Use, bool) {
	b := g.nodes[i].total
	if b.use < 0 {
		return Use{}, false
	}
	return g.uses[b.use], true
}

// Uses are all uses that count for manifest i by the rules above, best first,
// each once: what `cairn why` prints. It walks the graph: for one manifest, not
// for all. Facts given by [Graph.Use] are not among them.
func (g *Graph) Uses(i int, uses func(image.Digest) []Use) []Use {
	// Everything that needs i, i included: any use of it comes down to i.
	above := map[int32]bool{int32(i): true}
	for again := true; again; {
		again = false
		for p := range g.nodes {
			if above[int32(p)] {
				continue
			}
			for _, c := range g.edges[g.nodes[p].first:g.nodes[p].last] {
				if above[c] {
					above[int32(p)], again = true, true
					break
				}
			}
		}
	}
	var out []Use
	done := map[image.Digest]bool{}
	for a := range above {
		d := g.nodes[a].digest
		out = append(out, uses(d)...)
		done[d] = true
	}
	// Everything below those, and their configs: if it may go up, it arrives.
	here := func(d image.Digest) {
		if d == "" || done[d] {
			return
		}
		done[d] = true
		for _, u := range uses(d) {
			if u.Repository == "" || u.Repository == g.repository {
				out = append(out, u)
			}
		}
	}
	below, seen := make([]int32, 0, len(above)), map[int32]bool{}
	for a := range above {
		below, seen[a] = append(below, a), true
	}
	for k := 0; k < len(below); k++ {
		n := &g.nodes[below[k]]
		here(n.digest)
		here(n.config)
		for _, c := range g.edges[n.first:n.last] {
			if !seen[c] {
				below, seen[c] = append(below, c), true
			}
		}
	}
	slices.SortStableFunc(out, compare)
	return out
}

// compare orders uses best first, and equal ones by name so that lists are
// stable.
func compare(a, b Use) int {
	switch {
	case Better(a, b):
		return -1
	case Better(b, a):
		return 1
	}
	for _, s := range [][2]string{{a.Subject, b.Subject}, {a.Repository, b.Repository}, {string(a.Digest), string(b.Digest)}} {
		if s[0] != s[1] {
			if s[0] < s[1] {
				return -1
			}
			return 1
		}
	}
	return int(a.Source) - int(b.Source)
}
