package api

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// Work that goes on after the body was read is not ended by the deadline of
// reading it.
func TestPatienceEndsWithTheBody(t *testing.T) {
	var deadlines []time.Time
	control := http.NewResponseController(deadlineNotes{httptest.NewRecorder(), &deadlines})
	b := &patientBody{io.NopCloser(bytes.NewReader([]byte("{}"))), control}
	if _, err := io.ReadAll(b); err != nil {
		t.Fatal(err)
	}
	if n := len(deadlines); n < 2 || deadlines[0].IsZero() || !deadlines[n-1].IsZero() {
		t.Errorf("deadlines %v: want some, and none at the end", deadlines)
	}
}

type deadlineNotes struct {
	http.ResponseWriter
	notes *[]time.Time
}

func (d deadlineNotes) SetReadDeadline(t time.Time) error {
	*d.notes = append(*d.notes, t)
	return nil
}

// No route sets a deadline of its own: huma's would end every call that takes
// longer than five seconds.
func TestNoRouteHasItsOwnDeadline(t *testing.T) {
	if o := op("x", http.MethodPost, "/x", "x", "x"); o.BodyReadTimeout >= 0 {
		t.Errorf("the deadline for bodies is %v, want none", o.BodyReadTimeout)
	}
}
