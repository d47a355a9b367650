package doorway

import (
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestGuard(t *testing.T) {
	for _, c := range []struct {
		name  string
		guard Guard
		want  int // the status; 0: it is let in
	}{
		{"nobody stands there", nil, 0},
		{"it is let in", func(*http.Request) (int, error) { return 0, nil }, 0},
		{"it says not who it is", func(*http.Request) (int, error) { return http.StatusUnauthorized, errors.New("who? \xff") }, http.StatusUnauthorized},
	} {
		w := httptest.NewRecorder()
		if in := c.guard.Lets(w, httptest.NewRequest("POST", "/", nil)); in != (c.want == 0) {
			t.Errorf("%s: let in: %v", c.name, in)
		}
		if c.want == 0 {
			if w.Body.Len() > 0 {
				t.Errorf("%s: it was answered %s", c.name, w.Body)
			}
			continue
		}
		var said struct {
			Title, Detail string
			Status        int
		}
		if err := json.Unmarshal(w.Body.Bytes(), &said); err != nil || w.Code != c.want || said.Status != c.want || said.Detail != "who? ?" || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s %v", c.name, w.Code, w.Body, err)
		}
	}
}

func TestAnswer(t *testing.T) {
	w := httptest.NewRecorder()
	Answer(w, map[string]int{"a": 1})
	if w.Code != 200 || w.Body.String() != `{"a":1}` || w.Header().Get("Content-Length") != "7" {
		t.Errorf("%d %q %v", w.Code, w.Body, w.Header())
	}
	w = httptest.NewRecorder()
	if Answer(w, math.NaN()); w.Code != 500 {
		t.Errorf("what is no JSON is answered with %d", w.Code)
	}
}
