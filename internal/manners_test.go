package internal_test

import (
	"bytes"
	"go/ast"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestPackageDocs(t *testing.T) {
	type docs struct {
		name  string
		files []string
		text  string
	}
	packages := map[string]*docs{}
	_, files := repository(t)
	for _, f := range files {
		if f.test {
			continue
		}
		p := packages[f.dir]
		if p == nil {
			p = &docs{name: f.ast.Name.Name}
			packages[f.dir] = p
		}
		if f.ast.Doc != nil {
			p.files = append(p.files, f.path)
			p.text = f.ast.Doc.Text()
		}
	}
	owns, promises, not := regexp.MustCompile(`\bowns?\b`), regexp.MustCompile(`\bpromises?\b`), regexp.MustCompile(`\b(not|nothing|nobody|no|never)\b`)
	for dir, p := range packages {
		if len(p.files) != 1 {
			t.Errorf("%s has %d package comments %v; want one", dir, len(p.files), p.files)
			continue
		}
		begin := "Package " + p.name + " "
		if p.name == "main" {
			begin = "Command " + path.Base(dir) + " "
		}
		if !strings.HasPrefix(p.text, begin) {
			t.Errorf("%s: the package comment begins %.40q, want %q", p.files[0], p.text, begin)
		}
		text := strings.Join(strings.Fields(p.text), " ")
		if !owns.MatchString(text) {
			t.Errorf("%s: the package comment does not say what it owns", p.files[0])
		}
		if strings.HasPrefix(dir, "internal/") && !suite(dir) && !promises.MatchString(text) {
			t.Errorf("%s: the package comment does not say what it promises", p.files[0])
		}
		if !not.MatchString(text) {
			t.Errorf("%s: the package comment does not say what it does not do", p.files[0])
		}
	}
}

func TestNoDrawerForEverything(t *testing.T) {
	_, files := repository(t)
	for _, f := range files {
		for _, name := range []string{path.Base(f.dir), strings.TrimSuffix(f.ast.Name.Name, "_test"), strings.TrimSuffix(path.Base(f.path), ".go")} {
			switch name {
			case "util", "utils", "common", "helper", "helpers", "misc", "shared", "base", "lib":
				t.Errorf("%s: %q names no thing; put it where it belongs", f.path, name)
			}
		}
	}
}

// Nothing happens because a package is imported, and no package has state of
// its own: everything is made by a constructor, so that a test can make two.
func TestNoMagic(t *testing.T) {
	fset, files := repository(t)
	for _, f := range files {
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.Name == "init" && d.Recv == nil {
					t.Errorf("%s: func init: make it a call from a constructor", fset.Position(d.Pos()))
				}
			case *ast.GenDecl:
				if d.Tok != token.VAR || f.test || embedded(d) {
					continue
				}
				for _, s := range d.Specs {
					v := s.(*ast.ValueSpec)
					if why := mutable(v); why != "" {
						t.Errorf("%s: package variable %s %s: give it to whom it belongs", fset.Position(v.Pos()), v.Names[0].Name, why)
					}
				}
			}
		}
	}
}

// embedded reports whether the compiler fills the variable from a file.
func embedded(d *ast.GenDecl) bool {
	return d.Doc != nil && slices.ContainsFunc(d.Doc.List, func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed ") })
}

// mutable says why a package variable looks like state: it begins empty to be
// filled later, or it is a lock, a counter or a cache.
func mutable(v *ast.ValueSpec) string {
	if v.Names[0].Name == "_" {
		return ""
	}
	why := ""
	ast.Inspect(v, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			return false
		case *ast.SelectorExpr:
			// A pool of buffers is not state: nobody can see what is in it.
			if x, ok := n.X.(*ast.Ident); ok && n.Sel.Name != "Pool" && (x.Name == "sync" || x.Name == "atomic") {
				why = "is a " + x.Name + "." + n.Sel.Name
			}
		case *ast.CallExpr:
			if x, ok := n.Fun.(*ast.Ident); ok && (x.Name == "make" || x.Name == "new") {
				why = "is made empty"
			}
		}
		return true
	})
	if why == "" && len(v.Values) == 0 {
		why = "has no value"
	}
	return why
}

// A test that may skip may silently stop testing: only package parts decides
// that, and CAIRN_E2E=required takes the choice away.
func TestNoSkips(t *testing.T) {
	fset, files := repository(t)
	for _, f := range files {
		if match("test/parts/…", f.dir) {
			continue
		}
		calls(f.ast, func(x, name string, pos token.Pos) {
			if (name == "Skip" || name == "Skipf" || name == "SkipNow") && slices.Contains([]string{"t", "b", "f", "tb"}, x) {
				t.Errorf("%s: %s.%s: use parts.Missing, or make the test smaller", fset.Position(pos), x, name)
			}
		})
	}
}

// What belongs to one machine, or to the way modules are fetched there, is
// not in the repository.
func TestNoMachine(t *testing.T) {
	// Put together from pieces, because this file is in the repository, too.
	paths := regexp.MustCompile(`(^|[\s"'=:(,` + "`" + `])/(` + strings.Join([]string{"work", "root", "home/[a-z]+", "Users/[A-Za-z]+", "tmp/w"}, "|") + `)(/|\b)`)
	hosts := regexp.MustCompile(strings.Join([]string{`proxy\.` + `golang`, `goproxy\.` + `(io|cn)`, `sum\.` + `golang`, `registry\.` + `npmjs`, `pypi\.` + `org`, `pythonhosted\.` + `org`, `crates\.` + `io`, `deb\.` + `debian`, `rubygems\.` + `org`}, "|"))
	walk(t, func(name string) {
		b, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(name)))
		if err != nil {
			t.Error(err)
			return
		}
		if !utf8.Valid(b) || bytes.IndexByte(b, 0) >= 0 || len(b) > 4<<20 {
			return // not text
		}
		n := 0
		for line := range bytes.Lines(b) {
			n++
			if m := paths.Find(line); m != nil {
				t.Errorf("%s:%d: %q is a place on one machine", name, n, bytes.TrimSpace(m))
			}
			if m := hosts.Find(line); m != nil {
				t.Errorf("%s:%d: %q is a host that packages come from; the environment names it", name, n, m)
			}
		}
	})
}
