package work_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/internal/work/worktest"
	"cairn.dev/cairn/internal/workflow"
)

// rig is a server on a database and a clock that moves when told to.
type rig struct {
	t         *testing.T
	cfg       work.Config
	path      string
	clock     *clock.Fake
	graphs    worktest.Graphs
	schedules map[string]*workflow.Schedule
	blobs     *worktest.Blobs
	changed   func(run string)
	db        *db.DB
	s         *work.Server
	stop      func()
}

func newRig(t *testing.T, cfg work.Config) *rig {
	t.Helper()
	cfg.Secret = []byte("0123456789abcdef")
	r := &rig{t: t, cfg: cfg, path: filepath.Join(t.TempDir(), "work.db"), clock: clock.NewFake(time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)), graphs: worktest.Graphs{}, blobs: &worktest.Blobs{}, schedules: map[string]*workflow.Schedule{}}
	r.start()
	t.Cleanup(func() { r.end() })
	return r
}

func (r *rig) start() {
	r.t.Helper()
	var err error
	if r.db, err = db.Open(r.t.Context(), db.Config{Path: r.path, Sync: db.Full, Schema: work.Schema}); err != nil {
		r.t.Fatal(err)
	}
	if r.s, err = work.New(r.t.Context(), r.cfg, work.Deps{DB: r.db, Clock: r.clock, Blobs: r.blobs, Compile: r.graphs.Compile, Changed: r.changed, Names: names, Digest: digestOf,
		CompileSchedule: func(b []byte) (*workflow.Schedule, error) { return r.schedules[string(b)], nil }}); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.s.Run(ctx) }()
	r.stop = func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("the server ended: %v", err)
		}
		if err := r.db.Close(); err != nil {
			r.t.Error(err)
		}
	}
}

func (r *rig) end() {
	if r.stop != nil {
		r.stop()
		r.stop = nil
	}
}

func (r *rig) restart() {
	r.t.Helper()
	r.end()
	r.start()
}

func (r *rig) submit(g *workflow.Graph) string {
	r.t.Helper()
	id, err := r.s.Submit(r.t.Context(), r.graphs.Add(g), "ann", work.Options{})
	if err != nil {
		r.t.Fatal(err)
	}
	return id
}

func (r *rig) ask(a task.Ask) task.Grant {
	r.t.Helper()
	g, err := r.s.Work(r.t.Context(), a)
	if err != nil {
		r.t.Fatal(err)
	}
	return g
}

func (r *rig) get(id string) work.Info {
	r.t.Helper()
	i, err := r.s.Get(r.t.Context(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	return i
}

// work does all there is to do, by a function that makes an outcome of a lease.
func (r *rig) work(f func(task.Lease) task.Outcome) int {
	r.t.Helper()
	n := 0
	var out []task.Outcome
	for idle := 0; idle < 3; {
		r.settle()
		g := r.ask(task.Ask{Worker: "w1", Want: 32, Outcomes: out})
		if len(g.Refused) > 0 {
			r.t.Fatalf("refused: %v", g.Refused)
		}
		out = out[:0]
		for _, l := range g.Leases {
			o := f(l)
			o.Ref = l.Ref
			out = append(out, o)
			n++
		}
		if len(g.Leases) == 0 {
			idle++
		} else {
			idle = 0
		}
	}
	return n
}

func TestListMapAggregate(t *testing.T) {
	r := newRig(t, work.Config{})
	each := worktest.With(worktest.Call("map", "task", "list"), "n", worktest.Ref("item"))
	each.Each = &workflow.Each{Items: worktest.Ref("tasks.list.outputs.result")}
	sum := worktest.With(worktest.Call("sum", "task", "map"), "n", worktest.Func(func(s workflow.Scope) (workflow.Value, error) {
		v, err := worktest.Ref("tasks.map.outputs.result").Eval(s)
		if err != nil {
			return nil, err
		}
		return float64(len(v.([]any))), nil
	}))
	list := worktest.Task()
	list.Outputs = []workflow.Output{{Name: "result", Result: true, Type: "lines"}}
	mapper := worktest.Task("n")
	mapper.Outputs = []workflow.Output{{Name: "result", Result: true}}
	id := r.submit(worktest.Graph("lma", map[string]*workflow.Template{
		"main": worktest.DAG(worktest.Call("list", "list"), each, sum), "list": list, "task": mapper,
	}))
	const items = 1000
	text := ""
	for range items {
		text += "line\n"
	}
	n := r.work(func(l task.Lease) task.Outcome {
		o := task.Outcome{Phase: task.Succeeded, Outputs: map[string]task.Produced{"result": {Text: &text}}}
		if len(l.Task) > 1 { // one of many
			one := "x"
			o.Outputs = map[string]task.Produced{"result": {Text: &one}}
		}
		return o
	})
	i := r.get(id)
	if i.Phase != machine.Succeeded || n != items+2 {
		t.Fatalf("%d tasks, %+v", n, i)
	}
	r.restart()
	if j := r.get(id); j.Phase != machine.Succeeded || j.Counts.Succeeded != items+2 {
		t.Fatalf("after a restart: %+v", j)
	}
}
