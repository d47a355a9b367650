package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/internal/clock"
)

// Runs are asked for often while they are young, because most are short.
const (
	firstLook  = 5 * time.Millisecond
	longestGap = time.Second
)

// await asks until a run has ended, and tells see how it is meanwhile.
func (a *app) await(ctx context.Context, cl *client.Client, id string, see func(wire.Run)) (wire.Run, error) {
	for gap := firstLook; ; gap = min(gap*3/2, longestGap) {
		r, err := cl.Run(ctx, id)
		switch {
		case err != nil && !passing(err), err == nil && r.Done():
			return r, err
		case err == nil && see != nil:
			see(r)
		}
		if err := clock.Sleep(ctx, clock.Real(), gap); err != nil {
			return r, err
		}
	}
}

// passing reports whether an error is one that a server which is started again
// causes: runs go on afterwards.
func passing(err error) bool {
	if p, ok := errors.AsType[*wire.Problem](err); ok {
		return p.Status == http.StatusServiceUnavailable
	}
	var lost net.Error
	return errors.As(err, new(*client.Unreachable)) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &lost)
}

// watch shows the progress of a run until it has ended, and ends as it does.
func (a *app) watch(ctx context.Context, cl *client.Client, id string) error {
	fmt.Fprintf(a.stderr, "run %s\n", id)
	p := newMeter(a.stderr, a.getenv)
	idle := time.Time{} // since when nothing runs
	told := map[string]bool{}
	r, err := a.await(ctx, cl, id, func(r wire.Run) {
		p.show(r)
		switch {
		case r.Tasks.Active > 0:
			idle = time.Time{}
		case idle.IsZero():
			idle = time.Now()
		case time.Since(idle) > time.Second:
			idle = time.Now().Add(5 * time.Second) // and not every time
			a.tellWaiting(ctx, cl, r, p, told)
		}
	})
	p.end()
	if err != nil {
		return a.goesOn(ctx, id, err)
	}
	if r.Tasks.Failed > 0 || r.Phase == "failed" || r.Phase == "error" {
		if err := a.failures(ctx, cl, id); err != nil {
			return err
		}
	}
	fmt.Fprintln(a.stderr, summary(r))
	return ended(r)
}

// tellWaiting says once of each node that waits for somebody how it goes on.
func (a *app) tellWaiting(ctx context.Context, cl *client.Client, r wire.Run, p *meter, told map[string]bool) {
	var say func(parent string, depth int)
	say = func(parent string, depth int) {
		l, err := cl.Nodes(ctx, r.ID, client.NodeQuery{Parent: parent, Phases: []string{"running", "waiting"}})
		if err != nil { // it is looked again
			return
		}
		for _, n := range l.Nodes {
			if n.Kind == "suspend" && n.Waits != "" && !told[n.ID] {
				told[n.ID] = true
				p.end()
				fmt.Fprintf(a.stderr, "%s waits for somebody: `cairn runs resume %s --node %s`\n", brief(n.Name), r.ID, n.ID)
			}
			if n.Children && n.Kind != "tasks" && depth < maxDepth {
				say(n.ID, depth+1)
			}
		}
	}
	if r.Suspended && !told[""] {
		told[""] = true
		p.end()
		fmt.Fprintf(a.stderr, "the run is suspended: `cairn runs resume %s`\n", r.ID)
	}
	say("", 0)
}

// goesOn tells who stops waiting what becomes of the run.
func (a *app) goesOn(ctx context.Context, id string, err error) error {
	if ctx.Err() != nil {
		fmt.Fprintf(a.stderr, "\nthe run goes on: `cairn runs get %s` shows it, `cairn runs cancel %s` ends it\n", id, id)
		return ctx.Err()
	}
	return err
}

// ended is how a run ended, as an exit code.
func ended(r wire.Run) error {
	if r.Phase == "succeeded" {
		return nil
	}
	e := &runError{run: r.ID, phase: r.Phase, message: r.Message}
	return e
}

// runError is a run that did not end well.
type runError struct{ run, phase, message string }

func (e *runError) Error() string {
	how := map[string]string{"failed": "failed", "error": "ended with an error", "canceled": "was canceled"}[e.phase]
	if how == "" {
		how = "is " + e.phase
	}
	s := "run " + e.run + " " + how
	if e.message != "" {
		s += ": " + e.message
	}
	return s
}

// Hint says where to look.
func (e *runError) Hint() string {
	return "`cairn runs get " + e.run + "` shows what became of its tasks"
}

// programError is a single container that ended with an exit code of its own.
type programError struct {
	run     string
	code    int
	message string
}

func (e *programError) Error() string {
	s := fmt.Sprintf("run %s ended with the exit code %d", e.run, e.code)
	if e.message != "" && e.message != fmt.Sprintf("exit code %d", e.code) {
		s += ": " + e.message
	}
	return s
}

// A meter shows progress: a bar that is drawn again and again on a terminal,
// else a line now and then.
type meter struct {
	out      io.Writer
	terminal bool
	width    int
	began    time.Time
	next     time.Time
	last     string
	drawn    bool
}

