package published

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// Outcome is what becomes of an example: a line of a table.
type Outcome struct {
	// Phases are those that it may end in, in the words of the API; "refused"
	// or "not run" stand alone.
	Phases  []string
	Args    map[string]string
	Answers map[string]string // for whoever is waited for; nil: nobody is
	After   time.Duration     // it is canceled; 0: it is not
	Says    string            // a part of its message
}

// Is says whether the outcome is this one and no other.
func (o Outcome) Is(phase string) bool { return len(o.Phases) == 1 && o.Phases[0] == phase }

// Table reads the outcomes of examples by their names. What is wrong with the
// table ends the test.
func Table(t testing.TB, file string) map[string]Outcome {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := map[string]Outcome{}
	s := bufio.NewScanner(f)
	for s.Scan() {
		if line := s.Text(); line != "" && !strings.HasPrefix(line, "#") {
			name, rest, _ := strings.Cut(line, ": ")
			o, err := ParseOutcome(rest)
			if _, twice := all[name]; err != nil || twice {
				t.Fatalf("%s: %v, or it is there twice", line, err)
			}
			all[name] = o
		}
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// ParseOutcome reads one: the phases, and behind semicolons what else there is
// to say.
func ParseOutcome(s string) (o Outcome, err error) {
	parts := strings.Split(s, "; ")
	o.Phases = strings.Split(parts[0], " or ")
	for _, p := range o.Phases {
		if !slices.Contains([]string{"succeeded", "failed", "error", "canceled", "refused", "not run"}, p) {
			return o, fmt.Errorf("%q is no outcome", p)
		}
	}
	for _, p := range parts[1:] {
		word, rest, _ := strings.Cut(p, " ")
		switch word {
		case "with":
			o.Args = pairs(rest)
		case "answer":
			o.Answers = pairs(rest)
		case "says":
			o.Says = rest
		case "after":
			if o.After, err = time.ParseDuration(rest); err != nil {
				return o, err
			}
		}
	}
	return o, nil
}

// pairs reads a=b c=d.
func pairs(s string) map[string]string {
	m := map[string]string{}
	for p := range strings.FieldsSeq(s) {
		k, v, _ := strings.Cut(p, "=")
		m[k] = v
	}
	return m
}
