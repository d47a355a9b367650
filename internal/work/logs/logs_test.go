package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/task"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestQueries(t *testing.T) {
	grep := func(expr string) Query {
		re, err := Pattern(expr)
		must(t, err)
		return Query{Grep: re}
	}
	queries := []struct {
		name string
		q    Query
		want []string
		err  error
	}{
		{"all, by time", Query{}, []string{"1.0/1:a one", "1.10/1:b one", "1.0/1!a two", "2/1:error in c", "1.0/1:a three", "1.0/2:again…", "1.10/1:", "1.10/1:b three"}, nil},
		{"a task", Query{Task: "1.0"}, []string{"1.0/1:a one", "1.0/1!a two", "1.0/1:a three", "1.0/2:again…"}, nil},
		{"a node", Query{Task: "1"}, []string{"1.0/1:a one", "1.10/1:b one", "1.0/1!a two", "1.0/1:a three", "1.0/2:again…", "1.10/1:", "1.10/1:b three"}, nil},
		{"no such task", Query{Task: "1.1"}, nil, nil},
		{"an attempt", Query{Task: "1.0", Attempt: 2}, []string{"1.0/2:again…"}, nil},
		{"a stream", Query{Stream: task.Stderr}, []string{"1.0/1!a two"}, nil},
		{"a word", grep("error"), []string{"2/1:error in c"}, nil},
		{"a pattern", grep(`^\w (one|th)`), []string{"1.0/1:a one", "1.10/1:b one", "1.0/1:a three", "1.10/1:b three"}, nil},
		{"whatever its case", grep(`(?i)ERROR`), []string{"2/1:error in c"}, nil},
		{"across lines there is nothing", grep("one\nb"), nil, nil},
		{"since", Query{Since: start.Add(4 * time.Second)}, []string{"1.0/1:a three", "1.0/2:again…", "1.10/1:", "1.10/1:b three"}, nil},
		{"the last", Query{Tail: 3}, []string{"1.0/2:again…", "1.10/1:", "1.10/1:b three"}, nil},
		{"the last of a task", Query{Task: "1.0", Tail: 1}, []string{"1.0/2:again…"}, nil},
		{"more than there is", Query{Tail: 100}, []string{"1.0/1:a one", "1.10/1:b one", "1.0/1!a two", "2/1:error in c", "1.0/1:a three", "1.0/2:again…", "1.10/1:", "1.10/1:b three"}, nil},
		{"so much", Query{Max: 13}, []string{"1.0/1:a one", "1.10/1:b one"}, ErrMore},
		{"a tail that makes no sense", Query{Tail: -1}, nil, ErrInvalid},
		{"too long a tail", Query{Tail: maxTail + 1}, nil, ErrInvalid},
	}
	check := func(r *rig, state string) {
		for _, c := range queries {
			c.q.Run = "r1"
			var got []string
			err := r.Read(t.Context(), c.q, func(l Line) error { got = append(got, show(l)); return nil })
			if !errors.Is(err, c.err) {
				t.Errorf("%s, %s: error %v, want %v", state, c.name, err, c.err)
			}
			equal(t, state+", "+c.name, got, c.want)
		}
		equal(t, "another run", r.read(Query{Run: "r2"}), []string{"1.0/1:of another run"})
		equal(t, "no such run", r.read(Query{Run: "r3"}), nil)
	}
	r := newRig(t, Config{})
	fill := func(from, to int) {
		frames := []task.Frame{
			frame("r1", "1.0", 1*time.Second, 0, "a one\n"),
			frame("r1", "1.10", 1*time.Second, 0, "b one\n"),
			{Ref: task.Ref{Run: "r1", Task: "1.0", Attempt: 1}, Stream: task.Stderr, Offset: 6, At: start.Add(2 * time.Second), Bytes: []byte("a two\n")},
			frame("r2", "1.0", 2*time.Second, 0, "of another run\n"),
			frame("r1", "2", 3*time.Second, 0, "error in c\n"),
			frame("r1", "1.0", 4*time.Second, 12, "a three\n"),
			{Ref: task.Ref{Run: "r1", Task: "1.0", Attempt: 2}, Stream: task.Stdout, At: start.Add(5 * time.Second), Bytes: []byte("again")},
			frame("r1", "1.10", 6*time.Second, 6, "\nb three\n"),
		}
		_, err := r.Append(t.Context(), frames[from:to])
		must(t, err)
	}
	fill(0, 8)
	check(r, "in the journal")
	r.reopen()
	check(r, "after a start")
	r.pass(r.PackAfter())
	check(r, "packed")
	if n := r.blobs.puts; n != 0 {
		t.Errorf("what is as small as this is %d blobs", n)
	}
	r.reopen()
	check(r, "packed, and after a start")

	r = newRig(t, Config{})
	for i := range 8 { // each to a journal of its own, packed by itself into one row
		fill(i, i+1)
		r.pass(r.PackAfter())
	}
	check(r, "packed bit by bit")
	if rows, err := r.list.after(t.Context(), "r1", 0, 0, 100); err != nil || len(rows) != 1 {
		t.Errorf("%d rows %v, want one", len(rows), err)
	}

	r = newRig(t, Config{})
	fill(0, 4)
	r.pass(r.PackAfter())
	fill(4, 8)
	check(r, "half packed")
}

