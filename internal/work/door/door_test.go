package door_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/work/door"
	"cairn.dev/cairn/internal/work/doorway"
)

// server answers as told.
type server struct {
	asked task.Ask
	err   error
}

func (s *server) Work(_ context.Context, a task.Ask) (task.Grant, error) {
	s.asked = a
	return task.Grant{Leases: []task.Lease{{Ref: task.Ref{Run: "r", Task: "1", Attempt: 1, Token: "t"}}}}, s.err
}

func (s *server) Beat(context.Context, task.Beat) (task.Beaten, error) { return task.Beaten{}, s.err }

func TestDoor(t *testing.T) {
	nobody := func(*http.Request) (int, error) { return http.StatusForbidden, errors.New("no") }
	for name, c := range map[string]struct {
		path, body string
		guard      doorway.Guard
		err        error
		want       int
	}{
		"ask":        {path: task.PathWork, body: `{"worker":"w","want":3}`, want: 200},
		"beat":       {path: task.PathBeat, body: `{"worker":"w"}`, want: 200},
		"no JSON":    {path: task.PathWork, body: `worker`, want: 400},
		"two":        {path: task.PathWork, body: `{"worker":"w"}{"worker":"v"}`, want: 400},
		"no sense":   {path: task.PathWork, body: `{}`, err: fmt.Errorf("%w: no name", work.ErrInvalid), want: 400},
		"at its end": {path: task.PathBeat, body: `{}`, err: work.ErrClosed, want: 503},
		"in trouble": {path: task.PathBeat, body: `{}`, err: errors.New("disk"), want: 500},
		"guarded":    {path: task.PathWork, body: `{}`, guard: nobody, want: 403},
		"elsewhere":  {path: "/api/v1/work/other", body: `{}`, want: 404},
	} {
		t.Run(name, func(t *testing.T) {
			s := &server{err: c.err}
			w := httptest.NewRecorder()
			door.New(s, c.guard).ServeHTTP(w, httptest.NewRequest(http.MethodPost, c.path, strings.NewReader(c.body)))
			if w.Code != c.want {
				t.Fatalf("%d %s, want %d", w.Code, w.Body, c.want)
			}
			if name == "ask" {
				var g task.Grant
				if err := json.Unmarshal(w.Body.Bytes(), &g); err != nil || len(g.Leases) != 1 || g.Leases[0].Token != "t" || s.asked.Want != 3 {
					t.Errorf("%+v %+v %v", g, s.asked, err)
				}
			}
		})
	}
}
