// Package internal_test pins the plan of the house: who may import whom, what
// is pure, what every package says about itself, and what must not be in the
// repository at all. docs/architecture.md draws the same plan for people; a
// change of one is a change of both.
package internal_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

const module = "cairn.dev/cairn"

// rooms says which packages of this module a package may import. A package
// that is not listed may import nothing of it. "…" after a room means the
// room and what lies below it.
var rooms = map[string][]string{
	// The ground floor knows nobody.
	"internal/clock": {},
	"internal/image": {},
	"internal/db":    {},

	"internal/blob": {"internal/image"},

	"internal/usage":   {"internal/image", "internal/clock", "internal/db"},
	"internal/access":  {"internal/image", "internal/clock", "internal/db"},
	"internal/content": {"internal/image", "internal/clock", "internal/db", "internal/blob", "internal/usage"},

	// retention decides; it neither speaks HTTP nor knows who asks.
	"internal/retention": {"internal/image", "internal/clock", "internal/usage", "internal/content"},
	// registry speaks the protocol; it does not decide what goes.
	"internal/registry": {"internal/image", "internal/blob", "internal/content", "internal/access", "internal/usage", "internal/mirror"},
	// mirror fetches what other registries have; it does not know who asks.
	"internal/mirror": {"internal/image", "internal/clock", "internal/blob", "internal/content", "internal/upstream"},
	// upstream is how other registries are asked, for all who ask them.
	"internal/upstream": {"internal/image", "internal/clock", "internal/outbound"},

	// reap applies the plan where the images are another registry's.
	"internal/reap": {"internal/image", "internal/clock", "internal/db", "internal/usage", "internal/content", "internal/retention", "internal/upstream"},

	// simulation is for tests; it goes through the rooms that decide and keep.
	"internal/simulation": {"internal/image", "internal/clock", "internal/db", "internal/blob", "internal/usage", "internal/content", "internal/retention"},

	"internal/config":   {"internal/image", "internal/retention"},
	"internal/api/wire": {"internal/image", "internal/usage", "internal/content", "internal/retention", "internal/access", "internal/config", "internal/reap", "internal/bump"},
	"internal/api":      {"internal/api/wire", "internal/image", "internal/clock", "internal/usage", "internal/content", "internal/retention", "internal/access", "internal/mirror", "internal/reap", "internal/bump", "internal/upstream", "internal/blob", "internal/task", "internal/work", "internal/work/machine", "internal/work/logs", "internal/work/artifacts", "internal/workflow", "internal/workflow/front"},
	"internal/client":   {"internal/api/wire", "internal/image"},

	// agent knows a server by its API only; what it looks at is below it.
	"internal/agent":        {"internal/image", "internal/clock", "internal/usage", "internal/client", "internal/api/wire"},
	"internal/agent/kube":   {"internal/agent", "internal/image", "internal/clock", "internal/usage"},
	"internal/agent/cri":    {"internal/agent", "internal/image", "internal/clock", "internal/usage"},
	"internal/agent/docker": {"internal/agent", "internal/image", "internal/clock", "internal/usage"},

	"internal/credential": {},

	// code, and what reads and writes it: newer images for Terraform and others.
	"internal/code":      {"internal/image"},
	"internal/terraform": {"internal/code", "internal/image"},
	"internal/manifest":  {"internal/code", "internal/image"},
	"internal/scan":      {"internal/code", "internal/terraform", "internal/manifest", "internal/image"},
	"internal/catalog":   {"internal/image", "internal/clock", "internal/db", "internal/upstream", "internal/content"},
	// keychain stands apart because of what it drags in.
	"internal/catalog/keychain": {"internal/clock", "internal/upstream"},
	"internal/choose":           {"internal/image", "internal/code", "internal/catalog"},
	"internal/rules":            {"internal/image", "internal/code", "internal/choose", "internal/config"},
	"internal/forge/…":          {"internal/clock", "internal/forge/…"},
	"internal/bump": {"internal/image", "internal/clock", "internal/db", "internal/usage", "internal/code", "internal/scan",
		"internal/catalog", "internal/choose", "internal/rules", "internal/forge"},

	// work: what runs are to do, who does it, and what becomes of it.
	"internal/task":           {},
	"internal/task/condition": {},
	"internal/task/jsonpath":  {},
	"internal/outbound":       {},
	"internal/workflow/…":     {"internal/task/…", "internal/image", "internal/workflow/…"},
	"internal/work":           {"internal/task", "internal/workflow", "internal/clock", "internal/db", "internal/blob", "internal/content", "internal/image", "internal/usage", "internal/work/…"},
	"internal/work/doorway":   {},
	"internal/work/door":      {"internal/work", "internal/work/doorway", "internal/task"},
	"internal/work/artifacts": {"internal/work/artifacts/…", "internal/work/doorway", "internal/task", "internal/outbound", "internal/upstream", "internal/workflow", "internal/clock", "internal/blob", "internal/content", "internal/image", "internal/forge", "internal/forge/git"},
	"internal/work/…":         {"internal/work/doorway", "internal/task", "internal/outbound", "internal/workflow", "internal/clock", "internal/db", "internal/blob", "internal/image"},
	"internal/worker":         {"internal/task", "internal/clock", "internal/worker/…"},
	"internal/worker/…":       {"internal/task/…", "internal/clock", "internal/worker/…"},
	"internal/pool":           {"internal/task", "internal/clock", "internal/image", "internal/worker/…", "internal/upstream", "internal/outbound"},
	// source stands apart: worker and pool need no registry to be tested.
	"internal/pool/source": {"internal/pool", "internal/clock", "internal/image", "internal/blob", "internal/content", "internal/mirror", "internal/upstream"},

	// kube is work on Kubernetes: custom resources in, Jobs out.
	"internal/kube":            {},
	"internal/kube/crd":        {"internal/workflow"},
	"internal/kube/install":    {"internal/kube/crd"},
	"internal/kube/controller": {"internal/kube/crd", "internal/clock", "internal/task", "internal/work/…", "internal/workflow/…"},
	// Workers in pods: dispatch knows no Kubernetes, jobs no work server.
	"internal/kube/dispatch": {"internal/clock", "internal/task", "internal/work/…", "internal/worker/isolate"},
	"internal/kube/images":   {"internal/clock", "internal/image", "internal/upstream", "internal/pool", "internal/pool/source", "internal/kube/jobs"},
	"internal/kube/jobs":     {"internal/clock", "internal/task", "internal/image", "internal/upstream", "internal/kube/dispatch"},

	// serve is the one place that wires everything.
	"internal/serve": {"internal/…"},
	"internal/demo":  {"internal/pool", "internal/serve", "internal/client", "internal/api/wire", "internal/clock", "internal/config", "internal/image", "internal/usage", "internal/retention"},
	"cmd/cairn":      {"internal/worker/…", "internal/agent/…", "internal/kube/install", "internal/credential", "internal/code", "internal/scan", "internal/rules", "internal/catalog/…", "internal/choose", "internal/bump", "internal/workflow/…", "internal/serve", "internal/demo", "internal/client", "internal/api/wire", "internal/config", "internal/clock", "internal/image", "internal/usage", "internal/content", "internal/retention", "internal/access"},

	"cmd/cairn-worker": {"internal/worker/…", "internal/clock"},

	"test/parts/build": {"test/parts"},
	"bench/…":          {"internal/…", "test/parts", "test/cluster", "test/images", "test/gitea", "bench/…"},
	"test/…":           {"internal/…", "test/…"},
}