func TestRepeats(t *testing.T) {
	r := newRig(t, Config{})
	want := []string{"1/1:one", "1/1:two", "1/1:three"}
	frames := []task.Frame{frame("r", "1", 0, 0, "one\n"), frame("r", "1", time.Second, 4, "two\n")}
	for range 2 {
		_, err := r.Append(t.Context(), frames)
		must(t, err)
	}
	r.reopen()
	_, err := r.Append(t.Context(), append(frames, frame("r", "1", 2*time.Second, 8, "three\n")))
	must(t, err)
	equal(t, "after a start", r.read(Query{Run: "r"}), want)
	r.pass(r.PackAfter())
	_, err = r.Append(t.Context(), frames)
	must(t, err)
	r.print("r", "1", 3*time.Second, 4, "two\nthree\nfour\n") // cut otherwise than before
	want = append(want, "1/1:four")
	equal(t, "after packing", r.read(Query{Run: "r"}), want)

	// The journal has nothing of it any more, nor has the memory.
	var many strings.Builder
	for many.Len() < task.MaxFrame-100 {
		fmt.Fprintf(&many, "%x\n", rand.Uint64())
	}
	big := many.String()
	r.print("r", "1", 4*time.Second, 19, big)
	r.pass(r.PackAfter())
	if r.blobs.puts == 0 {
		t.Error("there is no blob")
	}
	n := len(r.read(Query{Run: "r"}))
	for range 2 {
		r.reopen()
		_, err = r.Append(t.Context(), append(frames, frame("r", "1", 4*time.Second, 19, big)))
		must(t, err)
		if got := r.read(Query{Run: "r"}); len(got) != n {
			t.Errorf("%d lines after it was sent again, want %d", len(got), n)
		}
	}
}

func TestLimit(t *testing.T) {
	r := newRig(t, Config{Limit: 10})
	add := func(offset int, text string) task.Logged {
		t.Helper()
		got, err := r.Append(t.Context(), []task.Frame{frame("r", "1", 0, offset, text), frame("r", "2", 0, 0, "short\n")})
		must(t, err)
		return got
	}
	if got := add(0, "five\n"); len(got.Full) != 0 {
		t.Errorf("full: %v", got.Full)
	}
	for range 2 { // as often as it is said
		if got := add(5, "and five more\n"); len(got.Full) != 1 || got.Full[0].Task != "1" {
			t.Errorf("full: %v", got.Full)
		}
	}
	add(19, "x\n")
	want := []string{"1/1:five", "2/1:short", "1/1:and f…", "1/1:-9", "1/1:-2"}
	check := func(state string) {
		got := r.read(Query{Run: "r"})
		slices.Sort(got)
		slices.Sort(want)
		equal(t, state, got, want)
	}
	check("in the journal")
	r.reopen()
	if got := add(21, "y\n"); len(got.Full) != 1 {
		t.Errorf("after a start: full: %v", got.Full)
	}
	want = append(want, "1/1:-2")
	check("after a start")
	r.pass(r.PackAfter())
	check("packed")
}

