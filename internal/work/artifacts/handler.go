package artifacts

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work/doorway"
)

// maxInput bounds the JSON of an input.
const maxInput = 16 << 20

// Handler is where workers fetch and bring bytes: [task.PathBlob] and
// [task.PathArtifact]. holds says whether a lease is held; a request without
// one gets nothing. A nil guard lets everybody in.
func (s *Store) Handler(holds func(task.Ref) bool, guard doorway.Guard) http.Handler {
	h := &handler{s: s, holds: holds, guard: guard}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+task.PathBlob+"{digest}", h.with(h.blob))
	mux.HandleFunc("POST "+task.PathBlob+"{$}", h.with(h.store))
	mux.HandleFunc("POST "+task.PathArtifact, h.with(h.source))
	return mux
}

type handler struct {
	s     *Store
	holds func(task.Ref) bool
	guard doorway.Guard
}

// with answers a request of who holds a lease.
func (h *handler) with(f func(http.ResponseWriter, *http.Request, task.Ref) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !h.guard.Lets(w, r) {
			return
		}
		holder, err := task.ParseLease(r.Header.Get(task.HeaderLease))
		if err != nil {
			doorway.Refuse(w, http.StatusBadRequest, err)
			return
		}
		if !h.holds(holder) {
			doorway.Refuse(w, http.StatusConflict, fmt.Errorf("the lease of task %s of run %s is not held any more", holder.Task, holder.Run))
			return
		}
		// Large files take longer than other requests may.
		c := http.NewResponseController(w)
		_ = c.SetWriteDeadline(time.Time{})
		_ = c.SetReadDeadline(time.Time{})
		if err := f(w, r, holder); err != nil {
			doorway.Refuse(w, status(r.Context(), err), err)
		}
	}
}

// status is what a worker makes of an error: with 4xx the task is at fault,
// with 5xx it is tried again.
func status(ctx context.Context, err error) int {
	var large *http.MaxBytesError
	switch {
	case errors.Is(err, ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, ErrRefused):
		return http.StatusForbidden
	case errors.As(err, &large), errors.Is(err, ErrTooLarge):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, ErrInvalid):
		return http.StatusUnprocessableEntity
	case errors.Is(err, content.ErrNoSpace):
		return http.StatusInsufficientStorage
	case ctx.Err() != nil:
		return http.StatusServiceUnavailable
	}
	return http.StatusBadGateway
}

// blob gives a file that the run has, or a range of it.
func (h *handler) blob(w http.ResponseWriter, r *http.Request, holder task.Ref) error {
	digest := r.PathValue("digest")
	f, err := h.s.OpenOf(r.Context(), holder.Run, digest)
	if err != nil {
		return err
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("ETag", strconv.Quote(digest))
	http.ServeContent(w, r, "", time.Time{}, f)
	return nil
}

// store keeps an output.
func (h *handler) store(w http.ResponseWriter, r *http.Request, holder task.Ref) error {
	out, err := outputOf(r.Header)
	if err != nil {
		return err
	}
	if err := h.named(r.Context(), holder, out.To, destinations); err != nil {
		return err
	}
	p, err := h.s.Store(r.Context(), holder.Run, r.Body)
	if err != nil {
		return err
	}
	p.Folder = r.Header.Get(task.HeaderFolder) == "true"
	if err := h.s.Deliver(r.Context(), holder.Run, out, p); err != nil {
		return err
	}
	doorway.Answer(w, p)
	return nil
}

// named checks that a place elsewhere is one that the holder's task names. What
// a worker says is not enough: programs of its task may have got hold of the
// lease, and the server's secrets open more than one place.
func (h *handler) named(ctx context.Context, holder task.Ref, at *task.Source, of func(*task.Task) []*task.Source) error {
	if at == nil || h.s.d.Task == nil {
		return nil
	}
	t, err := h.s.d.Task(ctx, holder)
	if err != nil {
		return fmt.Errorf("look what task %s of run %s names: %w", holder.Task, holder.Run, err)
	}
	want, err := json.Marshal(at)
	if err != nil {
		return err
	}
	for _, s := range of(t) {
		if b, err := json.Marshal(s); err == nil && bytes.Equal(b, want) {
			return nil
		}
	}
	return fmt.Errorf("task %s of run %s names no such place: %w", holder.Task, holder.Run, ErrRefused)
}

func sources(t *task.Task) (out []*task.Source) {
	for _, in := range t.Inputs {
		out = append(out, in.Source)
	}
	return out
}

func destinations(t *task.Task) (out []*task.Source) {
	for _, o := range t.Outputs {
		out = append(out, o.To)
	}
	return out
}

// outputOf is the output that a request says it brings.
func outputOf(h http.Header) (out task.Output, err error) {
	text := h.Get(task.HeaderOutput)
	if text == "" {
		return out, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		return out, fmt.Errorf("header %s: %w: %w", task.HeaderOutput, ErrInvalid, err)
	}
	return out, nil
}

// source gives what an input's source has.
func (h *handler) source(w http.ResponseWriter, r *http.Request, holder task.Ref) error {
	var in task.Input
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxInput)).Decode(&in); err != nil {
		return fmt.Errorf("read the input: %w: %w", ErrInvalid, err)
	}
	if err := h.named(r.Context(), holder, in.Source, sources); err != nil {
		return err
	}
	f, err := h.s.Fetch(r.Context(), holder.Run, in)
	if err != nil {
		return err
	}
	defer f.Close()
	// The first bytes come before the answer, so that a source which fails at
	// once is told as it should be.
	head, err := begin(f, 32<<10)
	if err != nil && err != io.EOF {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set(task.HeaderFolder, strconv.FormatBool(f.Folder || in.Folder))
	if f.Size >= 0 {
		w.Header().Set("Content-Length", strconv.FormatInt(f.Size, 10))
	}
	_, wrong := w.Write(head)
	if err == nil && wrong == nil {
		_, wrong = io.Copy(w, f)
	}
	if wrong != nil {
		// What has come so far must not look whole.
		h.s.d.Log.Warn("a source was not handed over whole", "run", holder.Run, "task", holder.Task, "error", wrong)
		panic(http.ErrAbortHandler)
	}
	return nil
}

// begin reads up to n bytes. The error is io.EOF when there are no more; other
// than with io.ReadFull an end that r calls unexpected is not mistaken for one.
func begin(r io.Reader, n int) ([]byte, error) {
	b := make([]byte, n)
	for have := 0; ; {
		k, err := r.Read(b[have:])
		if have += k; err != nil || have == n {
			return b[:have], err
		}
	}
}
