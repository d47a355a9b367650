package work_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/internal/work/worktest"
)

// real is a server on SQLite, which dies at commits when told to.
type real struct {
	t       testing.TB
	path    string
	clock   *clock.Fake
	graphs  worktest.Graphs
	blobs   *worktest.Blobs
	db      *db.DB
	s       *work.Server
	ended   chan error
	stop    context.CancelFunc
	fault   atomic.Pointer[string] // where the process ends
	workers [worktest.Workers]*holder
	lives   int
	ids     []string
	good    map[string]int // tasks by how many outcomes counted that went well
	seen    struct{ crashes, refused, ended, good int }
}

type holder struct {
	name string
	held []task.Lease
}

var errDied = errors.New("the process died")

func newReal(t testing.TB, dir string) *real {
	r := &real{t: t, path: filepath.Join(dir, "work.db"), clock: clock.NewFake(time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)),
		graphs: worktest.Graphs{}, blobs: &worktest.Blobs{}, good: map[string]int{}}
	for i := range r.workers {
		r.workers[i] = &holder{name: fmt.Sprintf("w%d", i)}
	}
	r.lives = worktest.Workers
	return r
}

func (r *real) start() (err error) {
	r.fault.Store(nil)
	if r.db, err = db.Open(context.Background(), db.Config{Path: r.path, Sync: db.Full, Schema: work.Schema, Fault: func(point string) error {
		if p := r.fault.Load(); p != nil && *p == point {
			return errDied
		}
		return nil
	}}); err != nil {
		return err
	}
	cfg := work.Config{Secret: []byte("0123456789abcdef"), MaxActive: 9, MaxPerNamespace: 7, MaxPerRun: 5}
	if r.s, err = work.New(context.Background(), cfg, work.Deps{DB: r.db, Clock: r.clock, Blobs: r.blobs, Compile: r.graphs.Compile}); err != nil {
		return err
	}
	var ctx context.Context
	ctx, r.stop = context.WithCancel(context.Background())
	r.ended = make(chan error, 1)
	s := r.s
	go func() { r.ended <- s.Run(ctx) }()
	return nil
}

func (r *real) end() error {
	r.stop()
	<-r.ended // with an error, when the process died in a commit
	return r.db.Close()
}

// do is a call, with what goes wrong. told: the answer arrives.
func (r *real) do(s worktest.Step, f func() error) (told bool, err error) {
	if s.Loss == worktest.Request {
		return false, nil
	}
	dies := s.Loss == worktest.CrashBefore || s.Loss == worktest.CrashAfter
	if dies {
		point := db.BeforeCommit
		if s.Loss == worktest.CrashAfter {
			point = db.AfterCommit
		}
		r.fault.Store(&point)
	}
	err = f()
	switch {
	case dies:
		r.seen.crashes++
		if err := r.end(); err != nil && !errors.Is(err, errDied) && !errors.Is(err, db.ErrClosed) {
			return false, fmt.Errorf("close after a crash: %w", err)
		}
		if err := r.start(); err != nil {
			return false, fmt.Errorf("start after a crash: %w", err)
		}
		return false, r.settle()
	case errors.Is(err, work.ErrConflict), errors.Is(err, work.ErrNotFound):
		err = nil
	}
	if err != nil {
		return false, err
	}
	return s.Loss == worktest.Nothing, r.settle()
}

func (r *real) settle() error {
	if err := r.s.Settle(context.Background()); err != nil {
		return err
	}
	return r.s.Check()
}

