package machine

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work/worktest"
	"cairn.dev/cairn/internal/workflow"
)

// term is how long a lease holds in the simulation.
const term = 30 * time.Second

var begin = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// world is machines, a store that forgets what was not committed, locks,
// leases, and workers.
type world struct {
	now     time.Time
	runs    []*simRun
	locks   map[string][]simHolder // granted, in memory; rebuilt from states
	wait    []simHolder
	memo    map[string]map[string]workflow.Value
	workers [worktest.Workers]*simWorker
	lives   int
	bug     mistake // that the simulation has to find
	seen    tally
}

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

func newWorld() *world {
	w := &world{now: begin, locks: map[string][]simHolder{}, memo: map[string]map[string]workflow.Value{}}
	for i := range w.workers {
		w.workers[i] = &simWorker{name: fmt.Sprintf("w%d", i)}
	}
	w.lives = worktest.Workers
	return w
}

// apply has an event happen in the turn that goes on.
func (w *world) apply(r *simRun, e Event) error {
	effects, err := r.m.Apply(w.now, e)
	if err != nil {
		return err
	}
	w.record(r, e)
	return w.effects(r, effects)
}

func (w *world) record(r *simRun, e Event) {
	if len(r.group) == 0 {
		r.group = AppendHeader(nil, w.now)
	}
	r.group = AppendEvent(r.group, e)
}

func (w *world) effects(r *simRun, effects []Effect) error {
	for _, e := range effects {
		switch e := e.(type) {
		case Lock:
			h := simHolder{r, e.Node, e.Lock, e.Namespace + "/" + e.Name, e.Size}
			w.wait = append(w.wait, h)
			if err := w.grantLocks(); err != nil {
				return err
			}
		case Unlock:
			k := e.Namespace + "/" + e.Name
			mine := func(h simHolder) bool { return h.run == r && h.node == e.Node && h.lock == e.Lock && h.key == k }
			w.locks[k] = slices.DeleteFunc(w.locks[k], mine)
			w.wait = slices.DeleteFunc(w.wait, mine)
			if err := w.grantLocks(); err != nil {
				return err
			}
		case Keep:
			r.kept[Ref{e.Node, e.Item}] = e.Outputs
		case Remember:
			w.memo[e.Cache+e.Key] = e.Outputs
		case Stop, Finished:
		default:
			r.asked = append(r.asked, e)
		}
	}
	return nil
}

func (w *world) grantLocks() error {
	for i := 0; i < len(w.wait); i++ {
		h := w.wait[i]
		if len(w.locks[h.key]) < h.size {
			w.wait = slices.Delete(w.wait, i, i+1)
			w.locks[h.key] = append(w.locks[h.key], h)
			if err := w.apply(h.run, Locked{h.node, h.lock}); err != nil {
				return err
			}
			i = -1
		}
	}
	return nil
}

// commit ends a turn: what happened is durable. Questions are answered in the
// next one.
func (w *world) commit(snapshot bool) {
	for _, r := range w.runs {
		if len(r.group) == 0 {
			continue
		}
		r.log = append(r.log, r.group)
		for _, x := range r.results {
			if x.good {
				r.accepted[x.Lease] = true
			}
		}
		if snapshot {
			r.snap, r.log = r.m.Snapshot(), nil
		}
		r.group, r.results = nil, nil
	}
}

// answers are the questions of runs, answered.
func (w *world) answers() error {
	for _, r := range w.runs {
		asked := r.asked
		r.asked = nil
		for _, e := range asked {
			var ev Event
			switch e := e.(type) {
			case List:
				items, ok := e.Value.([]any)
				if !ok {
					ev = Listed{Node: e.Node, Error: "no list"}
					break
				}
				ev = Listed{Node: e.Node, N: uint32(len(items)), Ref: "ref"} // as a long one
				if len(items)%2 == 0 {
					ev = Listed{Node: e.Node, N: uint32(len(items)), Items: items}
				}
			case Fetch:
				x := Fetched{Node: e.Node, From: e.From}
				for i := range e.Count {
					x.Items = append(x.Items, fmt.Sprint(e.From+i))
				}
				ev = x
			case Gather:
				all := []any{}
				for _, k := range slices.SortedFunc(maps.Keys(r.kept), func(a, b Ref) int { return int(a.Item) - int(b.Item) }) {
					if k.Node == e.Node {
						all = append(all, r.kept[k]["result"])
					}
				}
				ev = Gathered{Node: e.Node, Outputs: map[string]workflow.Value{"result": all}}
			case Recall:
				out, ok := w.memo[e.Cache+e.Key]
				ev = Remembered{Node: e.Node, Found: ok, Outputs: out}
			default:
				return fmt.Errorf("nobody answers %T", e)
			}
			if err := w.apply(r, ev); err != nil {
				return fmt.Errorf("answer %T: %w", e, err)
			}
		}
	}
	return nil
}

