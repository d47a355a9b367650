package machine

import (
	"container/heap"
	"time"
)

// The things that time brings.
const (
	timerRun     byte = iota // the run's deadline
	timerRetry               // an item may be granted again
	timerAttempt             // an attempt has had its time
	timerNode                // a node has had its time
	timerResume              // a suspended node goes on by itself
	timerRestart             // a DAG is tried again
)

// timer is something that is due. It may be outdated when its time comes:
// whoever it is for looks whether it still means anything.
type timer struct {
	at                  int64
	what                byte
	node, item, attempt uint32
}

// timers is a heap. Of those due at one time the order is that of their
// fields, so that it is the same after a restart.
type timers []timer

func (t timers) Len() int { return len(t) }
func (t timers) Less(i, j int) bool {
	a, b := t[i], t[j]
	switch {
	case a.at != b.at:
		return a.at < b.at
	case a.what != b.what:
		return a.what < b.what
	case a.node != b.node:
		return a.node < b.node
	case a.item != b.item:
		return a.item < b.item
	}
	return a.attempt < b.attempt
}
func (t timers) Swap(i, j int) { t[i], t[j] = t[j], t[i] }
func (t *timers) Push(x any)   { *t = append(*t, x.(timer)) }
func (t *timers) Pop() any {
	old := *t
	x := old[len(old)-1]
	*t = old[:len(old)-1]
	return x
}

func (t *timers) add(x timer) { heap.Push(t, x) }

// Next is when the run wants a [Tick]; zero for never.
func (m *Machine) Next() time.Time {
	if len(m.timers) == 0 {
		return time.Time{}
	}
	return time.UnixMilli(m.timers[0].at).UTC()
}

func (m *Machine) tick() {
	for len(m.timers) > 0 && m.timers[0].at <= m.now {
		t := heap.Pop(&m.timers).(timer)
		if t.what == timerRun {
			m.cancel(Failed, "the run has had its time of "+m.graph.Deadline.String(), false)
			continue
		}
		n := m.nodes[t.node]
		if n == nil || n.stage == stageEnded {
			continue
		}
		switch t.what {
		case timerRetry:
			m.again(n, t)
		case timerAttempt:
			m.expire(n, t)
		case timerNode:
			if t.attempt == n.attempt && !n.stopping {
				n.expired = true
				m.stop(n, "it has had its time of "+n.tmpl.Timeout.String())
			}
		case timerResume:
			if n.kind == kindSuspend && n.stage == stageRunning {
				m.finish(n, Succeeded, "")
			}
		case timerRestart:
			if n.stage == stageResting {
				m.run(n)
			}
		}
	}
}