func (r *real) step(s worktest.Step) error {
	ctx := context.Background()
	if s.Kind == worktest.Submit {
		if len(r.ids) == worktest.Runs {
			return nil
		}
		g := r.graphs.Add(worktest.Random(uint64(s.N)))
		key := fmt.Sprint("key", len(r.ids))
		var id string
		told, err := r.do(s, func() (err error) {
			id, err = r.s.Submit(ctx, g, "ann", work.Options{Key: key})
			return err
		})
		if err == nil && !told && s.Loss != worktest.Request { // who hears nothing says it again
			id, err = r.s.Submit(ctx, g, "ann", work.Options{Key: key})
		}
		if err == nil && id != "" {
			r.ids = append(r.ids, id)
		}
		return err
	}
	if len(r.ids) == 0 {
		return nil
	}
	id := r.ids[s.Who%len(r.ids)]
	x := r.workers[s.Who%worktest.Workers]
	var err error
	switch s.Kind {
	case worktest.Ask:
		return r.ask(s, x, s.N, s.M)
	case worktest.Back:
		n := min(s.N, len(x.held))
		var back []task.Ref
		for _, l := range x.held[:n] {
			back = append(back, l.Ref)
		}
		told, err := r.do(s, func() error { _, err := r.s.Work(ctx, task.Ask{Worker: x.name, Back: back}); return err })
		if told {
			x.held = x.held[n:]
		}
		return err
	case worktest.Beat:
		return r.beat(s, x)
	case worktest.Die:
		r.lives++
		r.workers[s.Who%worktest.Workers] = &holder{name: fmt.Sprintf("w%d", r.lives)}
	case worktest.Pass:
		r.clock.Advance(time.Duration(s.N) * time.Second)
		_, err = r.do(worktest.Step{}, func() error { return nil })
	case worktest.Jump:
		r.clock.Jump(time.Duration(s.N) * time.Minute)
	case worktest.Cancel:
		_, err = r.do(s, func() error { return r.s.Cancel(ctx, id, "ann", s.M%2 == 1) })
	case worktest.Pause:
		_, err = r.do(s, func() error { return r.s.Suspend(ctx, id) })
	case worktest.Continue:
		_, err = r.do(s, func() error { return r.s.Resume(ctx, id, "", nil, false, "") })
	case worktest.Retry:
		_, err = r.do(s, func() error { return r.s.Retry(ctx, id) })
	case worktest.Resume:
		_, err = r.do(s, func() error { return r.resume(id, s.M == 0) })
	}
	return err
}

func (r *real) beat(s worktest.Step, x *holder) error {
	b := task.Beat{Worker: x.name}
	for _, l := range x.held {
		b.Held = append(b.Held, l.Ref)
	}
	var a task.Beaten
	told, err := r.do(s, func() (err error) { a, err = r.s.Beat(context.Background(), b); return err })
	if told {
		x.held = slices.DeleteFunc(x.held, func(l task.Lease) bool { return slices.Contains(a.Lost, l.Ref) })
	}
	return err
}

// resume ends the first wait it finds.
func (r *real) resume(id string, fail bool) error {
	var walk func(parent string) (bool, error)
	walk = func(parent string) (bool, error) {
		nodes, _, err := r.s.Nodes(context.Background(), id, parent, "", 1000, machine.Filter{})
		if err != nil {
			return false, err
		}
		for _, n := range nodes {
			if n.Kind == "suspend" && n.Waits != "" {
				return true, r.s.Resume(context.Background(), id, n.ID, nil, fail, "")
			}
			if n.Children && n.Kind != "tasks" {
				if done, err := walk(n.ID); done || err != nil {
					return done, err
				}
			}
		}
		return false, nil
	}
	_, err := walk("")
	return err
}

