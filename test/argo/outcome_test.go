package argo

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// outcome is a line of testdata/published.txt.
type outcome struct {
	phases  []string // those that it may end in; "refused" or "not run" alone
	args    map[string]string
	answers map[string]string // for whoever is waited for; nil: nobody is
	after   time.Duration     // it is canceled; 0: it is not
	says    string            // a part of its message
}

// readOutcomes reads the table.
func readOutcomes(t *testing.T) map[string]outcome {
	t.Helper()
	f, err := os.Open("testdata/published.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := map[string]outcome{}
	for s := bufio.NewScanner(f); s.Scan(); {
		if line := s.Text(); line != "" && !strings.HasPrefix(line, "#") {
			name, rest, _ := strings.Cut(line, ": ")
			o, err := parseOutcome(rest)
			if _, twice := all[name]; err != nil || twice {
				t.Fatalf("%s: %v, or it is there twice", line, err)
			}
			all[name] = o
		}
	}
	return all
}

func parseOutcome(s string) (o outcome, err error) {
	parts := strings.Split(s, "; ")
	o.phases = strings.Split(parts[0], " or ")
	for _, p := range o.phases {
		if !slices.Contains([]string{"succeeded", "failed", "error", "canceled", "refused", "not run"}, p) {
			return o, fmt.Errorf("%q is no outcome", p)
		}
	}
	for _, p := range parts[1:] {
		word, rest, _ := strings.Cut(p, " ")
		switch word {
		case "with":
			o.args = pairs(rest)
		case "answer":
			o.answers = pairs(rest)
		case "says":
			o.says = rest
		case "after":
			if o.after, err = time.ParseDuration(rest); err != nil {
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
