package machine

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"cairn.dev/cairn/internal/work/worktest"
)

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
