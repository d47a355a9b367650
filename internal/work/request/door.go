package request

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work/doorway"
)

// maxAsked bounds what a worker sends: a lease.
const maxAsked = 16 << 10

// Handler is where workers on other machines have the server make the request
// that is their task: [task.PathRequest]. Which request that is the server knows
// from the lease, by of; the worker is not asked, and learns of it no more than
// its task told it. A nil guard lets everybody in.
func (c *Client) Handler(of func(ctx context.Context, holder task.Ref) (*task.Task, error), guard doorway.Guard) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+task.PathRequest, func(w http.ResponseWriter, r *http.Request) {
		if !guard.Lets(w, r) {
			return
		}
		var holder task.Ref
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAsked)).Decode(&holder); err != nil {
			doorway.Refuse(w, http.StatusBadRequest, fmt.Errorf("read the lease: %w", err))
			return
		}
		t, err := of(r.Context(), holder)
		if err != nil {
			doorway.Refuse(w, http.StatusConflict, err)
			return
		}
		if t.HTTP == nil {
			doorway.Refuse(w, http.StatusUnprocessableEntity, fmt.Errorf("task %s of run %s is no request", holder.Task, holder.Run))
			return
		}
		// It takes as long as the task may.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
		doorway.Answer(w, c.Do(r.Context(), t.HTTP, t.Timeout))
	})
	return mux
}
