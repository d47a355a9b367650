package db

import (
	"fmt"
	"os"
	"sync"
)

// flusher makes commits durable by [Config.Flush], on a goroutine of its own:
// while the disk works, the writer gathers the next group. A flush covers what
// was committed before it began, so an op waits for one that begins after its
// own commit.
type flusher struct {
	d     *DB
	log   *os.File      // the write-ahead log, which is one file as long as the DB is open
	ended chan struct{} // holds a token when a flush ended since the last look
	done  chan struct{}

	mu      sync.Mutex
	work    sync.Cond
	waiting []*op // committed
	running bool
	ending  bool
	failed  error // why nothing is flushed any more
}

func newFlusher(d *DB) (*flusher, error) {
	log, err := os.OpenFile(d.cfg.Path+"-wal", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open the write-ahead log: %w", err)
	}
	f := &flusher{d: d, log: log, ended: make(chan struct{}, 1), done: make(chan struct{})}
	f.work.L = &f.mu
	return f, nil
}

// add has the ops of a commit wait for the next flush.
func (f *flusher) add(ops []*op) {
	f.mu.Lock()
	f.waiting = append(f.waiting, ops...)
	f.mu.Unlock()
	f.work.Signal()
}

// busy reports whether a flush runs or is about to.
func (f *flusher) busy() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.running || len(f.waiting) > 0
}

// end waits for what was added, and ends the goroutine.
func (f *flusher) end() {
	if f == nil {
		return
	}
	f.mu.Lock()
	f.ending = true
	f.mu.Unlock()
	f.work.Signal()
	<-f.done
}

// run is the goroutine.
func (f *flusher) run() {
	defer close(f.done)
	var ops []*op
	for {
		f.mu.Lock()
		for len(f.waiting) == 0 && !f.ending {
			f.work.Wait()
		}
		if len(f.waiting) == 0 {
			f.mu.Unlock()
			return
		}
		ops, f.waiting = f.waiting, ops[:0]
		f.running = true
		f.mu.Unlock()

		err := f.flush()

		f.mu.Lock()
		f.running = false
		f.mu.Unlock()
		select {
		case f.ended <- struct{}{}:
		default:
		}
		for i, o := range ops {
			o.err = err
			close(o.done)
			ops[i] = nil
		}
	}
}

// flush is one flush, with the points at which a test ends the process.
func (f *flusher) flush() error {
	if err := f.d.broken(); err != nil {
		return err
	}
	if err := f.d.dead.Load(); err != nil {
		return *err
	}
	if err := f.d.fault(BeforeFlush); err != nil {
		return err
	}
	if err := f.d.cfg.Flush(f.log); err != nil {
		err = fmt.Errorf("%w: flush %s: %w; nothing more is written until a new start, which looks at what the disk has: see what the system's log says about the disk, then restart",
			ErrNotDurable, f.log.Name(), mapError(err))
		f.mu.Lock()
		f.failed = err
		f.mu.Unlock()
		return err
	}
	return f.d.fault(AfterFlush)
}

// broken is why nothing can be made durable any more, or nil.
func (d *DB) broken() error {
	if d.flush == nil {
		return nil
	}
	d.flush.mu.Lock()
	defer d.flush.mu.Unlock()
	return d.flush.failed
}