// modules says which packages may import a module from outside. What is heavy
// stays where it is needed, so that the rest builds and is tested quickly.
var modules = map[string][]string{
	"github.com/rogpeppe/go-internal":        {"cmd/cairn"},
	"modernc.org/sqlite":                     {"internal/db"},
	"golang.org/x/sys":                       {"internal/blob", "internal/serve", "internal/worker/…", "internal/pool", "bench/…", "test/cluster"},
	"golang.org/x/sync":                      {"internal/…"},
	"github.com/spf13/cobra":                 {"cmd/cairn"},
	"github.com/spf13/pflag":                 {"cmd/cairn"},
	"go.yaml.in/yaml/v3":                     {"internal/config", "internal/manifest", "internal/terraform", "internal/workflow/document", "internal/kube/crd", "internal/kube/install", "internal/kube/jobs", "cmd/cairn"},
	"github.com/google/cel-go":               {"internal/workflow"},
	"github.com/expr-lang/expr":              {"internal/workflow/argo"},
	"github.com/Masterminds/sprig/v3":        {"internal/workflow/argo"},
	"github.com/itchyny/gojq":                {"internal/workflow/argo", "internal/worker/resource"},
	"github.com/adhocore/gronx":              {"internal/workflow", "internal/work/…"},
	"github.com/klauspost/compress":          {"internal/work/logs", "internal/pool"},
	"github.com/danielgtaylor/huma/v2":       {"internal/api"},
	"github.com/prometheus/client_golang":    {"internal/serve"},
	"github.com/google/go-containerregistry": {"internal/catalog/keychain", "test/…"},
	"github.com/aws/aws-sdk-go-v2":           {"internal/catalog/keychain"},
	"github.com/aws/aws-sdk-go-v2/config":    {"internal/catalog/keychain"},
	"github.com/opencontainers/go-digest":    {"internal/…", "bench/…", "test/…"},
	"k8s.io/client-go":                       {"bench/kube", "internal/agent/kube", "internal/kube/…", "test/…"},
	"k8s.io/api":                             {"internal/agent/kube", "internal/kube/jobs", "bench/agent", "test/…"},
	"k8s.io/apimachinery":                    {"internal/agent/kube", "internal/kube/…", "bench/agent", "test/…"},
	"k8s.io/klog/v2":                         {"internal/agent/kube", "internal/kube/…"},
	"github.com/go-logr/logr":                {"internal/agent/kube", "internal/kube/…"},
	"k8s.io/cri-api":                         {"internal/agent/cri", "bench/agent"},
	"google.golang.org/grpc":                 {"internal/agent/cri", "bench/agent"},
	"github.com/coreos/go-oidc/v3":           {"internal/access"},
	"github.com/go-jose/go-jose/v4":          {"internal/access"},
	"github.com/hashicorp/hcl/v2":            {"internal/terraform"},
	"github.com/zclconf/go-cty":              {"internal/terraform"},
	"github.com/zclconf/go-cty-yaml":         {"internal/terraform"},
}

