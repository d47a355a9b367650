package logs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/task"
)

// follow reads in the background; the lines come by the channel, which is
// closed at the end, and the error by the other.
func (r *rig) follow(ctx context.Context, q Query) (<-chan string, <-chan error) {
	lines, end := make(chan string), make(chan error, 1)
	q.Follow = true
	go func() {
		defer close(lines)
		end <- r.Read(ctx, q, func(l Line) error {
			select {
			case lines <- show(l):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	return lines, end
}

func next(t *testing.T, lines <-chan string) string {
	t.Helper()
	select {
	case l, ok := <-lines:
		if !ok {
			return "the end"
		}
		return l
	case <-time.After(20 * time.Second):
		t.Fatal("nothing comes")
		return ""
	}
}

func TestFollow(t *testing.T) {
	r := newRig(t, Config{})
	lines, end := r.follow(t.Context(), Query{Run: "r"}) // before anything is there
	r.print("r", "1", 0, 0, "one\n")
	if got := next(t, lines); got != "1/1:one" {
		t.Fatal(got)
	}
	r.print("other", "1", 0, 0, "nobody asked for it\n")
	r.pass(r.PackAfter()) // what was read is packed
	r.print("r", "1", time.Second, 4, "two\n")
	r.pass(r.PackAfter()) // and what was not
	r.print("r", "1", 2*time.Second, 8, "three\n")
	for _, want := range []string{"1/1:two", "1/1:three"} {
		if got := next(t, lines); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	}
	tail, tailEnd := r.follow(t.Context(), Query{Run: "r", Tail: 1})
	if got := next(t, tail); got != "1/1:three" {
		t.Fatal(got)
	}
	r.print("r", "1", 3*time.Second, 14, "the last\n")
	r.end("r")
	r.pass(0)
	for _, l := range []<-chan string{lines, tail} {
		for _, want := range []string{"1/1:the last", "the end"} {
			if got := next(t, l); got != want {
				t.Fatalf("got %s, want %s", got, want)
			}
		}
	}
	must(t, <-end)
	must(t, <-tailEnd)
	if len(r.live) != 0 {
		t.Errorf("%d entries are left", len(r.live))
	}
	// A run that has ended is not waited for.
	equal(t, "after the end", r.read(Query{Run: "r", Follow: true, Tail: 1}), []string{"1/1:the last"})
}

func TestFollowEnds(t *testing.T) {
	r := newRig(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	lines, end := r.follow(ctx, Query{Run: "r"})
	r.print("r", "1", 0, 0, "one\n")
	next(t, lines)
	cancel()
	if err := <-end; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	// Its run is deleted.
	lines, end = r.follow(t.Context(), Query{Run: "r"})
	next(t, lines)
	r.print("q", "1", 0, 0, "one\n") // it has not seen the journal to its end
	r.Forget("r")
	r.pass(0)
	r.end("r")
	if got := next(t, lines); got != "the end" {
		t.Error(got)
	}
	must(t, <-end)
	lines, end = r.follow(t.Context(), Query{Run: "q"})
	next(t, lines)
	must(t, r.Close())
	if err := <-end; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	r.open()
}

// TestSlowFollower does not read while much is printed and packed: nothing
// waits for it, it holds little, and in the end it has seen each line.
func TestSlowFollower(t *testing.T) {
	r := newRig(t, Config{SegmentBytes: 1 << 20, JournalBytes: 4 << 20})
	lines, end := r.follow(t.Context(), Query{Run: "r"})
	r.print("r", "1", 0, 0, "line 0\n")
	next(t, lines)
	const blocks, perBlock = 400, 512
	offset, n := 7, 1
	for b := range blocks {
		var text strings.Builder
		for range perBlock {
			fmt.Fprintf(&text, "line %-110d\n", n)
			n++
		}
		r.print("r", "1", time.Duration(b)*time.Millisecond, offset, text.String())
		offset += text.Len()
		r.packDue(t.Context())
	}
	if r.journal > 8<<20 {
		t.Errorf("the journal has %d bytes", r.journal)
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapAlloc > 96<<20 {
		t.Errorf("the heap has %d MiB", m.HeapAlloc>>20)
	}
	r.end("r")
	for want := 1; want < n; want++ {
		if got := next(t, lines); strings.TrimSpace(got) != fmt.Sprintf("1/1:line %d", want) {
			t.Fatalf("got %s, want line %d", got, want)
		}
	}
	if got := next(t, lines); got != "the end" {
		t.Fatal(got)
	}
	must(t, <-end)
}

// TestTogether appends, packs, follows, reads and forgets at once; it is for
// the race detector, and counts lines.
func TestTogether(t *testing.T) {
	r := newRig(t, Config{SegmentBytes: 32 << 10, JournalBytes: 1 << 20})
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- r.Run(ctx) }()
	const runs, tasks, lines = 3, 4, 300
	var ends []<-chan error
	counts := make(chan int, runs)
	for i := range runs {
		ls, end := r.follow(t.Context(), Query{Run: fmt.Sprint("r", i)})
		ends = append(ends, end)
		go func() {
			n := 0
			for range ls {
				n++
			}
			counts <- n
		}()
	}
	printed := make(chan error, runs*tasks)
	for i := range runs {
		for k := range tasks {
			go func() {
				run, offset := fmt.Sprint("r", i), 0
				for n := range lines {
					text := fmt.Sprintf("%d %s\n", n, strings.Repeat("x", n%300))
					if _, err := r.Append(t.Context(), []task.Frame{frame(run, fmt.Sprint(k), time.Duration(n)*time.Millisecond, offset, text)}); err != nil {
						printed <- err
						return
					}
					offset += len(text)
					if n%100 == 50 {
						if err := r.Read(t.Context(), Query{Run: run, Tail: 10}, func(Line) error { return nil }); err != nil {
							printed <- err
							return
						}
					}
				}
				printed <- nil
			}()
		}
	}
	for range runs * tasks {
		must(t, <-printed)
	}
	for i := range runs {
		r.end(fmt.Sprint("r", i))
	}
	for _, end := range ends {
		must(t, <-end)
	}
	for range runs {
		if n := <-counts; n != tasks*lines {
			t.Errorf("a follower saw %d lines, want %d", n, tasks*lines)
		}
	}
	for i := range runs {
		got := r.read(Query{Run: fmt.Sprint("r", i)})
		if len(got) != tasks*lines {
			t.Errorf("%d lines are kept, want %d", len(got), tasks*lines)
		}
		slices.Sort(got)
		if n := len(slices.Compact(got)); n != tasks*lines {
			t.Errorf("%d different lines are kept, want %d", n, tasks*lines)
		}
		r.Forget(fmt.Sprint("r", i))
	}
	cancel()
	if err := <-ran; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestShared has calls that wait at the same time share a sync.
func TestShared(t *testing.T) {
	r := newRig(t, Config{})
	first, release := make(chan struct{}), make(chan struct{})
	syncs := 0
	sync := r.writer.sync
	r.writer.sync = func(f *os.File) error {
		if syncs++; syncs == 1 {
			close(first)
			<-release
		}
		return sync(f)
	}
	done := make(chan error, 100)
	put := func(i int) {
		_, err := r.Append(t.Context(), []task.Frame{frame(fmt.Sprint("r", i), "1", 0, 0, "text\n")})
		done <- err
	}
	go put(0)
	<-first
	for i := 1; i < 100; i++ {
		go put(i)
	}
	for len(r.calls) < 99 {
		runtime.Gosched()
	}
	close(release)
	for range 100 {
		must(t, <-done)
	}
	if syncs != 2 {
		t.Errorf("%d syncs, want 2", syncs)
	}
}
