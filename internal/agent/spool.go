package agent

import (
	"container/heap"
	"sync"
	"time"

	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
)

// A spool keeps uses that happened until the server has them. The ledger keeps
// only the last time of each use, so the spool does, too: a workload that
// starts a container each second takes one place in it.
type spool struct {
	mu      sync.Mutex
	max     int
	uses    map[spoolKey]*spooled
	order   oldest
	dropped int64
}

type spoolKey struct {
	digest              image.Digest
	repository, subject string
	source              usage.Source
}

type spooled struct {
	key spoolKey
	at  time.Time
	pos int
}

func newSpool(max int) *spool {
	return &spool{max: max, uses: map[spoolKey]*spooled{}}
}

// add keeps the newest time of each use and reports whether there is anything
// to send. Where there is no room, the oldest go.
func (s *spool) add(uses ...usage.Use) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range uses {
		k := spoolKey{u.Digest, u.Repository, u.Subject, u.Source}
		if e, ok := s.uses[k]; ok {
			if u.At.After(e.at) {
				e.at = u.At
				heap.Fix(&s.order, e.pos)
			}
			continue
		}
		if u.Digest == "" {
			continue
		}
		if len(s.uses) >= s.max {
			s.dropped++
			if !u.At.After(s.order[0].at) {
				continue
			}
			delete(s.uses, heap.Pop(&s.order).(*spooled).key)
		}
		e := &spooled{key: k, at: u.At}
		s.uses[k] = e
		heap.Push(&s.order, e)
	}
	return len(s.uses) > 0
}

// take removes up to n uses, the oldest first.
func (s *spool) take(n int) []usage.Use {
	s.mu.Lock()
	defer s.mu.Unlock()
	n = min(n, len(s.order))
	out := make([]usage.Use, 0, n)
	for range n {
		e := heap.Pop(&s.order).(*spooled)
		delete(s.uses, e.key)
		out = append(out, usage.Use{Digest: e.key.digest, Repository: e.key.repository, Source: e.key.source, Subject: e.key.subject, At: e.at})
	}
	return out
}

func (s *spool) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.uses)
}

func (s *spool) lost() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dropped
}

// oldest is a heap by time.
type oldest []*spooled

func (o oldest) Len() int           { return len(o) }
func (o oldest) Less(i, j int) bool { return o[i].at.Before(o[j].at) }
func (o oldest) Swap(i, j int) {
	o[i], o[j] = o[j], o[i]
	o[i].pos, o[j].pos = i, j
}
func (o *oldest) Push(x any) {
	e := x.(*spooled)
	e.pos = len(*o)
	*o = append(*o, e)
}
func (o *oldest) Pop() any {
	old := *o
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*o = old[:len(old)-1]
	return e
}
