// Command ci runs the checks of the project and counts them.
//
// It owns what "passed" means over several kinds of checks: Go tests (each
// test or subtest that has none below it is one), and steps, which are other
// commands (each is one). It promises that a package that does not build, a
// panic, and a run in which no test ran are failures, and that a count is
// written down as soon as it is known. It does not decide what is run: the
// Makefile does.
//
//	go run ./test/ci test NAME -- ARGS    run "go test -json ARGS", print what matters, count
//	go run ./test/ci step NAME -- COMMAND run a command, count it as one
//
// Counts are appended to the file that CAIRN_RESULTS names, where it is set, as
// a line "PASSED FAILED SKIPPED NAME".
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

const usage = "usage: ci test NAME -- ARGS | ci step NAME -- COMMAND"

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "ci:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) < 4 || args[2] != "--" {
		return errors.New(usage)
	}
	name, rest, start := args[1], args[3:], time.Now()
	var c counts
	var err error
	switch args[0] {
	case "test":
		c, err = goTest(rest, out)
	case "step":
		c, err = step(rest, out)
	default:
		return errors.New(usage)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "== %s: %s (%s)\n", name, c, time.Since(start).Round(time.Second))
	if err := record(name, c); err != nil {
		return err
	}
	if c.failed > 0 {
		return fmt.Errorf("%s failed", name)
	}
	return nil
}

// record appends the counts to the file of results.
func record(name string, c counts) error {
	path := os.Getenv("CAIRN_RESULTS")
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("write down the counts: %w", err)
	}
	_, err = fmt.Fprintf(f, "%d %d %d %s\n", c.passed, c.failed, c.skipped, name)
	return errors.Join(err, f.Close())
}

// goTest runs go test and prints its events as they come.
func goTest(args []string, out io.Writer) (counts, error) {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return counts{}, err
	}
	if err := cmd.Start(); err != nil {
		return counts{}, fmt.Errorf("run go test: %w", err)
	}
	r := newReport(out)
	readErr := r.read(events)
	waitErr := cmd.Wait()
	c := r.counts()
	switch {
	case readErr != nil:
		return c, readErr
	case waitErr != nil && c.failed == 0: // did not build, or go test itself failed
		fmt.Fprintf(out, "go test: %v\n", waitErr)
		c.failed++
	case c == counts{}:
		fmt.Fprintln(out, "no test ran")
		c.failed++
	}
	return c, nil
}

// step runs a command. A line that begins with NOT RUN in the output of one
// that succeeds counts it as skipped.
func step(args []string, out io.Writer) (counts, error) {
	cmd := exec.Command(args[0], args[1:]...)
	var seen bytes.Buffer
	cmd.Stdout = io.MultiWriter(out, &seen)
	cmd.Stderr = os.Stderr
	err := cmd.Run()
	if err != nil {
		fmt.Fprintf(out, "%s: %v\n", strings.Join(args, " "), err)
		return counts{failed: 1}, nil
	}
	for line := range strings.Lines(seen.String()) {
		if strings.HasPrefix(line, "NOT RUN") {
			return counts{skipped: 1}, nil
		}
	}
	return counts{passed: 1}, nil
}
