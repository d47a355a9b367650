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
	"internal/registry": {"internal/image", "internal/blob", "internal/content", "internal/access", "internal/mirror"},
	// mirror fetches what other registries have; it does not know who asks.
	"internal/mirror": {"internal/image", "internal/clock", "internal/blob", "internal/content", "internal/upstream"},
	// upstream is how other registries are asked, for all who ask them.
	"internal/upstream": {"internal/image", "internal/clock", "internal/outbound"},

	// reap applies the plan where the images are another registry's.
	"internal/reap": {"internal/image", "internal/clock", "internal/db", "internal/usage", "internal/content", "internal/retention", "internal/upstream"},

	// simulation is for tests; it goes through the rooms that decide and keep.
	"internal/simulation": {"internal/image", "internal/usage", "internal/content", "internal/retention"},

	"internal/config":   {"internal/image"},
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
	"internal/task":            {},
	"internal/task/condition":  {},
	"internal/task/jsonpath":   {},
	"internal/outbound":        {},
	"internal/workflow/…":      {"internal/task/…", "internal/image", "internal/workflow/…"},
	"internal/work":            {"internal/task", "internal/workflow", "internal/clock", "internal/db", "internal/image", "internal/usage", "internal/work/…"},
	"internal/work/doorway":    {},
	"internal/work/door":       {"internal/work", "internal/work/doorway", "internal/task"},
	"internal/work/artifacts":  {"internal/work/artifacts/…", "internal/work/doorway", "internal/task", "internal/outbound", "internal/upstream", "internal/workflow", "internal/clock", "internal/blob", "internal/content", "internal/image", "internal/forge", "internal/forge/git"},
	"internal/work/…":          {"internal/work/doorway", "internal/task", "internal/outbound", "internal/workflow", "internal/clock", "internal/db"},
	"internal/worker":          {"internal/task", "internal/clock", "internal/worker/…"},
	"internal/worker/resource": {"internal/task/…", "internal/clock", "internal/worker/…", "internal/workflow/document"}, // manifests are YAML
	"internal/worker/…":        {"internal/task/…", "internal/clock", "internal/worker/…"},
	"internal/pool":            {"internal/task", "internal/clock", "internal/image", "internal/worker/…", "internal/upstream", "internal/outbound"},
	// source stands apart: worker and pool need no registry to be tested.
	"internal/pool/source": {"internal/pool", "internal/clock", "internal/image", "internal/blob", "internal/content", "internal/mirror", "internal/upstream"},

	// kube is work on Kubernetes: custom resources in, Jobs out.
	"internal/kube":            {"internal/clock"},
	"internal/kube/crd":        {"internal/workflow"},
	"internal/kube/install":    {"internal/kube/crd"},
	"internal/kube/controller": {"internal/kube/crd", "internal/clock", "internal/task", "internal/work/…", "internal/workflow/…"},
	// Workers in pods: dispatch knows no Kubernetes, jobs no work server.
	"internal/kube/dispatch": {"internal/clock", "internal/task", "internal/work/…", "internal/worker/isolate"},
	"internal/kube/images":   {"internal/clock", "internal/image", "internal/outbound", "internal/upstream", "internal/pool", "internal/pool/source", "internal/kube/jobs"},
	"internal/kube/jobs":     {"internal/clock", "internal/kube/dispatch"},

	// serve is the one place that wires everything.
	"internal/serve": {"internal/…"},
	"internal/demo":  {"internal/pool", "internal/serve", "internal/client", "internal/clock", "internal/config", "internal/image", "internal/usage"},
	"cmd/cairn":      {"internal/worker/…", "internal/agent/…", "internal/kube/install", "internal/credential", "internal/code", "internal/scan", "internal/rules", "internal/catalog/…", "internal/choose", "internal/bump", "internal/workflow/…", "internal/serve", "internal/demo", "internal/client", "internal/api/wire", "internal/config", "internal/clock", "internal/image", "internal/usage", "internal/content", "internal/access"},

	"cmd/cairn-worker": {"internal/worker/…"},

	"test/parts/build": {"test/parts"},
	"bench/…":          {"internal/…", "test/parts", "test/cluster", "test/images", "test/gitea", "bench/…"},
	"test/…":           {"internal/…", "test/…"},
}

// modules says which packages may import a module from outside. What is heavy
// stays where it is needed, so that the rest builds and is tested quickly.
var modules = map[string][]string{
	"github.com/rogpeppe/go-internal":        {"cmd/cairn"},
	"modernc.org/sqlite":                     {"internal/db"},
	"golang.org/x/sys":                       {"internal/blob", "internal/worker/…", "internal/pool", "bench/…", "test/cluster"},
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
	"k8s.io/api":                             {"internal/agent/kube", "internal/kube/jobs", "bench/agent"},
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

// allowed is what the place may import.
func allowed(dir string) ([]string, bool) {
	if suite(dir) { // stands where a test stands
		return []string{"internal/…"}, true
	}
	list, known := rooms[planned(dir)]
	return list, known
}

// planned is the entry of rooms that holds for the place: its own, else the
// longest pattern that matches.
func planned(dir string) string {
	if _, ok := rooms[dir]; ok {
		return dir
	}
	best := ""
	for p := range rooms {
		if match(p, dir) && len(p) > len(best) {
			best = p
		}
	}
	return best
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

// The picture for people shows every room, and what tests stand on.
func TestPlanIsDrawn(t *testing.T) {
	b, err := os.ReadFile("../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	_, files := repository(t)
	seen := map[string]bool{}
	for _, f := range files {
		if seen[f.dir] {
			continue
		}
		top, room, _ := strings.Cut(f.dir, "/")
		line := "\n" + f.dir + " "
		if top == "internal" {
			line = "\n  " + room + "/ "
		}
		if (top == "internal" && !f.test || top == "test") && !strings.Contains(room, "/") && room != "" && !bytes.Contains(b, []byte(line)) {
			seen[f.dir] = true
			t.Errorf("docs/architecture.md does not show %s", f.dir)
		}
	}
}

// What a room may import and does not is a door that nobody uses: it is walled up.
func TestPlanIsUsed(t *testing.T) {
	used := map[string][]string{}
	_, files := repository(t)
	for _, f := range files {
		if f.test || suite(f.dir) {
			continue
		}
		place := planned(f.dir)
		for _, i := range f.ast.Imports {
			name, _ := strconv.Unquote(i.Path.Value)
			if in, ok := strings.CutPrefix(name, module+"/"); ok {
				used[place] = append(used[place], in)
			}
		}
	}
	for place, list := range rooms {
		for _, p := range list {
			if !slices.ContainsFunc(used[place], func(in string) bool { return match(p, in) }) {
				t.Errorf("%s may import %s and does not: take it out of rooms", place, p)
			}
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
	for _, m := range regexp.MustCompile("(?m)^\\| *`([^`]+)`.*\\|([^|]+)\\|$").FindAllSubmatch(docs, -1) {
		mod, where := string(m[1]), string(m[2])
		if !use[mod] {
			t.Errorf("docs/dependencies.md explains %s, which nothing uses", mod)
		}
		var told, places []string
		for _, p := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(where, -1) {
			told = append(told, p[1])
		}
		for _, p := range modules[mod] {
			if strings.HasPrefix(p, "internal/") || strings.HasPrefix(p, "cmd/") {
				places = append(places, p)
			}
		}
		slices.Sort(told)
		slices.Sort(places)
		if modules[mod] != nil && !slices.Equal(told, places) {
			t.Errorf("docs/dependencies.md has %s in %q; it may be imported in %q", mod, told, places)
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
