package machine

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cairn.dev/cairn/internal/work/worktest"
	"cairn.dev/cairn/internal/workflow"
)

// term is how long a lease holds in the simulation.
const term = 30 * time.Second

var begin = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// A mistake is made on purpose, to see that it is found.
type mistake int

const (
	none       mistake = iota
	lateCounts         // what comes when the lease is not held counts, too
	logEnds            // a crash takes the newest commit with it
	locksFree          // a start forgets who holds locks
	noLeases           // a start forgets who holds tasks
	spendAll           // what was lost is not given again
	unsaid             // that a daemon is ready is not in the log
	nMistakes
)

type tally struct{ steps, ended, crashes, lost, retries, good, refused, served int }

type simRun struct {
	g    *workflow.Graph
	m    *Machine
	snap []byte
	log  [][]byte // committed since the snapshot
	// Of the turn that goes on.
	group   []byte
	results []simResult

	held     map[Lease]time.Time
	kept     map[Ref]map[string]workflow.Value
	accepted map[Lease]bool // committed outcomes that went well
	asked    []Effect
}

type simResult struct {
	Lease
	good bool
}

type simHolder struct {
	run        *simRun
	node, lock uint32
	key        string
	size       int
}

type simWorker struct {
	name string
	held []simHeld
}

type simHeld struct {
	run *simRun
	Lease
}

// turn does f as the server would, with what goes wrong. told: the answer
// arrives.
func (w *world) turn(s worktest.Step, f func() error) (told bool, err error) {
	if s.Loss == worktest.Request {
		return false, nil
	}
	if err := f(); err != nil {
		return false, err
	}
	if s.Loss == worktest.CrashBefore {
		return false, w.crash()
	}
	if err := w.check(); err != nil {
		return false, err
	}
	w.commit(s.Luck%16 == 0)
	if s.Loss == worktest.CrashAfter {
		if s.Luck%2 == 0 { // what is read back is what was there
			if err := w.same(); err != nil {
				return false, err
			}
		}
		return false, w.crash()
	}
	for i := 0; i < 100; i++ {
		asked := false
		for _, r := range w.runs {
			asked = asked || len(r.asked) > 0
		}
		if !asked {
			return s.Loss != worktest.Answer, w.check()
		}
		if err := w.answers(); err != nil {
			return false, err
		}
		w.commit(false)
	}
	return false, errors.New("the questions of runs do not end")
}

