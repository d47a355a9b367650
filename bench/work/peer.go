package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// riverVersion is what river/go.mod requires.
const riverVersion = "0.51.1"

// peer measures another queue, in the same minutes: River, on SQLite as well.
// It is a module of its own, which is built first.
func peer(ctx context.Context, b io.Writer, jobs int) error {
	dir, err := os.MkdirTemp("", "bench-work-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "river")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, ".")
	build.Dir = "bench/work/river"
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build it: %w\n%s", err, out)
	}
	const workers = 64
	run := exec.CommandContext(ctx, program, "-jobs", strconv.Itoa(jobs), "-workers", strconv.Itoa(workers))
	run.Stderr = os.Stderr
	out, err := run.Output()
	if err != nil {
		return err
	}
	rate, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	if err != nil {
		return fmt.Errorf("it printed %q", out)
	}
	fmt.Fprintf(b, "| beside it: River %s on SQLite, whose jobs are functions of its own process | %d | %d | %.0f | | | | |\n", riverVersion, workers, jobs, rate)
	fmt.Fprintf(os.Stderr, "river: %.0f tasks/s\n", rate)
	return nil
}