// restore is what the store brings back.
func (r *simRun) restore() (*Machine, error) {
	m := New(r.g)
	if r.snap != nil {
		var err error
		if m, err = Restore(r.g, r.snap); err != nil {
			return nil, err
		}
	}
	for _, b := range r.log {
		at, events, err := Decode(b)
		if err != nil {
			return nil, err
		}
		for _, e := range events {
			if _, err := m.Apply(at, e); err != nil {
				return nil, fmt.Errorf("play the log again: %w", err)
			}
		}
	}
	return m, nil
}

// crash is the end of the process, and its next start.
func (w *world) crash() error {
	w.seen.crashes++
	w.locks, w.wait = map[string][]simHolder{}, nil
	w.runs = slices.DeleteFunc(w.runs, func(r *simRun) bool { return r.snap == nil && len(r.log) == 0 })
	for _, r := range w.runs {
		if w.bug == logEnds && len(r.log) > 1 {
			r.log = r.log[:len(r.log)-1]
		}
		m, err := r.restore()
		if err != nil {
			return err
		}
		r.m, r.group, r.results, r.asked = m, nil, nil, nil
		clear(r.held)
		m.Leases(func(l Lease, _ string) {
			if w.bug != noLeases {
				r.held[l] = w.now.Add(term)
			}
		})
		for _, l := range m.Held() {
			if w.bug == locksFree {
				continue
			}
			k := l.Namespace + "/" + l.Name
			w.locks[k] = append(w.locks[k], simHolder{r, l.Node, l.Lock, k, l.Size})
		}
	}
	for _, r := range w.runs {
		if err := w.effects(r, r.m.Requests()); err != nil {
			return err
		}
	}
	w.commit(false)
	return nil
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

// same compares the states with those that the store would bring back.
func (w *world) same() error {
	for i, r := range w.runs {
		m, err := r.restore()
		if err != nil {
			return err
		}
		if a, b := r.m.Snapshot(), m.Snapshot(); !bytes.Equal(a, b) {
			return fmt.Errorf("run %d: the store brings back another state", i)
		}
	}
	return nil
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

// due is what time brings: ticks, and leases that run out.
func (w *world) due() error {
	for _, r := range w.runs {
		if next := r.m.Next(); !next.IsZero() && !next.After(w.now) {
			if err := w.apply(r, Tick{}); err != nil {
				return err
			}
		}
		var late []Ref
		for l, until := range r.held {
			if until.Before(w.now) {
				late = append(late, l.Ref)
				delete(r.held, l)
				w.seen.lost++
			}
		}
		if len(late) > 0 && w.bug != spendAll {
			slices.SortFunc(late, func(a, b Ref) int { return (int(a.Node)-int(b.Node))*1000 + int(a.Item) - int(b.Item) })
			if err := w.apply(r, Lost{late}); err != nil {
				return err
			}
		}
	}
	return nil
}

// ask is a worker's call: reports, and wants.
func (w *world) ask(s worktest.Step, x *simWorker, report, want int) error {
	luck := rand.New(rand.NewPCG(s.Luck, 5))
	report = min(report, len(x.held))
	var got, stay []simHeld
	told, err := w.turn(s, func() error {
		for _, h := range x.held[:report] {
			r := h.run
			if r.serves(h) && luck.IntN(100) < 80 {
				stay = append(stay, h)
				if err := w.serve(h); err != nil {
					return err
				}
				continue
			}
			_, stopped, ok := r.m.Holds(h.Node, h.Item, h.Attempt)
			res := Result{Node: h.Node, Item: h.Item, Attempt: h.Attempt, Phase: Succeeded}
			switch p := luck.IntN(100); {
			case stopped && p < 50:
				res.Phase = Canceled
			case p < 12:
				res.Phase, res.Exit = Failed, 3
			case p < 16:
				res.Phase = Errored
			case p < 20:
				res.Phase, res.Infrastructure = Errored, true
			case p < 60:
				text := "out"
				res.Outputs = map[string]task.Produced{"result": {Text: &text}}
			}
			if !ok && w.bug != lateCounts {
				w.seen.refused++
				continue
			}
			if !ok { // the mistake: what comes late counts, too
				if n := r.m.nodes[h.Node]; n != nil && n.group != nil && n.group.good.has(h.Item) {
					r.results = append(r.results, simResult{h.Lease, true})
				}
				continue
			}
			delete(r.held, h.Lease)
			r.results = append(r.results, simResult{h.Lease, res.Phase == Succeeded})
			if err := w.apply(r, &Ended{[]Result{res}}); err != nil {
				return err
			}
		}
		for _, r := range w.runs {
			if want == len(got) {
				break
			}
			e, leases := r.m.Grant(w.now, x.name, want-len(got))
			if e == nil {
				continue
			}
			w.record(r, e)
			for _, l := range leases {
				r.held[l] = w.now.Add(term)
				got = append(got, simHeld{r, l})
			}
		}
		return nil
	})
	if told {
		x.held = slices.Concat(stay, x.held[report:], got)
		return w.render(got)
	}
	return err
}

// serves says whether a task that is held is a daemon, which goes on.
func (r *simRun) serves(h simHeld) bool {
	n := r.m.nodes[h.Node]
	_, stop, ok := r.m.Holds(h.Node, h.Item, h.Attempt)
	return ok && !stop && n.tmpl.Daemon
}

// serve says that a daemon is ready, or once more that it is.
func (w *world) serve(h simHeld) error {
	e := Serving{h.Node, h.Item, h.Attempt, "10.0.0.1"}
	if w.bug != unsaid {
		return w.apply(h.run, e)
	}
	effects, err := h.run.m.Apply(w.now, e)
	if err != nil {
		return err
	}
	return w.effects(h.run, effects)
}

// render makes the tasks that were granted; some are skipped or wrong.
func (w *world) render(got []simHeld) error {
	for _, h := range got {
		item, ref := h.run.m.Item(h.Ref)
		if ref != "" {
			item = fmt.Sprint(h.Item)
		}
		_, skip, err := h.run.m.Render(h.Ref, item, false)
		if err == nil && !skip {
			continue
		}
		v := Verdict{Pick: Pick{h.Node, h.Item, 1}}
		if err != nil {
			v.Error = err.Error()
		}
		if _, err := w.turn(worktest.Step{}, func() error {
			delete(h.run.held, h.Lease)
			return w.apply(h.run, Judged{[]Verdict{v}})
		}); err != nil {
			return err
		}
	}
	return nil
}

// check is what holds at any time.
func (w *world) check() error {
	holders := map[string]int{}
	for i, r := range w.runs {
		active, serving := 0, 0
		for _, n := range r.m.nodes {
			if n.stage == stageEnded && n.dag != nil && len(n.dag.daemons()) > 0 {
				return fmt.Errorf("run %d: DAG %d has ended, and daemons of it have not", i, n.id)
			}
			if n.group != nil {
				active += len(n.group.active)
				if n.served {
					serving += len(n.group.active)
				}
				if n.each && n.call.Each.Parallelism > 0 && len(n.group.active) > n.call.Each.Parallelism {
					return fmt.Errorf("run %d: node %d has %d tasks at a time, at most %d", i, n.id, len(n.group.active), n.call.Each.Parallelism)
				}
				for item, a := range n.group.active {
					if _, ok := r.held[Lease{Ref{n.id, item}, a.attempt}]; !ok {
						return fmt.Errorf("run %d: nobody watches the lease of item %d of node %d", i, item, n.id)
					}
				}
				if g := n.group; g.done()+len(g.active)+g.again.n+g.resting != int(g.next) {
					return fmt.Errorf("run %d: items of node %d are missing: %d ended, %d held, %d again, %d resting of %d", i, n.id, g.done(), len(g.active), g.again.n, g.resting, g.next)
				}
			}
			if n.dag != nil && n.tmpl.Parallelism > 0 && n.dag.live > n.tmpl.Parallelism {
				return fmt.Errorf("run %d: DAG %d has %d at a time, at most %d", i, n.id, n.dag.live, n.tmpl.Parallelism)
			}
			for _, l := range n.locks {
				if l.held {
					if n.stage == stageEnded {
						return fmt.Errorf("run %d: node %d has ended and holds a lock", i, n.id)
					}
					k := fmt.Sprintf("%s/%s:%d", l.namespace, l.name, l.size)
					if holders[k]++; holders[k] > l.size {
						return fmt.Errorf("run %d: lock %s is held %d times", i, k, holders[k])
					}
				}
			}
		}
		if active != r.m.counts.Active || len(r.held) != active {
			return fmt.Errorf("run %d: %d tasks are held, %d are counted, %d are watched", i, active, r.m.counts.Active, len(r.held))
		}
		if serving != r.m.counts.Serving {
			return fmt.Errorf("run %d: %d daemons serve, %d are counted", i, serving, r.m.counts.Serving)
		}
		if p := r.g.Parallelism; p > 0 && active-serving > p {
			return fmt.Errorf("run %d: %d tasks at a time, at most %d", i, active, p)
		}
		c := r.m.counts
		if _, over := r.m.Ended(); c.Failed < 0 || c.Skipped < 0 || c.Canceled < 0 || c.Done() > c.Total || over && c.Done() != c.Total {
			return fmt.Errorf("run %d: %+v does not add up", i, c)
		}
	}
	return nil
}

// finish has all runs end: nothing goes wrong any more, and everybody works.
func (w *world) finish() error {
	for range 3000 {
		open := false
		for _, r := range w.runs {
			if _, over := r.m.Ended(); over {
				continue
			}
			open = true
			if r.m.paused {
				if err := w.event(worktest.Step{}, r, Continued{}); err != nil {
					return err
				}
			}
			for _, n := range r.m.sorted() {
				if n.kind == kindSuspend && n.stage == stageRunning && !n.each {
					if err := w.event(worktest.Step{}, r, Resumed{Node: n.id}); err != nil {
						return err
					}
					break
				}
			}
		}
		if !open {
			return w.over()
		}
		for _, x := range w.workers {
			if err := w.ask(worktest.Step{Luck: 1 << 60}, x, len(x.held), 8); err != nil {
				return err
			}
		}
		w.now = w.now.Add(2 * time.Second)
		if _, err := w.turn(worktest.Step{}, w.due); err != nil {
			return err
		}
		for _, x := range w.workers { // they beat
			for _, h := range x.held {
				if _, ok := h.run.held[h.Lease]; ok {
					h.run.held[h.Lease] = w.now.Add(term)
				}
			}
		}
	}
	for i, r := range w.runs {
		if _, over := r.m.Ended(); !over {
			s := fmt.Sprintf("run %d does not end; %+v", i, r.m.counts)
			for _, n := range r.m.sorted() {
				if n.stage != stageEnded {
					s += fmt.Sprintf("\n    node %d %s %s: kind %d stage %d stopping %v open %d", n.id, r.m.label(n), n.name, n.kind, n.stage, n.stopping, n.open)
				}
			}
			return errors.New(s)
		}
	}
	return nil
}

// over is what holds when all runs have ended.
func (w *world) over() error {
	for i, r := range w.runs {
		w.seen.ended++
		c := r.m.counts
		w.seen.retries += c.Retries
		w.seen.good += c.Succeeded
		if c.Active != 0 || len(r.held) != 0 || len(r.m.Held()) != 0 {
			return fmt.Errorf("run %d has ended with %d tasks, %d leases and locks %v", i, c.Active, len(r.held), r.m.Held())
		}
		good := map[Ref]int{}
		for l := range r.accepted {
			good[l.Ref]++
		}
		for ref, n := range good {
			if n != 1 {
				return fmt.Errorf("run %d: %d results of item %d of node %d counted", i, n, ref.Item, ref.Node)
			}
		}
		for _, n := range r.m.nodes {
			if n.stage != stageEnded {
				return fmt.Errorf("run %d has ended and node %d has not", i, n.id)
			}
			if n.served {
				w.seen.served++
			}
			if n.group == nil || n.served { // which has done what it was for
				continue
			}
			for _, s := range n.group.good.spans {
				for item := s.from; item < s.to; item++ {
					if good[Ref{n.id, item}] != 1 {
						return fmt.Errorf("run %d: item %d of node %d went well without a result that counted", i, item, n.id)
					}
				}
			}
		}
	}
	for k, h := range w.locks {
		if len(h) > 0 {
			return fmt.Errorf("lock %s is held when all has ended", k)
		}
	}
	if len(w.wait) > 0 {
		return errors.New("a lock is waited for when all has ended")
	}
	return nil
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
