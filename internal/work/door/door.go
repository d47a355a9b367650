// Package door is where workers come in: the work server over HTTP.
//
// It owns the paths of asks and beats (internal/task), and what they cost. It
// promises that a body is bounded before it is read, and that what a worker
// sends has been taken when it is answered with 200. It does not know who may
// come in: whoever mounts it says so. Logs and bytes have other doors.
package door

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/work/doorway"
)

// Server is what is behind the door; [work.Server] is one.
type Server interface {
	Work(context.Context, task.Ask) (task.Grant, error)
	Beat(context.Context, task.Beat) (task.Beaten, error)
}

// maxBody bounds what one call brings.
const maxBody = 64 << 20

// maxSpare bounds a buffer that is kept for the next request.
const maxSpare = 64 << 10

// New returns the handler of [task.PathWork] and [task.PathBeat]. A nil guard
// lets everybody in.
func New(s Server, guard doorway.Guard) http.Handler {
	e := &entrance{guard: guard, spare: sync.Pool{New: func() any { return new(bytes.Buffer) }}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+task.PathWork, func(w http.ResponseWriter, r *http.Request) { exchange(e, w, r, s.Work) })
	mux.HandleFunc("POST "+task.PathBeat, func(w http.ResponseWriter, r *http.Request) { exchange(e, w, r, s.Beat) })
	return mux
}

// entrance is what both paths have in common. Most requests are small and there
// are many: they are read into buffers that were used before.
type entrance struct {
	guard doorway.Guard
	spare sync.Pool
}

// read reads the question of a request. Nothing of q is in the buffer.
func (e *entrance) read(w http.ResponseWriter, r *http.Request, q any) error {
	b := e.spare.Get().(*bytes.Buffer)
	b.Reset()
	_, err := b.ReadFrom(http.MaxBytesReader(w, r.Body, maxBody))
	if err == nil {
		err = json.Unmarshal(b.Bytes(), q)
	}
	if b.Cap() <= maxSpare {
		e.spare.Put(b)
	}
	return err
}

// exchange reads a question and writes the answer.
func exchange[Q, A any](e *entrance, w http.ResponseWriter, r *http.Request, f func(context.Context, Q) (A, error)) {
	if !e.guard.Lets(w, r) {
		return
	}
	// An ask may wait longer than others may take for a request.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
	var q Q
	if err := e.read(w, r, &q); err != nil {
		status := http.StatusBadRequest
		if e := (*http.MaxBytesError)(nil); errors.As(err, &e) {
			status = http.StatusRequestEntityTooLarge
		}
		doorway.Refuse(w, status, fmt.Errorf("read the request: %w", err))
		return
	}
	a, err := f(r.Context(), q)
	if err != nil {
		status := http.StatusInternalServerError
		switch {
		case errors.Is(err, work.ErrInvalid):
			status = http.StatusBadRequest
		case errors.Is(err, work.ErrClosed), r.Context().Err() != nil:
			status = http.StatusServiceUnavailable
		}
		doorway.Refuse(w, status, err)
		return
	}
	doorway.Answer(w, a) // a worker that does not hear it does not beat for it either
}