const (
	redraw = 100 * time.Millisecond
	lines  = 5 * time.Second // between lines, where there is no terminal
)

func newMeter(out io.Writer, getenv func(string) string) *meter {
	m := &meter{out: out, began: time.Now(), width: 80}
	if f, ok := out.(*os.File); ok && getenv("TERM") != "dumb" {
		i, err := f.Stat()
		m.terminal = err == nil && i.Mode()&os.ModeCharDevice != 0
	}
	if n, err := strconv.Atoi(getenv("COLUMNS")); err == nil && n > 20 && n < 1000 {
		m.width = n
	}
	if !m.terminal {
		m.next = m.began.Add(lines)
	}
	return m
}

// show draws how a run is.
func (m *meter) show(r wire.Run) {
	now := time.Now()
	if now.Before(m.next) {
		return
	}
	if m.terminal {
		m.next, m.drawn = now.Add(redraw), true
		fmt.Fprint(m.out, "\r\x1b[K"+bar(r, now.Sub(m.began), m.width-1))
		return
	}
	if line := plainProgress(r, now.Sub(m.began)); line != m.last {
		m.last, m.next = line, now.Add(lines)
		fmt.Fprintln(m.out, line)
	}
}

// end leaves the terminal clean for what is said then.
func (m *meter) end() {
	if m.drawn {
		fmt.Fprint(m.out, "\r\x1b[K")
	}
}

// bar is how a run is, in one line of at most width characters.
func bar(r wire.Run, elapsed time.Duration, width int) string {
	done, total := r.Tasks.Done(), r.Tasks.Total
	text := facts(r, elapsed)
	if total == 0 {
		return cut(text, width)
	}
	share := fmt.Sprintf(" %d/%d %3d%%  ", done, total, percent(done, total))
	cells := min(width-len(share)-len([]rune(text)), 30)
	if cells < 5 {
		return cut(strings.TrimSpace(share)+"  "+text, width)
	}
	full := int(int64(cells-2) * int64(done) / int64(total))
	return "[" + strings.Repeat("#", full) + strings.Repeat("-", cells-2-full) + "]" + share + text
}

// plainProgress is the same for logs.
func plainProgress(r wire.Run, elapsed time.Duration) string {
	return fmt.Sprintf("%d of %d done, %s", r.Tasks.Done(), r.Tasks.Total, facts(r, elapsed))
}

// facts are the numbers beside a bar.
func facts(r wire.Run, elapsed time.Duration) string {
	c := r.Tasks
	out := []string{fmt.Sprintf("%d running", c.Active)}
	if c.Failed > 0 {
		out = append(out, fmt.Sprintf("%d failed", c.Failed))
	}
	if c.Canceled > 0 {
		out = append(out, fmt.Sprintf("%d canceled", c.Canceled))
	}
	if c.Retries > 0 {
		out = append(out, count(c.Retries, "retry", "retries"))
	}
	if r.Suspended {
		out = append(out, "suspended")
	}
	if left := remaining(c.Done(), c.Total, elapsed); left > 0 && !r.Suspended {
		out = append(out, "about "+roughly(left)+" to go")
	}
	return strings.Join(out, ", ")
}

// remaining is how long the rest takes if it goes on as it did; 0 when nothing
// can be said yet.
func remaining(done, total int, elapsed time.Duration) time.Duration {
	if done == 0 || done >= total || elapsed < time.Second {
		return 0
	}
	return time.Duration(float64(elapsed) * float64(total-done) / float64(done))
}

// percent is rounded down, so that 100 means all.
func percent(done, total int) int {
	if total == 0 {
		return 0
	}
	return int(int64(done) * 100 / int64(total))
}

// roughly is a length of time to two places, as people say it.
func roughly(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(time.Second).String()
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d days", int(d.Hours())/24)
}

// cut shortens a line to width characters.
func cut(s string, width int) string {
	if r := []rune(s); len(r) > width {
		return string(r[:max(width-1, 0)]) + "…"
	}
	return s
}

// summary is how a run ended, in one line.
func summary(r wire.Run) string {
	how := map[string]string{"error": "ended with an error", "canceled": "was canceled"}[r.Phase]
	if how == "" {
		how = r.Phase
	}
	c := r.Tasks
	var out []string
	for _, f := range []struct {
		n    int
		what string
	}{{c.Succeeded, "succeeded"}, {c.Failed, "failed"}, {c.Skipped, "skipped"}, {c.Canceled, "canceled"}} {
		if f.n > 0 {
			out = append(out, fmt.Sprintf("%d %s", f.n, f.what))
		}
	}
	if c.Retries > 0 {
		out = append(out, count(c.Retries, "retry", "retries"))
	}
	s := fmt.Sprintf("%s %s after %s", r.Name, how, roughly(r.Ended.Sub(r.Created)))
	if len(out) > 0 {
		s += ": " + strings.Join(out, ", ")
	}
	return s
}
