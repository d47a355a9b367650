package jobs

import "iter"

// keep notes a pod; the lock is held.
func (c *Controller) keep(at string, p *pod) {
	c.pods[at] = p
	if c.kin[p.key] == nil {
		c.kin[p.key] = map[string]*pod{}
	}
	c.kin[p.key][at] = p
}

// lose forgets a pod and returns it, nil when it was not known; the lock is held.
func (c *Controller) lose(at string) *pod {
	p := c.pods[at]
	if p == nil {
		return nil
	}
	delete(c.pods, at)
	delete(c.kin[p.key], at)
	if len(c.kin[p.key]) == 0 {
		delete(c.kin, p.key)
	}
	return p
}

// podsOf are those of one kind. There are thousands of kinds where there are
// many small runs, and nearly everything is asked of one; the lock is held.
func (c *Controller) podsOf(k key) iter.Seq[*pod] {
	return func(yield func(*pod) bool) {
		for _, p := range c.kin[k] {
			if !yield(p) {
				return
			}
		}
	}
}

// tally counts the pods that are there or will be.
type tally struct {
	all     int
	spaces  map[string]int // pods, by namespace
	pending map[string]int // those of them that wait for a node, or to be started on one
	nodes   map[string]int // those that are on a node and not started, by node
	live    map[key]int    // that Jobs have, or will
	lost    map[key]int
	running map[key]int
}

// tally is not to be changed. It is counted once for all that is asked until
// something is heard of a Job or a pod; the lock is held.
func (c *Controller) tally() *tally {
	if c.counted == nil {
		c.counted = c.count()
	}
	return c.counted
}

// recount notes that something has changed; the lock is held.
func (c *Controller) recount() { c.counted = nil }

func (c *Controller) count() *tally {
	t := &tally{spaces: map[string]int{}, pending: map[string]int{}, nodes: map[string]int{}, live: map[key]int{}, lost: map[key]int{}, running: map[key]int{}}
	for j := range c.all() {
		if !j.finished && !j.deleting {
			n := int(j.size - j.done)
			t.live[j.key] += n
			t.all += n
			t.spaces[j.namespace] += n
		}
	}
	for _, p := range c.pods {
		switch {
		case p.over:
		case p.lost:
			t.lost[p.key]++
		case p.running:
			t.running[p.key]++
		case p.pending && !p.own: // more room would not help the others
			t.pending[p.namespace]++
			if p.node != "" {
				t.nodes[p.node]++
			}
		}
	}
	return t
}

// perNode is how many pods a node, even a small one, starts at a time before each
// of them takes longer for it: one that starts fifty at once takes twice as long
// for all.
const perNode = 2

// crowd is the part of the rate at which more pods are of use, above 0 to 1:
// nodes that have too many to start start fewer a second.
func (t *tally) crowd() float64 {
	all := 0
	for _, n := range t.nodes {
		all += n
	}
	part := float64(perNode*len(t.nodes)) / float64(max(all, 1))
	if all == 0 || part > 1 {
		return 1
	}
	return max(part*part, leastCrowded)
}

// leastCrowded keeps pods of which nobody knows why they do not start from
// keeping all others.
const leastCrowded = 0.1
