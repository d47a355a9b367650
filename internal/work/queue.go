package work

import (
	"cmp"
	"slices"
)

// queue is the runs that have tasks to grant, and whose turn it is: the highest
// priority first, within it one namespace after the other, within it one run
// after the other.
type queue struct{ levels []*level }

type level struct {
	priority int
	spaces   []*space
	at       int
}

// space is the runs of one namespace.
type space struct {
	name  string
	level *level
	runs  []*run
	at    int
}

// update puts a run where it belongs.
func (q *queue) update(r *run) {
	if !r.finished && r.m.Ready() {
		if r.queued == nil {
			q.add(r)
		}
	} else if r.queued != nil {
		q.remove(r)
	}
}

func (q *queue) add(r *run) {
	p := r.graph.Priority
	i, ok := slices.BinarySearchFunc(q.levels, p, func(l *level, p int) int { return cmp.Compare(p, l.priority) })
	if !ok {
		q.levels = slices.Insert(q.levels, i, &level{priority: p})
	}
	l := q.levels[i]
	k := slices.IndexFunc(l.spaces, func(x *space) bool { return x.name == r.namespace })
	if k < 0 {
		k = len(l.spaces)
		l.spaces = append(l.spaces, &space{name: r.namespace, level: l})
	}
	x := l.spaces[k]
	// Behind the one whose turn it is, that is: last.
	x.runs = slices.Insert(x.runs, x.at, r)
	x.at = (x.at + 1) % len(x.runs)
	r.queued = x
}

func (q *queue) remove(r *run) {
	x := r.queued
	if x == nil {
		return
	}
	r.queued = nil
	i := slices.Index(x.runs, r)
	x.runs = slices.Delete(x.runs, i, i+1)
	if i < x.at {
		x.at--
	}
	if len(x.runs) > 0 {
		x.at %= len(x.runs)
		return
	}
	l := x.level
	i = slices.Index(l.spaces, x)
	l.spaces = slices.Delete(l.spaces, i, i+1)
	if i < l.at {
		l.at--
	}
	if len(l.spaces) > 0 {
		l.at %= len(l.spaces)
		return
	}
	q.levels = slices.DeleteFunc(q.levels, func(y *level) bool { return y == l })
}

// next is the run whose turn it is, among those that may have more; nil if
// there is none. The turn passes on.
func (q *queue) next(may func(*run) bool) *run {
	for _, l := range q.levels {
		for range l.spaces {
			x := l.spaces[l.at]
			l.at = (l.at + 1) % len(l.spaces)
			for range x.runs {
				r := x.runs[x.at]
				x.at = (x.at + 1) % len(x.runs)
				if may(r) {
					return r
				}
			}
		}
	}
	return nil
}

func (q *queue) empty() bool { return len(q.levels) == 0 }