// pure lists packages and single files that decide without looking at the
// world: the same input gives the same answer.
var pure = []string{
	"internal/image",
	"internal/usage/credit.go",
	"internal/usage/covered.go",
	"internal/retention/decide.go",
	"internal/credential",
	"internal/code",
	"internal/terraform",
	"internal/manifest",
	"internal/choose",
	"internal/task",
	"internal/workflow",
	"internal/workflow/argo",
	"internal/workflow/document",
	"internal/work/machine",
	"internal/kube/crd",
	"internal/kube/install",
	"internal/kube/dispatch/shape.go",
	"internal/kube/jobs/build.go",
	"internal/agent/inventory.go",
	"internal/agent/name.go",
}

// world is what a pure place does not import.
var world = []string{"os", "os/exec", "net", "net/http", "database/sql", "io/fs", "path/filepath", "syscall", "log/slog", "math/rand", "math/rand/v2", "crypto/rand", module + "/internal/clock", module + "/internal/db", module + "/internal/blob"}

// wallClock lists packages and files that may ask the machine for the time, with the
// reason. Everybody else takes a clock.Clock.
var wallClock = map[string]string{
	"internal/simulation":           "stops exploring when its time is up",
	"internal/clock":                "it is the clock",
	"internal/content/collect.go":   "steps aside for as long as this machine needs",
	"internal/blob":                 "measures what the disk costs, to choose among folders",
	"internal/api":                  "deadlines of connections are the kernel's, on its clock",
	"internal/registry":             "deadlines of connections are the kernel's, on its clock",
	"internal/upstream/patience.go": "deadlines of connections are the kernel's, on its clock",
	"internal/db":                   "bounds how long a transaction stays open; no fact depends on it",
	"internal/serve/hooks.go":       "deadlines of connections are the kernel's, on its clock",
	"internal/worker/keep":          "waits for the kernel, in a process of its own",
	"internal/demo":                 "a progress line for people who wait",
	"cmd/cairn":                     "says how long something took, and prints ages to people",
	"bench":                         "measures",
	"test":                          "waits for real programs",
}

// file is one Go file of the repository.
type file struct {
	path string // from the root, with slashes
	dir  string
	test bool
	ast  *ast.File
}