// step is one step of a history.
func (w *world) step(s worktest.Step) error {
	w.seen.steps++
	if s.Kind == worktest.Submit {
		if len(w.runs) == worktest.Runs {
			return nil
		}
		r := &simRun{g: worktest.Random(uint64(s.N)), held: map[Lease]time.Time{}, kept: map[Ref]map[string]workflow.Value{}, accepted: map[Lease]bool{}}
		r.m = New(r.g)
		_, err := w.turn(s, func() error {
			w.runs = append(w.runs, r)
			return w.apply(r, Submitted{ID: fmt.Sprintf("r%d", s.N), Name: r.g.Name, Namespace: r.g.Namespace})
		})
		return err
	}
	if len(w.runs) == 0 {
		return nil
	}
	r := w.runs[s.Who%len(w.runs)]
	x := w.workers[s.Who%worktest.Workers]
	switch s.Kind {
	case worktest.Ask:
		return w.ask(s, x, s.N, s.M)
	case worktest.Back:
		n := min(s.N, len(x.held))
		told, err := w.turn(s, func() error {
			for _, h := range x.held[:n] {
				if _, _, ok := h.run.m.Holds(h.Node, h.Item, h.Attempt); ok {
					delete(h.run.held, h.Lease)
					if err := w.apply(h.run, Back{[]Ref{h.Ref}}); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if told {
			x.held = x.held[n:]
		}
		return err
	case worktest.Beat:
		told := s.Loss == worktest.Nothing
		var keep []simHeld
		for _, h := range x.held {
			if _, ok := h.run.held[h.Lease]; ok && s.Loss != worktest.Request {
				h.run.held[h.Lease] = w.now.Add(term)
			}
			_, _, ok := h.run.m.Holds(h.Node, h.Item, h.Attempt)
			if ok || !told {
				keep = append(keep, h)
			}
		}
		x.held = keep
	case worktest.Die:
		w.lives++
		w.workers[s.Who%worktest.Workers] = &simWorker{name: fmt.Sprintf("w%d", w.lives)}
	case worktest.Pass:
		w.now = w.now.Add(time.Duration(s.N) * time.Second)
		_, err := w.turn(s, w.due)
		return err
	case worktest.Cancel:
		return w.event(s, r, Cancel{By: "ann", Now: s.M%2 == 1})
	case worktest.Pause:
		return w.event(s, r, Paused{})
	case worktest.Continue:
		return w.event(s, r, Continued{})
	case worktest.Retry:
		return w.event(s, r, Retried{})
	case worktest.Resume:
		for _, n := range r.m.sorted() {
			if n.kind == kindSuspend && n.stage == stageRunning {
				return w.event(s, r, Resumed{Node: n.id, Fail: s.M == 0})
			}
		}
	}
	return nil
}

// event is one that may not fit, which is no mistake.
func (w *world) event(s worktest.Step, r *simRun, e Event) error {
	_, err := w.turn(s, func() error {
		if err := w.apply(r, e); err != nil && !errors.Is(err, ErrState) {
			return err
		}
		return nil
	})
	return err
}

// play goes through a history and has it end.
func play(steps []worktest.Step, bug mistake) (seen tally, err error) {
	w := newWorld()
	w.bug = bug
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	for i, s := range steps {
		if err := w.step(s); err != nil {
			return w.seen, fmt.Errorf("step %d, %s: %w", i+1, s, err)
		}
	}
	return w.seen, w.finish()
}

const historyLength = 40

// At least a hundred thousand schedules of crashes, losses, deaths and time end
// well.
func TestSimulation(t *testing.T) {
	want := uint64(100_000)
	if testing.Short() {
		want /= 20
	}
	if os.Getenv("CAIRN_SOAK") == "1" {
		want *= 4
	}
	var seed atomic.Uint64
	var mu sync.Mutex
	var all tally
	var failed atomic.Bool
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			var mine tally
			for n := seed.Add(1); n <= want && !failed.Load(); n = seed.Add(1) {
				steps := worktest.History(n, historyLength)
				seen, err := play(steps, none)
				mine.add(seen)
				if err == nil {
					continue
				}
				if failed.Swap(true) {
					return
				}
				steps = worktest.Shrink(steps, func(s []worktest.Step) bool { _, err := play(s, none); return err != nil })
				_, again := play(steps, none)
				t.Errorf("seed %d: %v; the shortest history:\n%s%v", n, err, worktest.Print(steps), again)
			}
			mu.Lock()
			defer mu.Unlock()
			all.add(mine)
		})
	}
	wg.Wait()
	t.Logf("%d schedules: %+v", want, all)
	if few := int(want) / 10; !t.Failed() && (all.ended < few || all.crashes < few || all.lost < few || all.retries < few || all.refused < few || all.served < few) {
		t.Errorf("too little happened: %+v", all)
	}
}

// Each mistake is found, and its shortest history is short.
func TestSimulationFindsMistakes(t *testing.T) {
	for bug := none + 1; bug < nMistakes; bug++ {
		found := false
		for seed := uint64(1); seed <= 2000 && !found; seed++ {
			steps := worktest.History(seed, historyLength)
			if _, err := play(steps, bug); err == nil {
				continue
			}
			found = true
			steps = worktest.Shrink(steps, func(s []worktest.Step) bool { _, err := play(s, bug); return err != nil })
			_, err := play(steps, bug)
			t.Logf("mistake %d, seed %d:\n%s%v", bug, seed, worktest.Print(steps), err)
			if len(steps) > 12 {
				t.Errorf("mistake %d: the shortest history has %d steps", bug, len(steps))
			}
			if _, err := play(steps, none); err != nil {
				t.Errorf("mistake %d: it fails without the mistake as well: %v", bug, err)
			}
		}
		if !found {
			t.Errorf("mistake %d is not found", bug)
		}
	}
}

func (t *tally) add(o tally) {
	t.steps += o.steps
	t.ended += o.ended
	t.crashes += o.crashes
	t.lost += o.lost
	t.retries += o.retries
	t.good += o.good
	t.refused += o.refused
	t.served += o.served
}
