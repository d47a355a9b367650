package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// report is what a run found.
type report struct {
	facts   *facts
	results []result
}

// result of one measurement.
type result struct {
	name     string // for the summary
	title    string
	rows     []row
	verdicts []verdict
}

type row struct {
	name  string
	value float64
	unit  string
	note  string
}

// verdict holds a result to a target.
type verdict struct {
	target string
	got    string
	met    bool
}

func (v verdict) word() string {
	if v.met {
		return "met"
	}
	return "MISSED"
}

// facts about the machine and the moment.
type facts struct {
	start    time.Time
	took     time.Duration
	cpu      string
	cores    int
	memory   string
	kernel   string
	disk     string
	commit   string
	load     [2]string
	versions []string
	options  options
}

func machine(ctx context.Context, o options) *facts {
	f := &facts{start: time.Now().UTC(), cores: runtime.NumCPU(), options: o, cpu: "unknown", commit: "unknown"}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				f.cpu = strings.TrimSpace(value)
				break
			}
		}
	}
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		var kb int64
		if _, err := fmt.Sscanf(string(b), "MemTotal: %d kB", &kb); err == nil {
			f.memory = fmt.Sprintf("%.1f GiB", float64(kb)/(1<<20))
		}
	}
	f.kernel = output(ctx, "uname", "-sr")
	f.disk = output(ctx, "stat", "-f", "-c", "%T", o.dir)
	f.commit = output(ctx, "git", "describe", "--always", "--dirty", "--abbrev=12")
	f.load[0] = loadAverage()
	return f
}

func (f *facts) finish() {
	f.took = time.Since(f.start)
	f.load[1] = loadAverage()
}

func output(ctx context.Context, name string, args ...string) string {
	b, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(b), " ")
	return one
}

// number prints three digits that mean something.
func number(v float64) string {
	switch {
	case v >= 1000:
		s := fmt.Sprintf("%.0f", v)
		for i := len(s) - 3; i > 0; i -= 3 {
			s = s[:i] + "," + s[i:]
		}
		return s
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v > 0 && v < 0.1:
		return fmt.Sprintf("%.4f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// table is a result for a terminal.
func (r result) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s\n", r.title)
	for _, x := range r.rows {
		fmt.Fprintf(&b, "  %-24s %12s%-6s %s\n", x.name, number(x.value), x.unit, x.note)
	}
	for _, v := range r.verdicts {
		fmt.Fprintf(&b, "  %-6s %s: %s\n", v.word(), v.target, v.got)
	}
	return b.String()
}

// table is the verdicts of all results for a terminal.
func (r *report) table() string {
	var b strings.Builder
	for _, res := range r.results {
		for _, v := range res.verdicts {
			fmt.Fprintf(&b, "%-6s  %s: %s (%s)\n", v.word(), res.name, v.got, v.target)
		}
	}
	return b.String()
}

// markdown is the report that is checked in.
func (r *report) markdown() string {
	var b strings.Builder
	f := r.facts
	fmt.Fprintf(&b, "# The registry against its peers\n\n    make bench-registry        # prints this and writes it here\n\n")
	fmt.Fprintf(&b, "Written on %s at commit %s, in %s, by %d rounds of %s for each contender. One machine holds clients and servers: %s, %d cores, %s of memory, %s, data on %s. Load average %s before and %s after.\n\n",
		f.start.Format("2006-01-02"), f.commit, f.took.Round(time.Second), f.options.rounds, f.options.measure, f.cpu, f.cores, f.memory, f.kernel, f.disk, f.load[0], f.load[1])
	if len(f.versions) > 0 {
		fmt.Fprintf(&b, "Peers: %s; %s.\n\n", strings.Join(f.versions, "; "), nginxVersion())
	}
	fmt.Fprintf(&b, "Contenders of a measurement take turns within each round. A value is the median of the rounds, with the lowest and the highest beside it; a ratio is the median of the ratios of each round.\n\n")
	fmt.Fprintf(&b, "| | target | reached | |\n|---|---|---|---|\n")
	for _, res := range r.results {
		for _, v := range res.verdicts {
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", res.name, v.target, v.got, v.word())
		}
	}
	for _, res := range r.results {
		fmt.Fprintf(&b, "\n## %s\n\n| | | |\n|---|---:|---|\n", res.title)
		for _, x := range res.rows {
			fmt.Fprintf(&b, "| %s | %s%s | %s |\n", x.name, number(x.value), x.unit, x.note)
		}
	}
	return b.String()
}

func nginxVersion() string {
	b, err := exec.Command("nginx", "-v").CombinedOutput()
	if err != nil {
		return "nginx"
	}
	return strings.TrimPrefix(strings.TrimSpace(string(b)), "nginx version: ")
}
