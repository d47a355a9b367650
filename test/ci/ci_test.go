package main

import (
	"io"
	"strings"
	"testing"
)

// ev is one event as go test writes it.
func ev(action, pkg, test, output string) string {
	s := `{"Action":"` + action + `","Package":"` + pkg + `"`
	if test != "" {
		s += `,"Test":"` + test + `"`
	}
	if output != "" {
		s += `,"Output":"` + output + `\n"`
	}
	return s + "}\n"
}

func TestReport(t *testing.T) {
	for _, c := range []struct {
		name   string
		events []string
		want   counts
		prints string
		hides  string
	}{
		{"one passes", []string{ev("run", "p", "A", ""), ev("output", "p", "A", "chatter"), ev("pass", "p", "A", ""), ev("pass", "p", "", "")}, counts{passed: 1}, "ok   p", "chatter"},
		{"only leaves count", []string{ev("run", "p", "A", ""), ev("run", "p", "A/x", ""), ev("run", "p", "A/y", ""), ev("pass", "p", "A/x", ""), ev("skip", "p", "A/y", ""), ev("pass", "p", "A", "")}, counts{passed: 1, skipped: 1}, "", ""},
		{"a failure is counted once", []string{ev("run", "p", "A", ""), ev("run", "p", "A/x", ""), ev("output", "p", "A/x", "the reason"), ev("fail", "p", "A/x", ""), ev("fail", "p", "A", ""), ev("fail", "p", "", "")}, counts{failed: 1}, "the reason", ""},
		{"a parent that fails by itself", []string{ev("run", "p", "A", ""), ev("run", "p", "A/x", ""), ev("pass", "p", "A/x", ""), ev("fail", "p", "A", "")}, counts{passed: 1, failed: 1}, "", ""},
		{"a panic", []string{ev("run", "p", "A", ""), ev("output", "p", "A", "panic: oh"), ev("fail", "p", "", "")}, counts{failed: 1}, "panic: oh", ""},
		{"a package that does not build", []string{ev("output", "p", "", "undefined: x"), ev("fail", "p", "", "")}, counts{failed: 1}, "undefined: x", ""},
		{"same name in two packages", []string{ev("run", "p", "A", ""), ev("pass", "p", "A", ""), ev("run", "q", "A", ""), ev("pass", "q", "A", "")}, counts{passed: 2}, "", ""},
		{"a skip says why", []string{ev("run", "p", "A", ""), ev("output", "p", "A", "missing: gcc"), ev("skip", "p", "A", "")}, counts{skipped: 1}, "missing: gcc", ""},
		{"lines that are no events", []string{"# compiler\n"}, counts{}, "# compiler", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			r := newReport(&out)
			if err := r.read(strings.NewReader(strings.Join(c.events, ""))); err != nil {
				t.Fatal(err)
			}
			if got := r.counts(); got != c.want {
				t.Errorf("counts: %s, want %s", got, c.want)
			}
			if !strings.Contains(out.String(), c.prints) {
				t.Errorf("printed %q, want %q in it", out.String(), c.prints)
			}
			if c.hides != "" && strings.Contains(out.String(), c.hides) {
				t.Errorf("printed %q, of a test that passed", c.hides)
			}
		})
	}
}

func TestStep(t *testing.T) {
	for _, c := range []struct {
		script string
		want   counts
	}{
		{"true", counts{passed: 1}},
		{"echo fine; exit 3", counts{failed: 1}},
		{"echo; echo NOT RUN: no database", counts{skipped: 1}},
		{"echo NOT RUN: no database; exit 1", counts{failed: 1}},
	} {
		if got, err := step([]string{"sh", "-c", c.script}, io.Discard); err != nil || got != c.want {
			t.Errorf("%s: %s, %v; want %s", c.script, got, err, c.want)
		}
	}
}