// repository reads the Go files of this module.
func repository(t *testing.T) (*token.FileSet, []file) {
	t.Helper()
	fset := token.NewFileSet()
	var files []file
	var others []string // folders of other modules, which keep what they need to themselves
	walk(t, func(name string) {
		if dir, is := strings.CutSuffix(name, "/go.mod"); is {
			others = append(others, dir+"/")
		}
	})
	walk(t, func(name string) {
		if !strings.HasSuffix(name, ".go") || slices.ContainsFunc(others, func(dir string) bool { return strings.HasPrefix(name, dir) }) {
			return
		}
		a, err := parser.ParseFile(fset, filepath.Join("..", filepath.FromSlash(name)), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatalf("parse %s: %v", name, err)
		}
		files = append(files, file{path: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), ast: a})
	})
	if len(files) < 10 {
		t.Fatalf("found only %d Go files: is this test in the folder internal?", len(files))
	}
	return fset, files
}

// walk calls f with each file of the repository, as a path from its root.
func walk(t *testing.T, f func(name string)) {
	t.Helper()
	root := os.DirFS("..")
	err := fs.WalkDir(root, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			// Not ours, or made by us and not checked in.
			if name == ".git" || name == "dist" || name == "bench/out" || e.Name() == "testdata" && strings.HasSuffix(name, "/fuzz/testdata") {
				return fs.SkipDir
			}
			return nil
		}
		if e.Type().IsRegular() {
			f(name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// match reports whether dir is the place that pattern names.
func match(pattern, dir string) bool {
	if under, ok := strings.CutSuffix(pattern, "…"); ok {
		return strings.HasPrefix(dir+"/", under)
	}
	return pattern == dir
}

func matchAny(patterns []string, dir string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return match(p, dir) })
}

// allowed is the list of the place: its own, else that of the longest pattern
// that holds it.
func allowed(dir string) ([]string, bool) {
	if list, ok := rooms[dir]; ok {
		return list, true
	}
	if suite(dir) { // stands where a test stands
		return []string{"internal/…"}, true
	}
	best, found := "", false
	for p := range rooms {
		if match(p, dir) && len(p) > len(best) {
			best, found = p, true
		}
	}
	return rooms[best], found
}

// suite reports whether dir holds what tests of several packages share, such
// as blob/blobtest.
func suite(dir string) bool {
	return strings.HasPrefix(dir, "internal/") && strings.HasSuffix(dir, "test")
}

func TestImports(t *testing.T) {
	required := requirements(t)
	fset, files := repository(t)
	for _, f := range files {
		for _, i := range f.ast.Imports {
			name, _ := strconv.Unquote(i.Path.Value)
			at := fset.Position(i.Pos())
			if in, ok := strings.CutPrefix(name, module+"/"); ok {
				if f.test { // the compiler forbids the cycles that matter
					continue
				}
				list, known := allowed(f.dir)
				switch {
				case suite(in) && !suite(f.dir) && strings.HasPrefix(f.dir, "internal/"):
					t.Errorf("%s: %s is for tests", at, in)
				case !known:
					t.Errorf("%s: %s is not in the plan: add it to rooms here and to docs/architecture.md", at, f.dir)
				case !matchAny(list, in):
					t.Errorf("%s: %s may not import %s; it may import %v", at, f.dir, in, list)
				}
				continue
			}
			if !strings.Contains(strings.SplitN(name, "/", 2)[0], ".") {
				continue // standard library
			}
			mod := moduleOf(required, name)
			places, known := modules[mod]
			switch {
			case mod == "":
				t.Errorf("%s: %s is in no module that go.mod requires", at, name)
			case !known:
				t.Errorf("%s: module %s is not in the plan: is it worth it? Then add it to modules here and to docs/dependencies.md", at, mod)
			case !matchAny(places, f.dir):
				t.Errorf("%s: %s may not import module %s; only %v may", at, f.dir, mod, places)
			}
		}
	}
}

// requirements are the modules that go.mod requires.
func requirements(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	var mods []string
	for _, m := range regexp.MustCompile(`(?m)^(?:require )?\s*(\S+\.\S+) v\S+`).FindAllSubmatch(b, -1) {
		mods = append(mods, string(m[1]))
	}
	if len(mods) < 5 {
		t.Fatalf("read only %v from go.mod", mods)
	}
	return mods
}

func moduleOf(required []string, pkg string) string {
	best := ""
	for _, m := range required {
		if (pkg == m || strings.HasPrefix(pkg, m+"/")) && len(m) > len(best) {
			best = m
		}
	}
	return best
}

// The picture for people shows every room.
func TestPlanIsDrawn(t *testing.T) {
	b, err := os.ReadFile("../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	_, files := repository(t)
	for _, f := range files {
		room, ok := strings.CutPrefix(f.dir, "internal/")
		if !ok || f.test || strings.Contains(room, "/") {
			continue
		}
		if !bytes.Contains(b, []byte("\n  "+room+"/ ")) {
			t.Errorf("docs/architecture.md does not show internal/%s", room)
		}
	}
}

// Each module in use, and each tool, has a line in the docs that says what for.
func TestDependenciesAreExplained(t *testing.T) {
	docs, err := os.ReadFile("../docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	required := requirements(t)
	use := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^(?:require )?\s*(\S+\.\S+) v\S+$`).FindAllSubmatch(mod, -1) {
		use[string(m[1])] = true // a direct one bears no comment
	}
	if _, tools, ok := bytes.Cut(mod, []byte("tool (")); ok {
		tools, _, _ = bytes.Cut(tools, []byte(")"))
		for tool := range strings.FieldsSeq(string(tools)) {
			use[moduleOf(required, tool)] = true
		}
	}
	_, files := repository(t)
	for _, f := range files {
		for _, i := range f.ast.Imports {
			name, _ := strconv.Unquote(i.Path.Value)
			if m := moduleOf(required, name); m != "" {
				use[m] = true
			}
		}
	}
	for m := range use {
		if !regexp.MustCompile("(?m)^\\| *`" + regexp.QuoteMeta(m) + "`").Match(docs) {
			t.Errorf("docs/dependencies.md does not say what %s is for", m)
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| *`([^`]+)`").FindAllSubmatch(docs, -1) {
		if !use[string(m[1])] {
			t.Errorf("docs/dependencies.md explains %s, which nothing uses", m[1])
		}
	}
}

func TestPurity(t *testing.T) {
	fset, files := repository(t)
	found := map[string]bool{}
	for _, f := range files {
		place := f.path
		if !slices.Contains(pure, place) {
			place = f.dir
		}
		if f.test || !slices.Contains(pure, place) {
			continue
		}
		found[place] = true
		for _, i := range f.ast.Imports {
			name, _ := strconv.Unquote(i.Path.Value)
			if slices.Contains(world, name) {
				t.Errorf("%s: %s is pure and may not import %s", fset.Position(i.Pos()), place, name)
			}
		}
		calls(f.ast, func(pkg, name string, pos token.Pos) {
			if pkg == "time" && slices.Contains([]string{"Now", "Since", "Until", "Sleep", "After", "NewTimer", "NewTicker", "Tick", "AfterFunc"}, name) {
				t.Errorf("%s: %s is pure and may not call time.%s: take the time as an argument", fset.Position(pos), place, name)
			}
		})
	}
	for _, p := range pure {
		if !found[p] {
			t.Errorf("%s is on the list of pure places and is not there: correct the list", p)
		}
	}
}

func TestTimeIsInjected(t *testing.T) {
	fset, files := repository(t)
	for _, f := range files {
		if suite(f.dir) || wallClock[f.dir] != "" || wallClock[f.path] != "" || f.test {
			continue
		}
		if top, _, _ := strings.Cut(f.dir, "/"); wallClock[top] != "" {
			continue
		}
		calls(f.ast, func(pkg, name string, pos token.Pos) {
			if pkg == "time" && slices.Contains([]string{"Now", "Sleep", "After", "NewTimer", "NewTicker", "Tick", "AfterFunc"}, name) {
				t.Errorf("%s: time.%s: take a clock.Clock, so that a test can move it", fset.Position(pos), name)
			}
		})
	}
}

// calls reports every use of a name of a package, called or not.
func calls(a *ast.File, f func(pkg, name string, pos token.Pos)) {
	ast.Inspect(a, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok {
				f(x.Name, s.Sel.Name, s.Pos())
			}
		}
		return true
	})
}

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
