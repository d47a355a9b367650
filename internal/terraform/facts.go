package terraform

import (
	"bytes"
	"path"
	"slices"
	"strings"

	"cairn.dev/cairn/internal/code"
)

// facts is what a glance at the bytes of a file says, without parsing it.
// It errs to the side of too much.
type facts struct {
	sink   bool     // it names a type of resource that may hold images
	marker bool     // it has a comment for us
	calls  []string // paths that may be sources of modules: ./x, ../y
}

// glance looks at all words of a file, once.
func glance(data []byte, types map[string]bool) facts {
	f := facts{marker: bytes.Contains(data, []byte("cairn:"))}
	for i := 0; i < len(data); {
		if !wordByte(data[i]) {
			i++
			continue
		}
		start := i
		for i < len(data) && wordByte(data[i]) {
			i++
		}
		word := data[start:i]
		switch {
		case !f.sink && types[string(word)]: // the conversion does not allocate
			f.sink = true
		case string(word) == "source":
			if p := pathAfter(data[i:]); p != "" && !slices.Contains(f.calls, p) {
				f.calls = append(f.calls, p)
			}
		}
	}
	return f
}

func wordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_' || c >= 'A' && c <= 'Z' || c == '-'
}

// pathAfter returns the local path that is given to `source`, if it is one.
func pathAfter(data []byte) string {
	data = bytes.TrimLeft(data[:min(len(data), 1024)], "\" \t:=")
	end := bytes.IndexAny(data, "\"\n")
	if end < 0 || !isLocal(string(data[:end])) {
		return ""
	}
	return string(data[:end])
}

// A graph is the modules of a tree: which folder calls which, as far as a
// glance says.
type graph struct {
	types  map[string]bool
	dirs   []string            // with files of modules, sorted
	calls  map[string][]string // folder -> folders
	needed map[string]bool     // folders from which a sink can be reached
	called map[string]bool     // folders that another one calls
	marked []code.File         // files with markers
}

// newGraph glances at all files of modules and of variables.
func newGraph(t *code.Tree, types map[string]bool, ignored func(string) bool, glanceAt func(code.File) facts) *graph {
	g := &graph{types: types, calls: map[string][]string{}, needed: map[string]bool{}, called: map[string]bool{}}
	sinks := map[string]bool{}
	for _, p := range t.Paths() {
		config := isConfig(p)
		if !config && !isVariables(p) || ignored(p) {
			continue
		}
		dir := path.Dir(p)
		if config && (len(g.dirs) == 0 || g.dirs[len(g.dirs)-1] != dir) {
			g.dirs = append(g.dirs, dir)
		}
		f, err := t.Read(p)
		if err != nil || len(f.Data) > maxFile {
			continue // reading the module will say so
		}
		facts := glanceAt(f)
		if facts.marker && f.Path == p {
			g.marked = append(g.marked, f)
		}
		if !config {
			continue
		}
		sinks[dir] = sinks[dir] || facts.sink
		for _, source := range facts.calls {
			to, err := t.Resolve(dir, source)
			if err == nil {
				to, err = t.Follow(to)
			}
			if err == nil && to != dir {
				g.calls[dir] = append(g.calls[dir], to)
			}
		}
	}
	slices.Sort(g.dirs)
	g.dirs = slices.Compact(g.dirs)
	g.reach(sinks)
	return g
}

// reach follows calls backwards from the folders that have sinks.
func (g *graph) reach(sinks map[string]bool) {
	callers := map[string][]string{}
	for from, list := range g.calls {
		for _, to := range list {
			g.called[to] = true
			callers[to] = append(callers[to], from)
		}
	}
	var todo []string
	for dir, has := range sinks {
		if has {
			todo = append(todo, dir)
		}
	}
	for len(todo) > 0 {
		dir := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if g.needed[dir] {
			continue
		}
		g.needed[dir] = true
		todo = append(todo, callers[dir]...)
	}
}

// roots are the modules that nobody calls and that are worth evaluating.
func (g *graph) roots() []string {
	var out []string
	for _, dir := range g.dirs {
		if g.needed[dir] && !g.called[dir] {
			out = append(out, dir)
		}
	}
	return out
}

// rootOf is the root module that a var-file belongs to: that of the nearest
// folder around it. "" when there is none: then it belongs to all.
func (g *graph) rootOf(file string) (string, bool) {
	for dir := path.Dir(file); ; dir = path.Dir(dir) {
		if _, is := slices.BinarySearch(g.dirs, dir); is && !g.called[dir] {
			return dir, true
		}
		if dir == "." {
			return "", false
		}
	}
}

// environment is the var-files of one that a root module is evaluated with.
func (g *graph) environment(root string, files []string) []string {
	var out []string
	for _, f := range files {
		f = path.Clean(strings.TrimPrefix(f, "./"))
		if of, some := g.rootOf(f); !some || of == root {
			out = append(out, f)
		}
	}
	return out
}