func (r *real) ask(s worktest.Step, x *holder, report, want int) error {
	luck := rand.New(rand.NewPCG(s.Luck, 5))
	report = min(report, len(x.held))
	a := task.Ask{Worker: x.name, Want: want}
	var stay []task.Lease
	for _, l := range x.held[:report] {
		if s.Luck != 1<<60 && luck.IntN(5) == 0 { // which means nothing of what is no daemon
			a.Serving = append(a.Serving, task.Serving{Ref: l.Ref, Address: "10.0.0.1"})
			stay = append(stay, l)
			continue
		}
		o := task.Outcome{Ref: l.Ref, Phase: task.Succeeded}
		switch p := luck.IntN(100); {
		case s.Luck == 1<<60:
		case p < 5:
			o.Phase = task.Canceled
		case p < 12:
			o.Phase, o.Exit = task.Failed, 3
		case p < 16:
			o.Phase = task.Errored
		case p < 20:
			o.Phase, o.Infrastructure = task.Errored, true
		case p < 60:
			text := "out"
			o.Outputs = map[string]task.Produced{"result": {Text: &text}}
		}
		a.Outcomes = append(a.Outcomes, o)
	}
	var g task.Grant
	told, err := r.do(s, func() (err error) { g, err = r.s.Work(context.Background(), a); return err })
	if !told {
		return err
	}
	r.seen.refused += len(g.Refused)
	for _, o := range a.Outcomes {
		if o.Phase == task.Succeeded && !slices.Contains(g.Refused, o.Ref) {
			r.seen.good++
			k := o.Run + "/" + o.Task
			if r.good[k]++; r.good[k] > 1 {
				return fmt.Errorf("two outcomes of task %s counted", k)
			}
		}
	}
	x.held = slices.Concat(stay, x.held[report:], g.Leases)
	return nil
}

// finish has everything end.
func (r *real) finish() error {
	ctx := context.Background()
	for range 1500 {
		open := false
		for _, id := range r.ids {
			i, err := r.s.Get(ctx, id)
			if err != nil {
				return err
			}
			if !i.Ended.IsZero() {
				continue
			}
			open = true
			if i.Suspended {
				if _, err := r.do(worktest.Step{}, func() error { return r.s.Resume(ctx, id, "", nil, false, "") }); err != nil {
					return err
				}
			}
			if _, err := r.do(worktest.Step{}, func() error { return r.resume(id, false) }); err != nil {
				return err
			}
		}
		if !open {
			break
		}
		for _, x := range r.workers {
			if err := r.ask(worktest.Step{Luck: 1 << 60}, x, len(x.held), 8); err != nil {
				return err
			}
			if err := r.beat(worktest.Step{}, x); err != nil {
				return err
			}
		}
		r.clock.Advance(3 * time.Second)
		if err := r.settle(); err != nil {
			return err
		}
	}
	for _, id := range r.ids {
		i, err := r.s.Get(ctx, id)
		if err != nil {
			return err
		}
		if i.Ended.IsZero() {
			return fmt.Errorf("run %s of %s does not end: %+v", id, i.Name, i)
		}
		r.seen.ended++
	}
	return r.s.Check()
}

func playReal(t testing.TB, steps []worktest.Step) (r *real, err error) {
	dir, err := os.MkdirTemp("", "cairn-work")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	r = newReal(t, dir)
	if err := r.start(); err != nil {
		return r, err
	}
	defer func() {
		if e := r.end(); e != nil && err == nil {
			err = e
		}
	}()
	for i, s := range steps {
		if err := r.step(s); err != nil {
			return r, fmt.Errorf("step %d, %s: %w", i+1, s, err)
		}
	}
	return r, r.finish()
}

// The same histories that the machine goes through by itself, on the real
// server and the real store.
func TestHistories(t *testing.T) {
	want := 20_000
	if testing.Short() {
		want = 1000
	}
	if os.Getenv("CAIRN_SOAK") == "1" {
		want *= 8
	}
	const length = 50
	crashes, refused, ended := 0, 0, 0
	for seed, steps := uint64(1), 0; steps < want; seed, steps = seed+1, steps+length {
		h := worktest.History(seed, length)
		r, err := playReal(t, h)
		if err != nil {
			h = worktest.Shrink(h, func(s []worktest.Step) bool { _, err := playReal(t, s); return err != nil })
			_, again := playReal(t, h)
			t.Fatalf("seed %d: %v; the shortest history:\n%s%v", seed, err, worktest.Print(h), again)
		}
		crashes, refused, ended = crashes+r.seen.crashes, refused+r.seen.refused, ended+r.seen.ended
	}
	t.Logf("%d steps: %d crashes, %d outcomes refused, %d runs ended", want, crashes, refused, ended)
	if few := want / 200; crashes < few || refused < few || ended < few {
		t.Error("too little happened")
	}
}
