package bump

import (
	"sync"
	"time"
)

// A queue says which repositories are to be looked at, and when. A repository is
// in it once, and taken by one worker at a time.
type queue struct {
	mu   sync.Mutex
	jobs map[*repository]*job
	wake chan struct{}
}

// job is when a repository is due, on the monotonic clock.
type job struct {
	due     time.Duration
	asked   bool // to be soon, at first at the time first
	first   time.Duration
	running bool
	again   bool // it was asked for while it ran
	// soon is when that was last asked, for a job that runs.
	soon time.Duration
	done []chan error // who waits for the pass
}

func newQueue() *queue {
	return &queue{jobs: map[*repository]*job{}, wake: make(chan struct{}, 1)}
}

func (q *queue) nudge() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) job(r *repository) *job {
	j := q.jobs[r]
	if j == nil {
		j = &job{due: 1<<63 - 1}
		q.jobs[r] = j
	}
	return j
}

// plan sets when a repository is due, unless it is due earlier.
func (q *queue) plan(r *repository, due time.Duration) {
	q.mu.Lock()
	j := q.job(r)
	j.due = min(j.due, due)
	q.mu.Unlock()
	q.nudge()
}

// soon asks for a pass once nobody has asked for another for quiet, and at the
// latest after twice that: what comes together is looked at together. done, if
// given, is told how the pass that covers this ended.
func (q *queue) soon(r *repository, now, quiet time.Duration, done chan error) {
	q.mu.Lock()
	j := q.job(r)
	if done != nil {
		j.done = append(j.done, done)
	}
	if j.running {
		j.again, j.soon = true, now
	} else {
		q.hurry(j, now, quiet)
	}
	q.mu.Unlock()
	q.nudge()
}

func (q *queue) hurry(j *job, now, quiet time.Duration) {
	if !j.asked {
		j.asked, j.first = true, now
		j.due = min(j.due, now+quiet)
		return
	}
	j.due = min(now+quiet, j.first+2*quiet)
}

// take returns the repository that is due first, if one is due and idle, and
// otherwise how long there is to wait. Who waits for its pass is handed over.
func (q *queue) take(now time.Duration) (r *repository, done []chan error, wait time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	wait = time.Hour
	var best *job
	for repo, j := range q.jobs {
		if !j.running && (best == nil || j.due < best.due) {
			r, best = repo, j
		}
	}
	if best == nil {
		return nil, nil, wait
	}
	if left := best.due - now; left > 0 {
		return nil, nil, min(left, wait)
	}
	best.running, best.asked, best.due = true, false, 1<<63-1
	done, best.done = best.done, nil
	return r, done, 0
}

// release ends a pass; the next one is due then, or soon if it was asked for
// meanwhile.
func (q *queue) release(r *repository, due, now, quiet time.Duration) {
	q.mu.Lock()
	if j := q.jobs[r]; j != nil {
		j.running, j.due = false, due
		if j.again {
			j.again = false
			if len(j.done) > 0 { // somebody waits
				quiet = 0
			}
			q.hurry(j, max(j.soon, now-quiet), quiet)
		}
	}
	q.mu.Unlock()
	q.nudge()
}

// remove forgets a repository. Who waits for it is told nothing more; a pass
// that runs ends by itself.
func (q *queue) remove(r *repository) (done []chan error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if j := q.jobs[r]; j != nil {
		done = j.done
	}
	delete(q.jobs, r)
	return done
}

// due is when the repository is looked at next; ok is false when it is not known.
func (q *queue) dueAt(r *repository) (due time.Duration, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	j := q.jobs[r]
	if j == nil || j.due == 1<<63-1 {
		return 0, false
	}
	return j.due, true
}
