package terraform

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"cairn.dev/cairn/internal/code"
	"cairn.dev/cairn/internal/image"
)

// A Reader reads trees. It remembers what it parsed and evaluated, by content,
// so that a tree that differs in one file costs the modules that read that
// file. It remembers by path: let each repository have its own. The zero value
// is ready; it is safe for concurrent use.
type Reader struct {
	mu   sync.Mutex
	made map[[sha256.Size]byte]*memory // by options
}

// maxOptions bounds for how many different options a Reader remembers.
const maxOptions = 8

// memory is what is remembered for one set of options.
type memory struct {
	types   map[string]bool
	parsed  parsed
	glances glances
	answers answers
	markers answers
}

// remember returns the memory for the options.
func (r *Reader) remember(o code.Options) *memory {
	k := sha256.Sum256(fmt.Appendf(nil, "%q %q %q", o.Environments, o.Sinks, o.Ignore)) // maps print sorted
	r.mu.Lock()
	defer r.mu.Unlock()
	if m := r.made[k]; m != nil {
		return m
	}
	if r.made == nil || len(r.made) >= maxOptions {
		r.made = map[[sha256.Size]byte]*memory{}
	}
	r.made[k] = &memory{types: sinkTypes(o)}
	return r.made[k]
}

// Read evaluates every root module of the tree, once by default and once for
// each environment that has var-files for it: a root module is one that no
// other calls. A called module of which no call is evaluated is evaluated by
// itself. What cannot be read is among the problems; an error is only ctx's.
func (r *Reader) Read(ctx context.Context, t *code.Tree, o code.Options) (*code.Result, error) {
	m := r.remember(o)
	ignored := func(p string) bool {
		return slices.ContainsFunc(o.Ignore, func(g string) bool { return image.Glob(g).Match(p) })
	}
	g := newGraph(t, m.types, ignored, func(f code.File) facts { return m.glances.get(f, m.types) })
	pass := &pass{ctx: ctx, memory: m, tree: t, options: o, ignored: ignored, graph: g}
	found := pass.all(pass.tasks(g.roots()))
	pass.rest(&found)
	for _, f := range g.marked {
		found = append(found, pass.markers(f))
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return gather(found), nil
}

// A pass is one reading of one tree.
type pass struct {
	ctx     context.Context
	memory  *memory
	tree    *code.Tree
	options code.Options
	ignored func(string) bool
	graph   *graph
}

// A task is one root module in one environment.
type task struct {
	root, environment string
	files             []string
}

func (p *pass) tasks(roots []string) []task {
	var out []task
	for _, root := range roots {
		out = append(out, task{root: root})
		for _, name := range slices.Sorted(maps.Keys(p.options.Environments)) {
			if files := p.graph.environment(root, p.options.Environments[name]); len(files) > 0 && name != "" {
				out = append(out, task{root, name, files})
			}
		}
	}
	return out
}

// all does tasks, as many at once as there are processors.
func (p *pass) all(tasks []task) []*answer {
	out := make([]*answer, len(tasks))
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(tasks)) {
		wg.Go(func() {
			for i := range next {
				out[i] = p.do(tasks[i])
			}
		})
	}
	for i := range tasks {
		next <- i
	}
	close(next)
	wg.Wait()
	return out
}

// rest evaluates modules that are called and that no call reached: all calls
// are in a circle, or in a module that cannot be read. Each may reach others.
func (p *pass) rest(found *[]*answer) {
	reached := map[string]bool{}
	for _, a := range *found {
		maps.Copy(reached, a.reached)
	}
	for _, dir := range p.graph.dirs {
		if !p.graph.needed[dir] || reached[dir] {
			continue
		}
		for _, a := range p.all(p.tasks([]string{dir})) {
			*found = append(*found, a)
			maps.Copy(reached, a.reached)
		}
	}
}

// do evaluates one root module, unless it is known what that says.
func (p *pass) do(t task) *answer {
	k := answerKey{t.root, t.environment}
	if known := p.memory.answers.get(k, p.tree, p.graph); known != nil {
		return known
	}
	a := &answer{}
	files := newReads(p.tree, p.graph, &p.memory.parsed, p.ignored)
	r := newRun(p.ctx, t, files, p.memory.types, func(res Resource) { a.images = append(a.images, sinks(res, p.options)...) })
	r.fenced(code.Place{File: t.root}, "the root module", func() { r.evaluate(t.files) })
	a.problems, a.seen, a.reached = r.problems, files.seen, r.reached
	if p.ctx.Err() == nil {
		p.memory.answers.put(k, a)
	}
	return a
}

func newRun(ctx context.Context, t task, files *reads, wanted map[string]bool, emit func(Resource)) *run {
	r := &run{
		root: t.root, environment: t.environment, files: files, wanted: wanted, emit: emit, reached: map[string]bool{},
		gauge: &gauge{ctx: ctx, left: maxWork}, given: map[string]given{}, keyed: map[string][]*literal{},
		texts: map[string]*literal{}, templates: map[string]*arg{},
	}
	r.ctx = &hcl.EvalContext{
		Functions: r.functions(),
		Variables: map[string]cty.Value{gaugeName: cty.CapsuleVal(gaugeType, r.gauge)},
	}
	return r
}

// evaluate is one run, from the root module down.
func (r *run) evaluate(files []string) {
	m := r.files.module(r.root)
	if m == nil {
		return
	}
	r.readVariables(variableFiles(r.files.folder(r.root)))
	r.readVariables(files)
	in := r.instance(m)
	in.everything()
	for _, m := range r.files.loaded {
		if m != nil {
			r.problems = append(r.problems, m.problems...)
		}
	}
	if r.gauge.left <= 0 && r.gauge.ctx.Err() == nil {
		r.problem(code.Place{File: r.root}, "evaluating the module takes too much work: some of it is not known")
	}
}

// markers are the images that comments in a file name.
func (p *pass) markers(f code.File) *answer {
	k := answerKey{root: f.Path}
	if known := p.memory.markers.get(k, p.tree, p.graph); known != nil {
		return known
	}
	files := newReads(p.tree, p.graph, &p.memory.parsed, p.ignored)
	a := &answer{}
	if s, err := files.source(f.Path); err == nil {
		a.images, a.problems = markers(f, s.literals), s.problems
	}
	a.seen = files.seen
	p.memory.markers.put(k, a)
	return a
}

// gather puts answers together, sorted, each problem once and each image
// under a name of its own.
func gather(found []*answer) *code.Result {
	out := &code.Result{}
	var marks []code.Image
	for _, a := range found {
		for _, i := range a.images {
			if i.Format == code.Marker {
				marks = append(marks, i)
			} else {
				out.Images = append(out.Images, i)
			}
		}
		out.Problems = append(out.Problems, a.problems...)
	}
	out.Images = withMarkers(out.Images, marks)
	slices.SortStableFunc(out.Images, func(a, b code.Image) int { return cmp.Compare(a.ID, b.ID) })
	// The same resource twice is an error that Terraform will report.
	for i, n := 1, 1; i < len(out.Images); i++ {
		if base := out.Images[i-n].ID; out.Images[i].ID == base {
			n++
			out.Images[i].ID = fmt.Sprintf("%s#%d", base, n)
		} else {
			n = 1
		}
	}
	slices.SortStableFunc(out.Problems, func(a, b code.Problem) int {
		return cmp.Or(cmp.Compare(a.Place.File, b.Place.File), a.Place.Line-b.Place.Line, a.Place.Column-b.Place.Column, cmp.Compare(a.Text, b.Text))
	})
	out.Problems = slices.Compact(out.Problems)
	return out
}
