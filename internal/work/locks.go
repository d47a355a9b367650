package work

import (
	"slices"

	"cairn.dev/cairn/internal/work/machine"
)

// locks are mutexes and semaphores by namespace and name. They are in no table
// of their own: who holds one says so in its state, so that a lock cannot
// outlive its holder.
type locks map[[2]string]*lockState

type lockState struct {
	holders []holder
	waiting []holder // in the order of their coming
}

// holder is a node of a run that has a lock or wants it.
type holder struct {
	run        *run
	node, lock uint32
	size       int // of the semaphore, as this one reads it
}

func (h holder) same(o holder) bool { return h.run == o.run && h.node == o.node && h.lock == o.lock }

func (l locks) of(e machine.Lock) *lockState {
	k := [2]string{e.Namespace, e.Name}
	if l[k] == nil {
		l[k] = &lockState{}
	}
	return l[k]
}

func (l locks) want(r *run, e machine.Lock) {
	x, h := l.of(e), holder{r, e.Node, e.Lock, e.Size}
	if !slices.ContainsFunc(x.waiting, h.same) && !slices.ContainsFunc(x.holders, h.same) {
		x.waiting = append(x.waiting, h)
	}
}

// held notes what a state says that was read.
func (l locks) held(r *run, e machine.Lock) {
	x := l.of(e)
	x.holders = append(x.holders, holder{r, e.Node, e.Lock, e.Size})
}

func (l locks) release(r *run, e machine.Unlock) {
	k := [2]string{e.Namespace, e.Name}
	x := l[k]
	if x == nil {
		return
	}
	h := holder{run: r, node: e.Node, lock: e.Lock}
	x.holders = slices.DeleteFunc(x.holders, h.same)
	x.waiting = slices.DeleteFunc(x.waiting, h.same)
	if len(x.holders)+len(x.waiting) == 0 {
		delete(l, k)
	}
}

// drop forgets a run. One that has ended holds nothing.
func (l locks) drop(r *run) {
	for k, x := range l {
		mine := func(h holder) bool { return h.run == r }
		x.holders = slices.DeleteFunc(x.holders, mine)
		x.waiting = slices.DeleteFunc(x.waiting, mine)
		if len(x.holders)+len(x.waiting) == 0 {
			delete(l, k)
		}
	}
}

// grantLocks gives a lock to those who wait for it, as far as there is room.
func (c *commit) grantLocks(namespace, name string) {
	x := c.s.locks[[2]string{namespace, name}]
	for x != nil && len(x.waiting) > 0 && len(x.holders) < x.waiting[0].size {
		h := x.waiting[0]
		x.waiting = x.waiting[1:]
		x.holders = append(x.holders, h)
		// It may end at once, and so come back here.
		if err := c.apply(h.run, machine.Locked{Node: h.node, Lock: h.lock}); err != nil {
			c.s.log.Error("a run did not take a lock", "run", h.run.id, "error", err)
		}
		x = c.s.locks[[2]string{namespace, name}]
	}
}