// A worker that keeps less than the store says so at the end, perhaps twice.
func TestNotSent(t *testing.T) {
	r := newRig(t, Config{Limit: 10})
	for _, run := range []string{"below", "above"} {
		r.print(run, "1", 0, 0, "five\n")
		offset := map[string]int{"below": 8, "above": 1 << 40}[run]
		for range 2 {
			r.print(run, "1", time.Second, offset, "")
		}
		want := []string{"1/1:five", fmt.Sprintf("1/1:-%d", offset-5)}
		equal(t, run, r.read(Query{Run: run}), want)
		r.reopen()
		r.print(run, "1", time.Second, offset, "")
		equal(t, run+", after a start", r.read(Query{Run: run}), want)
		r.pass(r.PackAfter())
		equal(t, run+", packed", r.read(Query{Run: run}), want)
	}
}

// TestMuch is a task that prints ten gigabytes and does not listen.
func TestMuch(t *testing.T) {
	r := newRig(t, Config{Limit: 1 << 20})
	block := bytes.Repeat([]byte("0123456789abcde\n"), task.MaxFrame/16)
	var frames []task.Frame
	for at := int64(0); at < 10<<30; at += task.MaxFrame {
		frames = append(frames, task.Frame{Ref: task.Ref{Run: "r", Task: "1", Attempt: 1}, Stream: task.Stdout, Offset: at, At: start, Bytes: block})
		if len(frames) == 4096 {
			_, err := r.Append(t.Context(), frames)
			must(t, err)
			frames = frames[:0]
		}
	}
	kept, cut := 0, int64(0)
	must(t, r.Read(t.Context(), Query{Run: "r"}, func(l Line) error {
		if l.Cut == 0 {
			kept += len(l.Text) + 1
		}
		cut += l.Cut
		return nil
	}))
	if kept != 1<<20 || cut != 10<<30-1<<20 {
		t.Errorf("kept %d, cut %d", kept, cut)
	}
	if r.journal > 2<<20 {
		t.Errorf("the journal has %d bytes", r.journal)
	}
}

