package machine

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work/worktest"
	"cairn.dev/cairn/internal/workflow"
)

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
