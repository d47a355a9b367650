//go:build linux

package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// What was asked for.
const (
	wantRatio = 0.8 // of xargs
	wantP50   = 5   // milliseconds on top of the program as it is
	wantP99   = 12
)

// a task that is run one by one.
type kind struct {
	does    string
	command []string
	wanted  bool // the limits are for it
}

func kinds() []kind {
	sh := func(script string) []string { return []string{"sh", "-c", script} }
	return []kind{
		{"nothing", []string{"true"}, true},
		{"writes to its TMPDIR", sh("echo x > ${TMPDIR:-/tmp}/cairn-bench"), false},
		{"writes to /usr and /dev/shm as well", sh("echo x > ${TMPDIR:-/tmp}/cairn-bench; touch -c /usr; echo x > /dev/shm/cairn-bench"), false},
		{"writes to the root", sh("echo x > /opt/cairn-bench"), false},
	}
}

// measure runs everything and is the report.
func measure(c config) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, `# Programs by a worker, measured

    make bench-process

On %d processors (%s/%s). The server is in memory and costs next to nothing. Programs are `+"`true`"+`, as short as there are: what is measured is the worker.

`, runtime.NumCPU(), runtime.GOOS, runtime.GOARCH)
	if err := rates(&b, c); err != nil {
		return "", err
	}
	if err := latencies(&b, c); err != nil {
		return "", err
	}
	return b.String(), nil
}

func rates(b *strings.Builder, c config) error {
	slots := runtime.NumCPU()
	ways := []struct {
		name    string
		n       int
		measure func() (float64, error)

		rates, costs []float64 // programs a second, milliseconds of a processor for each
	}{
		{name: "`xargs -P`", n: c.tasks, measure: func() (float64, error) { return xargs(c.tasks, slots) }},
		{name: "GNU parallel", n: c.tasks / 8, measure: func() (float64, error) { return parallel(c.tasks/8, slots) }},
		{name: "worker, no isolation", n: c.tasks, measure: func() (float64, error) { return rate(c.memory, c.tasks, slots, "shared") }},
		{name: "worker, overlay", n: c.tasks, measure: func() (float64, error) { return rate(c.memory, c.tasks, slots, "overlay") }},
		{name: "worker, overlay, roots on a disk", n: c.tasks / 2, measure: func() (float64, error) { return rate(c.disk, c.tasks/2, slots, "overlay") }},
	}
	for range c.rounds { // side by side, so that what else runs here hits all
		for i := range ways {
			before := spent()
			r, err := ways[i].measure()
			if err != nil {
				return err
			}
			ways[i].rates = append(ways[i].rates, r)
			ways[i].costs = append(ways[i].costs, (spent()-before)/float64(ways[i].n))
		}
	}
	fmt.Fprintf(b, "| %d at a time | programs/s | of xargs | wanted | processor for each |\n|---|---|---|---|---|\n", slots)
	peer := median(ways[0].rates)
	for i, w := range ways {
		ratio, wanted := median(w.rates)/peer, ""
		if i == 2 {
			wanted = fmt.Sprintf("≥ %.2f: %s", wantRatio, verdict(ratio >= wantRatio))
		}
		fmt.Fprintf(b, "| %s | %.0f | %.2f | %s | %.2f ms |\n", w.name, median(w.rates), ratio, wanted, median(w.costs))
	}
	fmt.Fprintf(b, "\nThe median of %d rounds of %d programs (GNU parallel an eighth, on a disk half of them), in turn.\n", c.rounds, c.tasks)
	return nil
}

func latencies(b *strings.Builder, c config) error {
	fmt.Fprintf(b, "\n## One after the other: milliseconds on top of the program as it is\n\n| a task that | isolation | p50 | wanted | p99 | wanted |\n|---|---|---|---|---|---|\n")
	for _, k := range kinds() {
		plain, err := alone(c.single, k.command)
		if err != nil {
			return err
		}
		_ = os.Remove("/dev/shm/cairn-bench")
		for _, w := range []struct{ name, level, dir string }{{"none", "shared", c.memory}, {"overlay", "overlay", c.memory}, {"overlay, roots on a disk", "overlay", c.disk}} {
			times, err := one(w.dir, c.single, w.level, k.command)
			if err != nil {
				return err
			}
			p50, p99 := at(times, 50)-at(plain, 50), at(times, 99)-at(plain, 99)
			want50, want99 := "", ""
			if k.wanted && w.level == "overlay" {
				want50, want99 = fmt.Sprintf("≤ %d: %s", wantP50, verdict(p50 <= wantP50)), fmt.Sprintf("≤ %d: %s", wantP99, verdict(p99 <= wantP99))
			}
			fmt.Fprintf(b, "| %s | %s | %.1f | %s | %.1f | %s |\n", k.does, w.name, p50, want50, p99, want99)
		}
	}
	_, _ = os.Remove("/dev/shm/cairn-bench"), os.Remove("/opt/cairn-bench")
	fmt.Fprintf(b, "\nOf %d each. A task that touches nothing leaves its root as it was; else what it wrote to is emptied or replaced before the next one, and after a write to the root itself all of it.\n", c.single)
	return nil
}

// spent is how long processors have worked for this process, and for those
// below it that are over, in milliseconds.
func spent() float64 {
	var all float64
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if unix.Getrusage(who, &u) == nil {
			all += float64(u.Utime.Nano()+u.Stime.Nano()) / 1e6
		}
	}
	return all
}

func verdict(met bool) string {
	if met {
		return "met"
	}
	return "**missed**"
}

func median(v []float64) float64 { return at(v, 50) }

func at(v []float64, percent int) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[min(len(v)*percent/100, len(v)-1)]
}