func TestInvalid(t *testing.T) {
	r := newRig(t, Config{})
	for name, f := range map[string]task.Frame{
		"no run":         frame("", "1", 0, 0, "x"),
		"no task":        frame("r", "", 0, 0, "x"),
		"a long name":    frame(strings.Repeat("r", maxName+1), "1", 0, 0, "x"),
		"before all":     frame("r", "1", 0, -1, "x"),
		"far beyond":     frame("r", "1", 0, 1<<60, "x"),
		"too large":      frame("r", "1", 0, 0, strings.Repeat("x", task.MaxFrame+1)),
		"no such stream": {Ref: task.Ref{Run: "r", Task: "1"}, At: start},
		"no time":        {Ref: task.Ref{Run: "r", Task: "1"}, Stream: task.Stdout},
		"a bad attempt":  {Ref: task.Ref{Run: "r", Task: "1", Attempt: -1}, Stream: task.Stdout, At: start},
	} {
		if _, err := r.Append(t.Context(), []task.Frame{frame("r", "1", 0, 0, "good"), f}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	equal(t, "nothing is kept of them", r.read(Query{Run: "r"}), nil)
	if _, err := Pattern("("); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	if _, err := Pattern(strings.Repeat("x", maxPattern+1)); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	if err := r.Read(t.Context(), Query{}, nil); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}

// TestForget deletes a run, wherever its logs are, for good.
func TestForget(t *testing.T) {
	r := newRig(t, Config{})
	released := map[string]int{}
	r.d.Release = func(_ context.Context, run string) error { released[run]++; return nil }
	for _, run := range []string{"packed", "both", "journal", "stays"} {
		if run != "journal" {
			r.print(run, "1", 0, 0, "one\n")
		}
	}
	r.pass(r.PackAfter())
	for _, run := range []string{"both", "journal", "stays"} {
		r.print(run, "1", 0, 4, "two\n")
	}
	for _, run := range []string{"packed", "both", "journal", "never was"} {
		r.Forget(run)
	}
	r.pass(0)
	check := func(state string) {
		t.Helper()
		for run, want := range map[string][]string{"packed": nil, "both": nil, "journal": nil, "stays": {"1/1:one", "1/1:two"}} {
			equal(t, state+": "+run, r.read(Query{Run: run}), want)
		}
	}
	check("at once")
	if len(released) != 4 {
		t.Errorf("released %v", released)
	}
	r.reopen()
	check("after a start")
	r.pass(r.PackAfter())
	check("after packing")
	r.reopen()
	check("after packing and a start")
	if len(r.files) != 1 {
		t.Errorf("%d files of the journal", len(r.files))
	}
	must(t, r.list.remembered(t.Context(), r.files[0].start))
	if n, _ := r.list.upto(t.Context(), "journal"); n != 0 {
		t.Error("a deleted run is remembered when nothing is left of it")
	}
}

// TestForgetUnknown deletes after a start what was to be deleted before.
func TestForgetUnknown(t *testing.T) {
	r := newRig(t, Config{})
	r.print("packed and gone", "1", 0, 0, "one\n")
	r.print("there", "1", 0, 0, "one\n")
	r.pass(r.PackAfter())
	r.print("gone", "1", 0, 0, "one\n")
	r.reopen()
	must(t, r.forgetUnknown(t.Context())) // nobody says what is known
	r.d.Known = func(_ context.Context, run string) (bool, error) { return run == "there", nil }
	must(t, r.forgetUnknown(t.Context()))
	r.pass(0)
	for run, want := range map[string][]string{"packed and gone": nil, "gone": nil, "there": {"1/1:one"}} {
		equal(t, run, r.read(Query{Run: run}), want)
	}
	r.d.Known = func(context.Context, string) (bool, error) { return false, errors.New("who knows?") }
	if err := r.forgetUnknown(t.Context()); err == nil {
		t.Error("an error is not told")
	}
	r.pass(0)
	equal(t, "what nobody knows is kept", r.read(Query{Run: "there"}), []string{"1/1:one"})
}

func TestKeep(t *testing.T) {
	r := newRig(t, Config{Keep: time.Hour})
	r.print("old", "1", 0, 0, "one\n")
	r.print("runs", "1", 0, 0, "one\n")
	r.end("old")
	r.pass(0)
	r.pass(r.PackAfter())
	r.pass(59 * time.Minute)
	r.print("new", "1", 0, 0, "one\n")
	r.end("new")
	r.pass(r.PackAfter())
	for run, want := range map[string][]string{"old": nil, "runs": {"1/1:one"}, "new": {"1/1:one"}} {
		equal(t, run, r.read(Query{Run: run}), want)
	}
	ended := r.clock.Now().Add(-90 * time.Minute)
	for _, c := range []struct {
		run   string
		ended time.Time
		want  time.Duration
	}{
		{"old", ended, time.Hour},
		{"old", r.clock.Now().Add(-time.Minute), 0}, // it printed nothing
		{"runs", time.Time{}, 0},
		{"new", ended, 0}, // what is there is shown
	} {
		if got, err := r.Expired(t.Context(), c.run, c.ended); got != c.want || err != nil {
			t.Errorf("the logs of %s, ended at %s, were kept for %v (%v), want %v", c.run, c.ended, got, err, c.want)
		}
	}
}

// TestSegments packs so much that there are several blobs, and reads them in
// every way that skips.
func TestSegments(t *testing.T) {
	r := newRig(t, Config{SegmentBytes: 128 << 10})
	const tasks, lines = 40, 500
	var want []string
	for l := range lines {
		var frames []task.Frame
		for k := range tasks {
			text := fmt.Sprintf("line %05d of task %02d %x\n", l, k, uint64(l*k+k)*0x9E3779B97F4A7C15)
			frames = append(frames, frame("r", fmt.Sprintf("3.%d", k), time.Duration(l)*time.Second, l*len(text), text))
			want = append(want, fmt.Sprintf("3.%d/1:%s", k, strings.TrimSuffix(text, "\n")))
		}
		// Lengths differ by the last word: offsets are worked out per task.
		for i := range frames {
			frames[i].Offset = int64(l) * 64
			frames[i].Bytes = append(bytes.Repeat([]byte(" "), 64-len(frames[i].Bytes)), frames[i].Bytes...)
			want[len(want)-tasks+i] = strings.Replace(want[len(want)-tasks+i], ":", ":"+strings.Repeat(" ", 64-1-(len(want[len(want)-tasks+i])-strings.Index(want[len(want)-tasks+i], ":")-1)), 1)
		}
		_, err := r.Append(t.Context(), frames)
		must(t, err)
		r.packDue(t.Context())
	}
	r.end("r")
	r.pass(0)
	if r.blobs.puts < 5 {
		t.Errorf("only %d segments", r.blobs.puts)
	}
	got := r.read(Query{Run: "r"})
	if len(got) != len(want) {
		t.Fatalf("%d lines, want %d", len(got), len(want))
	}
	less := func(a, b string) int {
		return strings.Compare(a[strings.Index(a, "line"):], b[strings.Index(b, "line"):])
	}
	if !slices.IsSortedFunc(got, func(a, b string) int {
		return strings.Compare(a[strings.Index(a, "line"):][:10], b[strings.Index(b, "line"):][:10])
	}) {
		t.Error("they do not come by time")
	}
	slices.SortFunc(got, less)
	slices.SortFunc(want, less)
	equal(t, "all", got, want)
	for _, q := range []Query{{Tail: 1}, {Tail: 777}, {Tail: 7, Task: "3.7"}, {Task: "3.39"}, {Since: start.Add(490 * time.Second)}, {Tail: 30, Since: start.Add(499 * time.Second)}} {
		q.Run = "r"
		got := r.read(q)
		n := tasks * lines
		if q.Task != "" {
			n = lines
		}
		if !q.Since.IsZero() {
			n = int(start.Add(lines*time.Second).Sub(q.Since)/time.Second) * tasks
		}
		if q.Tail > 0 {
			n = min(n, q.Tail)
		}
		if len(got) != n || !strings.Contains(got[len(got)-1], "line 00499") {
			t.Errorf("%+v: %d lines to %s, want %d", q, len(got), got[len(got)-1], n)
		}
	}
	if len(r.files) != 1 || r.files[0].extents != 0 {
		t.Errorf("the journal has %d files", len(r.files))
	}
	if entries, _ := filepath.Glob(filepath.Join(r.cfg.Dir, "*"+fileSuffix)); len(entries) != 1 {
		t.Errorf("files %v", entries)
	}
}

// TestBlobsFail has the journal wait for the blob store, up to its bound.
func TestBlobsFail(t *testing.T) {
	r := newRig(t, Config{SegmentBytes: 64 << 10, JournalBytes: 256 << 10})
	r.blobs.set(errors.New("the blob store is away"))
	var kept int
	noise := make([]byte, task.MaxFrame)
	var err error
	for i := range 100 {
		for k := range noise {
			noise[k] = byte((i + k) * (k ^ i) >> 3)
		}
		if _, err = r.Append(t.Context(), []task.Frame{frame("r", "1", 0, i*len(noise), string(noise))}); err != nil {
			break
		}
		kept += len(noise)
		r.pass(time.Minute)
	}
	if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "the blob store is away") {
		t.Fatalf("got %v, want ErrFull and why; %s", err, r.out.String())
	}
	r.blobs.set(nil)
	r.pass(time.Minute)
	r.print("r", "1", 0, kept, "it goes on\n")
	got := 0
	must(t, r.Read(t.Context(), Query{Run: "r"}, func(l Line) error {
		got += len(l.Text)
		if !l.Open {
			got++
		}
		return nil
	}))
	if got != kept+len("it goes on\n") {
		t.Errorf("%d bytes, want %d", got, kept+11)
	}
}

func TestClosed(t *testing.T) {
	r := newRig(t, Config{})
	r.print("r", "1", 0, 0, "one\n")
	must(t, r.Close())
	if _, err := r.Append(t.Context(), []task.Frame{frame("r", "1", 0, 4, "two\n")}); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"delete": r.delete(t.Context(), []string{"r"}),
		"expire": r.expire(t.Context()),
		"pack":   r.pack(t.Context(), "r"),
		"run":    r.Run(t.Context()),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v, want ErrClosed", name, err)
		}
	}
	r.open()
	if _, err := os.Stat(filepath.Join(r.cfg.Dir, "logs.db")); err != nil {
		t.Error(err)
	}
}
