package code

import (
	"slices"
	"strconv"
)

// A Kind of [Node].
type Kind uint8

// The kinds of nodes.
const (
	Null Kind = iota
	Unknown
	String
	Scalar // a number or a boolean
	List
	Map
)

// A Node is a value of any format: what the walkers of conventions
// ([KubernetesImages], [HelmImages]) look at. Readers make nodes of what they
// parsed, and find by Origin where the text of a node stands.
type Node struct {
	Kind Kind
	// Text of a String; of a Scalar, as a program that reads the format sees
	// it, so that YAML's unquoted 1.10 is 1.1; of an Unknown, the reason.
	Text string
	// Keys of a Map, each with the value in Items at its index. Items of a List.
	Keys  []string
	Items []*Node
	// Origin is the reader's: where this node stands. Walkers hand it back.
	Origin any
}

// Get returns the value of the key of a Map; nil if there is none. When a key
// is there twice the last one counts.
func (n *Node) Get(key string) *Node {
	if n == nil || n.Kind != Map {
		return nil
	}
	for i, k := range slices.Backward(n.Keys) {
		if k == key {
			return n.Items[i]
		}
	}
	return nil
}

// text returns what a String or a Scalar says.
func (n *Node) text() (string, bool) {
	if n == nil || n.Kind != String && n.Kind != Scalar {
		return "", false
	}
	return n.Text, true
}

// Overlay returns base with over on it, as Helm lays values on values: maps
// are merged, null takes a key away, everything else replaces.
func Overlay(base, over *Node) *Node { return overlay(base, over, maxDepth) }

func overlay(base, over *Node, depth int) *Node {
	if base == nil || base.Kind != Map || over.Kind != Map || depth == 0 {
		return over
	}
	out := &Node{Kind: Map, Origin: base.Origin}
	at := make(map[string]int, len(base.Keys))
	for i, k := range base.Keys {
		if j, twice := at[k]; twice {
			out.Items[j] = base.Items[i]
			continue
		}
		at[k] = len(out.Keys)
		out.Keys, out.Items = append(out.Keys, k), append(out.Items, base.Items[i])
	}
	for i, k := range over.Keys {
		if j, both := at[k]; both {
			out.Items[j] = overlay(out.Items[j], over.Items[i], depth-1)
			continue
		}
		at[k] = len(out.Keys)
		out.Keys, out.Items = append(out.Keys, k), append(out.Items, over.Items[i])
	}
	return out
}

// A Found is an image within a node.
type Found struct {
	Path string // spec.template.spec.containers[0].image
	// Value is the reference, put together where a convention keeps its parts
	// apart; "" when it is not known, and then Fixed says why.
	Value string
	// Parts are the nodes whose text Value was put together from, or that are
	// why it is not known.
	Parts []*Node
	Fixed string
	Chart bool // as in [Image]
}

// Bounds of a walk. What is beyond them is not looked at: real values have
// some thousand nodes and are ten deep, and what has more is made to hurt.
const (
	maxDepth = 64
	maxNodes = 200_000
)

// A walk visits the maps of a node from the top down, in their order.
type walk struct {
	left  int
	found []Found
}

// maps calls visit with each map below n. path is where the map stands, key
// the last name in it, which for an element of a list is the list's.
func (w *walk) maps(path, key string, n *Node, depth int, visit func(path, key string, m *Node)) {
	if n == nil || depth == 0 || w.left <= 0 {
		return
	}
	w.left--
	switch n.Kind {
	case Map:
		visit(path, key, n)
		for i, k := range n.Keys {
			w.maps(join(path, k), k, n.Items[i], depth-1, visit)
		}
	case List:
		for i, item := range n.Items {
			w.maps(path+"["+strconv.Itoa(i)+"]", key, item, depth-1, visit)
		}
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// whole adds an image that one node spells out, if it does.
func (w *walk) whole(path string, n *Node, plausible func(Reference) bool) {
	if n == nil {
		return
	}
	if n.Kind == Unknown {
		w.found = append(w.found, Found{Path: path, Parts: []*Node{n}, Fixed: n.Text})
		return
	}
	s, _ := n.text()
	r, err := ParseReference(s)
	if err != nil || !plausible(r) {
		return
	}
	w.found = append(w.found, Found{Path: path, Value: s, Parts: []*Node{n}})
}
