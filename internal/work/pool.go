package work

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// DefaultPool is the pool of runs and workers that name none.
const DefaultPool = "default"

// ClusterPool begins the names of pools that are clusters.
const ClusterPool = "cluster/"

// maxPool bounds the name of a pool.
const maxPool = 200

// pool is the runs whose tasks certain workers run, and those of these workers
// that wait. It is there as long as it has either.
type pool struct {
	name    string
	runs    int // that have not ended, ready or not
	queue   queue
	waiters []*waiter
}

// poolName checks the name of a pool that somebody outside wrote.
func poolName(s string) (string, error) {
	if s == "" {
		return DefaultPool, nil
	}
	if len(s) > maxPool || strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
		return "", fmt.Errorf("%w: pool %.40q: its name has at most %d characters and no spaces", ErrInvalid, s, maxPool)
	}
	return s, nil
}

// pool finds a pool, or makes it.
func (s *Server) pool(name string) *pool {
	i, ok := slices.BinarySearchFunc(s.pools, name, func(p *pool, name string) int { return cmp.Compare(p.name, name) })
	if !ok {
		s.pools = slices.Insert(s.pools, i, &pool{name: name})
	}
	return s.pools[i]
}

// unused pools are dropped at the end of a turn.
func (p *pool) unused() bool { return p.runs == 0 && len(p.waiters) == 0 }

// starving says whether somebody else than the worker waits for tasks of the
// pool, and there are none.
func (p *pool) starving(worker string) bool {
	return p.queue.empty() && slices.ContainsFunc(p.waiters, func(w *waiter) bool { return w.worker != worker })
}
