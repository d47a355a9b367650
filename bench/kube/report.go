package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// row is one line of the report. What nothing was wanted of has no verdict.
type row struct {
	what, measured, wanted string
	met                    bool
	how                    string
}

func (r row) String() string {
	verdict := ""
	switch {
	case r.wanted == "":
	case r.met:
		verdict = "met"
	default:
		verdict = "**missed**"
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %s |\n", r.what, r.measured, r.wanted, verdict, r.how)
}

// report is what was measured so far.
type report struct {
	rows    []row
	details []string
}

func (r *report) add(x row) {
	r.rows = append(r.rows, x)
	fmt.Fprint(os.Stderr, x)
}

// detail says of what the writes of something consist.
func (r *report) detail(what string, c cost) {
	r.details = append(r.details, fmt.Sprintf("- **%s**: %s, %s of the API server's processor time, %d writes: %s\n", what, count(c.pods(), "pod"), rounded(c.cpu), c.writes.total(), c.writes))
}

func (r *report) String() string {
	var b strings.Builder
	b.WriteString("| what | measured | wanted | | how |\n|---|---|---|---|---|\n")
	for _, x := range r.rows {
		b.WriteString(x.String())
	}
	if len(r.details) > 0 {
		b.WriteString("\n## What was written\n\n")
		for _, d := range r.details {
			b.WriteString(d)
		}
	}
	return b.String()
}

// quantile of some times, which it sorts.
func quantile(of []time.Duration, q float64) time.Duration {
	if len(of) == 0 {
		return 0
	}
	slices.Sort(of)
	return of[min(len(of)-1, int(q*float64(len(of))))]
}

// spread is how times lie, for whoever looks on.
func spread(of []time.Duration) string {
	return fmt.Sprintf("p50 %s, p90 %s, p99 %s, most %s of %d", rounded(quantile(of, 0.5)), rounded(quantile(of, 0.9)), rounded(quantile(of, 0.99)), rounded(quantile(of, 1)), len(of))
}

func rounded(d time.Duration) string {
	if d >= time.Second {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

// count is a number of things.
func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

func mib(n int64) string { return fmt.Sprintf("%.2f MiB", float64(n)/(1<<20)) }
