package logs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work/doorway"
)

const (
	// maxBody bounds one request; a worker sends less.
	maxBody = 16 << 20
	// maxIntake is how much output all requests together hold beyond one
	// frame each, before it is kept.
	maxIntake = 16 << 20
	// chunkBytes is about how much of a request is kept with one sync.
	chunkBytes = 256 << 10
	// frameCost is about what a frame costs in memory beside its bytes.
	frameCost = 256
)

// Handler is where workers bring what tasks print: [task.PathLogs]. Frames of
// leases that are not held, as holds says, are refused. What a request brings
// is kept as it comes, without being held in memory as a whole. A nil guard lets
// everybody in.
func (s *Store) Handler(holds func(task.Ref) bool, guard doorway.Guard) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+task.PathLogs, func(w http.ResponseWriter, r *http.Request) {
		if !guard.Lets(w, r) {
			return
		}
		logged, err := s.take(r, http.MaxBytesReader(w, r.Body, maxBody), holds)
		if err != nil {
			status := http.StatusInternalServerError
			switch e := (*http.MaxBytesError)(nil); {
			case errors.As(err, &e):
				status = http.StatusRequestEntityTooLarge
			case errors.Is(err, ErrInvalid), errors.Is(err, task.ErrFrame):
				status = http.StatusBadRequest
			case errors.Is(err, ErrFull):
				status = http.StatusInsufficientStorage
			case errors.Is(err, ErrClosed), r.Context().Err() != nil:
				status = http.StatusServiceUnavailable
			}
			doorway.Refuse(w, status, err)
			return
		}
		doorway.Answer(w, logged) // who does not hear it sends the same again
	})
	return mux
}

// take keeps the frames of a body.
func (s *Store) take(r *http.Request, body io.Reader, holds func(task.Ref) bool) (task.Logged, error) {
	in := bufio.NewReaderSize(body, 16<<10)
	var chunk []task.Frame
	var full, refused refs
	size, spent := 0, 0
	defer func() { s.intake.put(spent) }()
	flush := func() error {
		logged, err := s.Append(r.Context(), chunk)
		for _, f := range logged.Full {
			full.add(f)
		}
		s.intake.put(spent)
		chunk, size, spent = chunk[:0], 0, 0
		return err
	}
	var last task.Ref
	held := false
	for {
		f, err := task.ReadFrame(in)
		if err == io.EOF {
			err = flush()
			return task.Logged{Refused: refused.list, Full: full.list}, err
		}
		if err != nil {
			return task.Logged{}, fmt.Errorf("read frames: %w", err)
		}
		if f.Ref != last || size == 0 {
			last, held = f.Ref, holds(f.Ref)
		}
		if !held {
			refused.add(f.Ref)
			continue
		}
		chunk = append(chunk, f)
		cost := frameCost + len(f.Bytes)
		size += cost
		if size >= chunkBytes || !s.intake.get(cost) {
			if err := flush(); err != nil {
				return task.Logged{}, err
			}
			continue
		}
		spent += cost
	}
}

// refs is a set, in the order in which it came.
type refs struct {
	list []task.Ref
	seen map[task.Ref]bool
}

func (r *refs) add(ref task.Ref) {
	if r.seen[ref] {
		return
	}
	if r.seen == nil {
		r.seen = map[task.Ref]bool{}
	}
	r.seen[ref] = true
	r.list = append(r.list, ref)
}

// budget is bytes that requests share.
type budget struct {
	mu   sync.Mutex
	left int
}

// get reports whether n bytes could be had.
func (b *budget) get(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left < n {
		return false
	}
	b.left -= n
	return true
}

func (b *budget) put(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left += n
}
