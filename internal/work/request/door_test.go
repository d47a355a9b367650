package request

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/task"
)

// The request is the one that the task of the lease names, whatever a worker
// says, and the answer is its outcome.
func TestHandler(t *testing.T) {
	asked := 0
	there := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		_, _ = io.WriteString(w, r.Method+" "+r.Header.Get("X"))
	}))
	defer there.Close()
	of := func(_ context.Context, l task.Ref) (*task.Task, error) {
		switch l.Token {
		case "held":
			return &task.Task{HTTP: &task.HTTP{Method: "POST", URL: there.URL, Headers: map[string]string{"X": "y"}}}, nil
		case "container":
			return &task.Task{Image: "alpine"}, nil
		}
		return nil, errors.New("the lease is not held")
	}
	door := New(Config{Open: true}, nil).Handler(of, func(r *http.Request) (int, error) {
		if r.Header.Get("Authorization") == "" {
			return http.StatusUnauthorized, errors.New("who?")
		}
		return 0, nil
	})
	for _, c := range []struct {
		name, body, account string
		status              int
	}{
		{"a lease that is held", `{"run":"r","task":"2","attempt":1,"token":"held","http":{"url":"http://elsewhere"}}`, "a", http.StatusOK},
		{"one that is not", `{"run":"r","task":"2","attempt":1,"token":"lost"}`, "a", http.StatusConflict},
		{"one of a container", `{"run":"r","task":"2","attempt":1,"token":"container"}`, "a", http.StatusUnprocessableEntity},
		{"nobody", `{"token":"held"}`, "", http.StatusUnauthorized},
		{"nonsense", `[`, "a", http.StatusBadRequest},
		{"too much", `{"run":"` + strings.Repeat("x", maxAsked) + `"}`, "a", http.StatusBadRequest},
	} {
		r := httptest.NewRequest("POST", task.PathRequest, strings.NewReader(c.body))
		r.Header.Set("Authorization", c.account)
		w := httptest.NewRecorder()
		door.ServeHTTP(w, r)
		if w.Code != c.status {
			t.Errorf("%s: %d %s", c.name, w.Code, w.Body)
		}
		if c.status != http.StatusOK {
			continue
		}
		var o task.Outcome
		if err := json.Unmarshal(w.Body.Bytes(), &o); err != nil || o.Phase != task.Succeeded || *o.Outputs[task.Result].Text != "POST y" {
			t.Errorf("%s: %s %v", c.name, w.Body, err)
		}
	}
	if asked != 1 {
		t.Errorf("there were %d requests, want 1", asked)
	}
}
