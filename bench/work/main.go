// Command work measures the work server: tasks that do nothing, through the
// server and its door, by workers that do nothing, with leases and durable
// results; how large a run of a million items is; and how fast lists of runs
// are when there are a million.
//
// It owns the workers, which are as cheap as a client can be, and the report.
// The server runs in a process of its own, so that its memory is its own; all
// share the processors of this machine. It does not measure programs that
// workers start.
//
//	go run ./bench/work -o bench/work.md
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"
)

type settings struct {
	items  int
	single int
	runs   int
	only   string
}

func main() {
	var s settings
	out := flag.String("o", "", "file to write the report to")
	serve := flag.String("serve", "", "be the server, with its database in this folder (what the benchmark calls itself with)")
	profile := flag.String("profile", "", "with -serve: file for a profile of the processor")
	flag.IntVar(&s.items, "items", 1_000_000, "items of the large run")
	flag.IntVar(&s.single, "single", 100_000, "items of the runs that are worked on one by one")
	flag.IntVar(&s.runs, "runs", 1_000_000, "ended runs when lists are measured")
	flag.StringVar(&s.only, "only", "", "batch, single, many, peer or list: only that")
	flag.Parse()
	var err error
	if *serve != "" {
		err = child(*serve, *profile)
	} else {
		err = run(s, *out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/work:", err)
		os.Exit(1)
	}
}

func run(s settings, out string) error {
	ctx := context.Background()
	var b strings.Builder
	fmt.Fprintf(&b, `# The work server, measured

    make bench-work

On %d processors (%s/%s), which the server, its database (SQLite, synchronous=FULL) and all workers share. Tasks do nothing; every one is leased, answered
with its token, and durable before the answer.

| | workers | tasks | tasks/s | wanted | claim p50 | p99 | wanted |
|---|---|---|---|---|---|---|---|
`, runtime.NumCPU(), runtime.GOOS, runtime.GOARCH)
	var large *measured
	for _, c := range []struct {
		name                  string
		items, workers, batch int
		rate                  float64
		p99                   time.Duration
		title                 string
	}{
		{"batch", s.items, 64, 32, 40_000, 0, "batches of 32"},
		{"single", s.single, 64, 1, 6_000, 0, "one at a time"},
		{"many", s.single, 1000, 1, 0, 50 * time.Millisecond, "one at a time, 1,000 workers"},
	} {
		if s.only != "" && s.only != c.name {
			continue
		}
		m, err := measure(ctx, c.items, c.workers, c.batch)
		if err != nil {
			return fmt.Errorf("%s: %w", c.title, err)
		}
		if c.name == "batch" {
			large = m
		}
		rate := float64(c.items) / m.took.Seconds()
		wantRate, wantLate := "", ""
		if c.rate > 0 {
			wantRate = fmt.Sprintf("≥ %.0f: %s", c.rate, verdict(rate >= c.rate))
		}
		if c.p99 > 0 {
			wantLate = fmt.Sprintf("≤ %s: %s", c.p99, verdict(m.p99 <= c.p99))
		}
		fmt.Fprintf(&b, "| %s | %d | %d | %.0f | %s | %s | %s | %s |\n", c.title, c.workers, c.items, rate, wantRate, rounded(m.p50), rounded(m.p99), wantLate)
		fmt.Fprintf(os.Stderr, "%s: %.0f tasks/s, claim p50 %s p99 %s, RSS %d MiB, %.1f bytes/item\n", c.title, rate, m.p50, m.p99, m.memory>>20, float64(m.bytes)/float64(c.items))
	}
	if s.only == "" || s.only == "peer" {
		if err := peer(ctx, &b, s.single/5); err != nil {
			return fmt.Errorf("river: %w", err)
		}
	}
	if large != nil {
		fmt.Fprintf(&b, "\n## A run of %d items\n\n| | | wanted |\n|---|---|---|\n", s.items)
		perItem := float64(large.bytes) / float64(s.items)
		fmt.Fprintf(&b, "| memory of the server (largest resident set) | %d MiB | ≤ 256 MiB: %s |\n", large.memory>>20, verdict(large.memory <= 256<<20))
		fmt.Fprintf(&b, "| submitted: durable, and its list of items (names of files, as JSON) is read | %s | ≤ 2 s: %s |\n", rounded(large.submit), verdict(large.submit <= 2*time.Second))
		fmt.Fprintf(&b, "| the database at its largest, write-ahead log included | %.1f bytes an item | ≤ 40: %s |\n", perItem, verdict(perItem <= 40))
		fmt.Fprintf(&b, "| its page and the list of runs while it ran, slowest | %s | ≤ 100 ms: %s |\n", rounded(large.page), verdict(large.page <= 100*time.Millisecond))
	}
	if s.only == "" || s.only == "list" {
		if err := lists(ctx, &b, s.runs); err != nil {
			return fmt.Errorf("lists: %w", err)
		}
	}
	if out == "" {
		_, err := io.WriteString(os.Stdout, b.String())
		return err
	}
	return os.WriteFile(out, []byte(b.String()), 0o644)
}

// verdict says whether a number is what was wanted.
func verdict(met bool) string {
	if met {
		return "met"
	}
	return "**missed**"
}

func rounded(d time.Duration) string {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}
