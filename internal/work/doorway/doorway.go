// Package doorway is what the doors have in common by which workers come in:
// those of asks and beats, of logs, of files, and of requests.
//
// It owns how a guard is asked, and what an answer and a refusal look like on
// the wire (JSON, and problem details after RFC 9457). It promises nothing about
// what is behind a door, and knows none.
package doorway

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
)

// A Guard says whether a request may come in; its error is told to the client.
// Wrong is the status of the answer, 401 or 403. A nil guard lets everybody in.
type Guard func(*http.Request) (wrong int, err error)

// Lets reports whether a request may come in, and refuses it if not.
func (g Guard) Lets(w http.ResponseWriter, r *http.Request) bool {
	if g == nil {
		return true
	}
	wrong, err := g(r)
	if err != nil {
		Refuse(w, wrong, err)
	}
	return err == nil
}

// Refuse answers with what is wrong.
func Refuse(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"title": http.StatusText(status), "status": status, "detail": strings.ToValidUTF8(err.Error(), "?")})
}

// Answer answers with a value. Whether that arrives is not told: a worker that
// does not hear an answer asks again.
func Answer(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		Refuse(w, http.StatusInternalServerError, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b)
}
