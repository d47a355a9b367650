package catalog

import (
	"context"
	"sync"

	"cairn.dev/cairn/internal/image"
)

// A Pushed says that an image, or a signature of one, was pushed under a tag.
type Pushed struct {
	Repository string // with its host, as [Normal] writes it; [Mux.Name] compares
	Tag        string // "" if only the repository is known
	Digest     image.Digest
}

// feedMax is how many pushes a [Feed] keeps that nobody took yet.
const feedMax = 10_000

// A Feed brings pushes from those who hear of them to who acts on them. It
// never makes the former wait: pushes of one tag that nobody took yet are one,
// the newest, and when there are too many it forgets which and says so. It is
// safe for concurrent use.
type Feed struct {
	mu     sync.Mutex
	wake   chan struct{} // one token while there is something to take
	order  []tagKey
	newest map[tagKey]image.Digest
	lost   bool
}

type tagKey struct{ repository, tag string }

// NewFeed returns an empty feed.
func NewFeed() *Feed {
	return &Feed{wake: make(chan struct{}, 1), newest: map[tagKey]image.Digest{}}
}

// Put adds pushes. It does not wait.
func (f *Feed) Put(pushes ...Pushed) {
	if len(pushes) == 0 {
		return
	}
	f.mu.Lock()
	for _, p := range pushes {
		k := tagKey{p.Repository, p.Tag}
		_, known := f.newest[k]
		switch {
		case f.lost:
		case !known && len(f.order) == feedMax:
			f.order, f.lost = nil, true
			clear(f.newest)
		case !known:
			f.order = append(f.order, k)
			f.newest[k] = p.Digest
		default:
			f.newest[k] = p.Digest
		}
	}
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// Take waits for pushes and takes all there are, oldest tag first. lost says
// that there were more than could be kept, so that anything may have been
// pushed. The error is that of ctx.
func (f *Feed) Take(ctx context.Context) (pushes []Pushed, lost bool, err error) {
	for {
		select {
		case <-ctx.Done():
			return nil, false, ctx.Err()
		case <-f.wake:
		}
		f.mu.Lock()
		for _, k := range f.order {
			pushes = append(pushes, Pushed{k.repository, k.tag, f.newest[k]})
		}
		lost = f.lost
		f.order, f.lost = nil, false
		clear(f.newest)
		f.mu.Unlock()
		if len(pushes) > 0 || lost {
			return pushes, lost, nil
		}
	}
}
