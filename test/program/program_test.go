package program

import (
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestLog(t *testing.T) {
	var got []string
	l := log{line: func(s string) { got = append(got, s) }}
	for _, b := range []string{"a", "b\nc\n", "\n", strings.Repeat("x", longest), "y\n", "end"} {
		if n, err := l.Write([]byte(b)); n != len(b) || err != nil {
			t.Fatalf("wrote %d of %d, %v", n, len(b), err)
		}
	}
	l.flush()
	if want := []string{"ab", "c", strings.Repeat("x", longest), "y", "end"}; !slices.Equal(got, want) {
		t.Errorf("%d lines: %.200q", len(got), got)
	}
}

func TestLife(t *testing.T) {
	shell := func(script string) *exec.Cmd { return exec.Command("sh", "-c", script) }
	var said []string
	p := Start(t, shell(`trap 'echo bye; exit 0' TERM; echo out; echo '{"msg": "cairn serves", "address": "http://127.0.0.1:1"}' >&2; while :; do sleep 0.01; done`), func(l string) { said = append(said, l) })
	if a, err := p.Address(); a != "127.0.0.1:1" || err != nil {
		t.Errorf("it serves at %q, %v", a, err)
	}
	if err := p.Until(func() error {
		if !strings.Contains(p.Output(), "out") {
			return errors.New("silent")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	if n := len(said); n != 3 || said[n-1] != "bye" {
		t.Errorf("it said %q", said)
	}
	p.Kill() // again

	p = Start(t, shell("trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done"), nil)
	if err := p.Until(func() error {
		if p.Output() != "ready" {
			return errors.New("not yet")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if err := p.Stop(); err == nil || !strings.Contains(err.Error(), "ended with 3") {
		t.Errorf("a bad end: %v", err)
	}

	p = Start(t, shell("echo wrong flag; exit 1"), nil)
	if _, err := p.Address(); err == nil || !strings.Contains(err.Error(), "did not start:\nwrong flag") {
		t.Errorf("an early end: %v", err)
	}
	if err := p.Until(func() error { return errors.New("never") }); err == nil || !strings.Contains(err.Error(), "ended before it was ready") {
		t.Errorf("an early end: %v", err)
	}
}
