package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// counts of checks.
type counts struct{ passed, failed, skipped int }

func (c counts) String() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", c.passed, c.failed, c.skipped)
}

// event is one line of "go test -json".
type event struct {
	Action  string
	Package string
	Test    string
	Elapsed float64
	Output  string
}

type key struct{ pkg, test string }

// report follows the events of one go test. Output of a test is held back
// until it is known whether it failed: what passes says nothing but its package.
type report struct {
	out     io.Writer
	held    map[key][]string
	outcome map[key]string
	parent  map[key]bool // has subtests, is not counted itself unless only it failed
	broken  int          // packages that failed without a failed test
}

func newReport(out io.Writer) *report {
	return &report{out: out, held: map[key][]string{}, outcome: map[key]string{}, parent: map[key]bool{}}
}

// read takes events until the end. Lines that are no events (from the
// compiler, say) are printed as they are.
func (r *report) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				fmt.Fprintf(r.out, "%s", line)
			} else {
				r.event(e)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the output of go test: %w", err)
		}
	}
}

func (r *report) event(e event) {
	k := key{e.Package, e.Test}
	switch e.Action {
	case "output", "build-output":
		r.held[k] = append(r.held[k], e.Output)
	case "run":
		for up := parentOf(e.Test); up != ""; up = parentOf(up) {
			r.parent[key{e.Package, up}] = true
		}
	case "build-fail":
		r.print(k)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.pkg(e)
			return
		}
		r.outcome[k] = e.Action
		switch e.Action {
		case "fail":
			r.print(k)
		case "skip":
			r.print(k) // a skip is never silent: it says what to install
		}
		delete(r.held, k)
	}
}

// pkg ends a package.
func (r *report) pkg(e event) {
	k := key{e.Package, ""}
	switch e.Action {
	case "fail":
		failed := false
		for t, o := range r.outcome {
			failed = failed || t.pkg == e.Package && o == "fail"
		}
		// A panic or a timeout ends the process before its tests do: the
		// tests without an outcome hold the stack.
		for t := range r.held {
			if t.pkg == e.Package && t.test != "" && r.outcome[t] == "" {
				r.print(t)
			}
		}
		r.print(k)
		if !failed {
			r.broken++
		}
		fmt.Fprintf(r.out, "FAIL %s (%.1fs)\n", e.Package, e.Elapsed)
	case "pass":
		fmt.Fprintf(r.out, "ok   %s (%.1fs)\n", e.Package, e.Elapsed)
	}
	for t := range r.held {
		if t.pkg == e.Package {
			delete(r.held, t)
		}
	}
}

func (r *report) print(k key) {
	for _, s := range r.held[k] {
		if strings.HasPrefix(s, "=== ") {
			continue
		}
		fmt.Fprint(r.out, s)
	}
	delete(r.held, k)
}

// counts is the result so far: leaves, and tests that failed although none of
// their subtests did.
func (r *report) counts() counts {
	c := counts{failed: r.broken}
	below := map[key]bool{} // has a failed test below it
	for k, o := range r.outcome {
		if o != "fail" {
			continue
		}
		for up := parentOf(k.test); up != ""; up = parentOf(up) {
			below[key{k.pkg, up}] = true
		}
	}
	for k, o := range r.outcome {
		switch {
		case o == "fail" && !below[k]:
			c.failed++
		case r.parent[k]:
		case o == "pass":
			c.passed++
		case o == "skip":
			c.skipped++
		}
	}
	return c
}

// parentOf is the test that a subtest belongs to, "" for a test of its own.
func parentOf(test string) string {
	i := strings.LastIndexByte(test, '/')
	if i < 0 {
		return ""
	}
	return test[:i]
}
