package machine

import (
	"slices"
	"strconv"
	"strings"
)

// maxPath bounds a path: graphs may be nested as deep as templates call each
// other.
const maxPath = 200

// Path is what people call a task: the names of the nodes that lead to it, with
// "/" between them and without the one that holds all, and which of many it is:
// prepare, count(7), each(3)/count. It is "" when there is no such task any more.
func (m *Machine) Path(t Ref) string {
	n := m.nodes[t.Node]
	if n == nil {
		return ""
	}
	var names []string
	if n.each && n.group != nil {
		names = append(names, n.call.Name+"("+strconv.FormatUint(uint64(t.Item), 10)+")")
		n = n.parent
	}
	for ; n != nil; n = n.parent {
		switch {
		case n.role == roleRoot:
			if len(names) == 0 { // it is all there is
				names = append(names, m.name)
			}
		case n.role == roleItem:
			names = append(names, n.call.Name+"("+strconv.Itoa(n.item)+")")
			n = n.parent // which is all the items
		default:
			names = append(names, m.label(n))
		}
	}
	slices.Reverse(names)
	path := strings.Join(names, "/")
	if r := []rune(path); len(r) > maxPath {
		path = "…" + string(r[len(r)-maxPath:])
	}
	return path
}
