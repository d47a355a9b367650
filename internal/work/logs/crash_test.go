package logs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/test/parts"
)

// copyDir is what a crash leaves: the files as they are.
func copyDir(t testing.TB, from string) string {
	t.Helper()
	to := t.TempDir()
	must(t, os.CopyFS(to, os.DirFS(from)))
	return to
}

// with opens a store on another folder, with the same blobs.
func (r *rig) with(dir string) *rig {
	r.Helper()
	o := &rig{TB: r.TB, cfg: r.cfg, clock: clock.NewFake(r.clock.Now()), blobs: &blobs{Blobs: r.blobs.Blobs}, over: map[string]bool{}}
	o.cfg.Dir = dir
	o.open()
	return o
}

// TestTornTail cuts the journal at every byte of what is not acknowledged, and
// puts garbage there: what was acknowledged is there, and it goes on.
func TestTornTail(t *testing.T) {
	r := newRig(t, Config{})
	r.print("r", "1", 0, 0, "one\n")
	r.print("q", "1", 0, 0, "of another\n")
	name := r.files[0].f.Name()
	acked := r.files[0].size
	r.print("r", "1", 0, 4, "two\n")
	whole, err := os.ReadFile(name)
	must(t, err)
	for cut := acked; cut <= int64(len(whole)); cut += 1 + (cut-acked)%2 {
		for _, garbage := range []string{"", "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "\xff\xff\xff\xff garbage", "\x05\x00\x00\x00garbage and more"} {
			if garbage != "" && (cut-acked)%7 != 0 {
				continue
			}
			dir := copyDir(t, r.cfg.Dir)
			must(t, os.WriteFile(filepath.Join(dir, filepath.Base(name)), append(slices.Clone(whole[:cut]), garbage...), 0o600))
			o := r.with(dir)
			want := []string{"1/1:one", "1/1:two", "1/1:three"}
			o.print("r", "1", 0, 4, "two\n") // it was not answered: it comes again
			o.print("r", "1", 0, 8, "three\n")
			equal(t, fmt.Sprintf("cut at %d, then %q", cut, garbage), o.read(Query{Run: "r"}), want)
			o.reopen()
			o.pass(o.PackAfter())
			equal(t, fmt.Sprintf("cut at %d, then %q, packed", cut, garbage), o.read(Query{Run: "r"}), want)
			equal(t, "another run", o.read(Query{Run: "q"}), []string{"1/1:of another"})
			if strings.Contains(o.out.String(), "level=ERROR") {
				t.Errorf("cut at %d, then %q: a crash is not an error: %s", cut, garbage, o.out.String())
			}
			must(t, o.Close())
		}
	}
}

// TestDamagedJournal breaks a byte of a file that was not the last: it is
// said, what is before it is there, the file is kept, and it goes on.
func TestDamagedJournal(t *testing.T) {
	r := newRig(t, Config{})
	r.print("r", "1", 0, 0, "one\n")
	at := r.files[0].size
	r.print("r", "1", 0, 4, "two\n")
	name := r.files[0].f.Name()
	r.reopen()
	r.print("r", "1", 0, 8, "three\n")
	must(t, r.Close())
	b, err := os.ReadFile(name)
	must(t, err)
	b[at+sectionHead+3] ^= 1
	must(t, os.WriteFile(name, b, 0o600))
	r.open()
	equal(t, "what can be read", r.read(Query{Run: "r"}), []string{"1/1:one", "1/1:three"})
	if !strings.Contains(r.out.String(), "cannot be read") {
		t.Errorf("nothing is said: %s", r.out.String())
	}
	r.pass(r.PackAfter())
	equal(t, "packed", r.read(Query{Run: "r"}), []string{"1/1:one", "1/1:three"})
	if _, err := os.Stat(name + ".damaged"); err != nil {
		t.Error(err)
	}
}

// TestDamagedWhileOpen has a disk forget what it had: packing leaves it out,
// and goes on.
func TestDamagedWhileOpen(t *testing.T) {
	r := newRig(t, Config{})
	r.print("r", "1", 0, 0, "one\n")
	at := r.files[0].size
	r.print("r", "1", 0, 4, "two\n")
	_, err := r.files[0].f.WriteAt([]byte{0xff}, at+sectionHead+3)
	must(t, err)
	if err := r.Read(t.Context(), Query{Run: "r"}, func(Line) error { return nil }); !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v, want ErrDamaged", err)
	}
	r.pass(r.PackAfter())
	equal(t, "packed", r.read(Query{Run: "r"}), []string{"1/1:one"})
}

// TestPackingCrash ends the process in the middle of packing: before a blob is
// stored, before the list has it, and before the journal is cut.
func TestPackingCrash(t *testing.T) {
	for _, small := range []bool{true, false} {
		r := newRig(t, Config{})
		var want []string
		offset := 0
		more := func(n int) {
			for range n {
				text := fmt.Sprintf("%x\n", rand.Uint64())
				r.print("r", "1", 0, offset, text)
				offset += len(text)
				want = append(want, "1/1:"+strings.TrimSuffix(text, "\n"))
			}
		}
		more(100)
		r.pass(r.PackAfter()) // a small one, to be made part of the next
		n := 100
		if !small {
			n = 5000
		}
		more(n)
		var states []string
		r.blobs.hook = func() { states = append(states, copyDir(t, r.cfg.Dir)) }
		before := copyDir(t, r.cfg.Dir)
		r.pass(r.PackAfter())
		r.blobs.hook = nil
		if small != (len(states) == 0) {
			t.Fatalf("%d blobs", len(states))
		}
		// The list has it, and the journal as well.
		both := copyDir(t, r.cfg.Dir)
		must(t, fs.WalkDir(os.DirFS(before), ".", func(p string, e fs.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(p, fileSuffix) {
				var b []byte
				if b, err = os.ReadFile(filepath.Join(before, p)); err == nil {
					err = os.WriteFile(filepath.Join(both, p), b, 0o600)
				}
			}
			return err
		}))
		for i, dir := range append(states, before, both, copyDir(t, r.cfg.Dir)) {
			o := r.with(dir)
			at := fmt.Sprintf("small %v, state %d", small, i)
			equal(t, at, o.read(Query{Run: "r"}), want)
			equal(t, at+", the last", o.read(Query{Run: "r", Tail: 150}), want[max(0, len(want)-150):])
			o.print("r", "1", time.Hour, offset, "more\n")
			o.pass(o.PackAfter())
			equal(t, at+", packed", o.read(Query{Run: "r"}), append(slices.Clone(want), "1/1:more"))
			o.reopen()
			equal(t, at+", after a start", o.read(Query{Run: "r"}), append(slices.Clone(want), "1/1:more"))
			must(t, o.Close())
		}
	}
}

// TestSyncFails: what could not be made durable is not acknowledged, and is
// there once when it comes again.
func TestSyncFails(t *testing.T) {
	r := newRig(t, Config{})
	r.print("r", "1", 0, 0, "one\n")
	r.writer.sync = func(*os.File) error { return errors.New("the disk is broken") }
	for range 3 {
		if _, err := r.Append(t.Context(), []task.Frame{frame("r", "1", 0, 4, "two\n")}); err == nil || !strings.Contains(err.Error(), "the disk is broken") {
			t.Errorf("got %v", err)
		}
	}
	equal(t, "what is not durable", r.read(Query{Run: "r"}), []string{"1/1:one"})
	r.writer.sync = syncData
	r.print("r", "1", 0, 4, "two\n")
	want := []string{"1/1:one", "1/1:two"}
	equal(t, "again", r.read(Query{Run: "r"}), want)
	if len(r.files) != 2 || r.files[1].start <= r.files[0].start+r.files[0].size {
		t.Errorf("%d files: what comes after a sync that failed goes to another place of another file", len(r.files))
	}
	r.reopen()
	equal(t, "after a start", r.read(Query{Run: "r"}), want)
	r.pass(r.PackAfter())
	equal(t, "packed", r.read(Query{Run: "r"}), want)
}

// TestFullDisk fills the disk: workers are told, nothing is corrupt, and when
// there is room again it goes on.
func TestFullDisk(t *testing.T) {
	dir := parts.SmallDisk(t, "2m")
	r := newRig(t, Config{Dir: filepath.Join(dir, "logs")})
	var want []string
	offset := 0
	add := func() error {
		text := fmt.Sprintf("%05d%s\n", len(want), strings.Repeat("x", 10_000))
		_, err := r.Append(t.Context(), []task.Frame{frame("r", "1", 0, offset, text)})
		if err == nil {
			offset += len(text)
			want = append(want, "1/1:"+strings.TrimSuffix(text, "\n"))
		}
		return err
	}
	var err error
	for err == nil && len(want) < 1000 {
		err = add()
	}
	if !errors.Is(err, ErrFull) {
		t.Fatalf("after %d: %v, want ErrFull", len(want), err)
	}
	if err := add(); !errors.Is(err, ErrFull) {
		t.Fatalf("again: %v, want ErrFull", err)
	}
	equal(t, "on the full disk", r.read(Query{Run: "r"}), want)
	r.packDue(t.Context()) // nothing is due; and it may fail
	r.pass(r.PackAfter())
	if out, err := exec.Command("mount", "-o", "remount,size=32m", dir).CombinedOutput(); err != nil {
		t.Fatalf("remount: %s", out)
	}
	must(t, add())
	equal(t, "with room", r.read(Query{Run: "r"}), want)
	r.reopen()
	must(t, add())
	r.pass(r.PackAfter())
	r.pass(r.PackAfter())
	equal(t, "packed", r.read(Query{Run: "r"}), want)
	if n := len(r.live); n != 0 {
		t.Errorf("%d runs are left in the journal: %s", n, r.out.String())
	}
}

// TestKilled kills a process that appends and packs, again and again, and
// looks for what it was told is kept.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("CAIRN_TEST_LOGS"); dir != "" {
		victim(t, dir)
		return
	}
	dir := t.TempDir()
	told := map[string]int{} // lines of each run that were acknowledged
	for round := range 5 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), "CAIRN_TEST_LOGS="+dir, fmt.Sprintf("CAIRN_TEST_FROM=%d,%d,%d", told["r0"], told["r1"], told["r2"]))
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); {
			run, count, ok := strings.Cut(strings.TrimPrefix(lines.Text(), "acked "), " ")
			if !ok || !strings.HasPrefix(lines.Text(), "acked ") {
				continue
			}
			told[run], err = strconv.Atoi(count)
			must(t, err)
			if n++; n == 300+round*37 {
				must(t, cmd.Process.Kill())
			}
		}
		_ = cmd.Wait()
		s, err := Open(t.Context(), Config{Dir: dir}, Deps{Blobs: folder(dir), Clock: clock.Real(), Live: func(string) bool { return true }})
		must(t, err)
		for run, n := range told {
			got := 0
			must(t, s.Read(t.Context(), Query{Run: run}, func(l Line) error {
				if want := victimLine(run, got); want != string(l.Text)+"\n" {
					return fmt.Errorf("line %d of %s is %q, want %q", got, run, l.Text, want)
				}
				got++
				return nil
			}))
			if got < n {
				t.Errorf("round %d: %s has %d lines, and %d were acknowledged", round, run, got, n)
			}
		}
		must(t, s.Close())
	}
	if packed, _ := filepath.Glob(filepath.Join(dir, "blob-*")); len(packed) < 5 {
		t.Errorf("only %d segments were packed meanwhile", len(packed))
	}
	if told["r0"] < 100 {
		t.Errorf("only %v", told)
	}
}

func victimLine(run string, n int) string {
	return fmt.Sprintf("%s %d %s\n", run, n, strings.Repeat(strconv.Itoa(n*7919), 40))
}

// victim appends to three runs until it is killed; runs share the journal, and
// the bounds are so small that it packs all the time.
func victim(t *testing.T, dir string) {
	s, err := Open(t.Context(), Config{Dir: dir, SegmentBytes: 8 << 10, JournalBytes: 256 << 10}, Deps{Blobs: folder(dir), Clock: clock.Real(), Live: func(string) bool { return true }})
	must(t, err)
	go func() { _ = s.Run(t.Context()) }()
	var from [3]int
	_, err = fmt.Sscanf(os.Getenv("CAIRN_TEST_FROM"), "%d,%d,%d", &from[0], &from[1], &from[2])
	must(t, err)
	var out sync.Mutex
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			run := fmt.Sprintf("r%d", i)
			offset, n := 0, from[i]
			for k := range n {
				offset += len(victimLine(run, k))
			}
			var answer error
			for answer == nil && n < 100_000 {
				var fs []task.Frame
				for range 1 + n%7 {
					line := victimLine(run, n)
					fs = append(fs, frame(run, "1", time.Duration(n)*time.Millisecond, offset, line))
					offset += len(line)
					n++
				}
				for {
					if _, answer = s.Append(t.Context(), fs); !errors.Is(answer, ErrFull) {
						break
					}
				}
				out.Lock()
				fmt.Printf("acked %s %d\n", run, n)
				out.Unlock()
			}
		})
	}
	wg.Wait()
}

// folder keeps blobs in a folder, under names by their number.
type folder string

func (f folder) Put(_ context.Context, _ string, r io.Reader) (string, int64, error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return "", 0, err
	}
	g, err := os.CreateTemp(string(f), "blob-*")
	if err != nil {
		return "", 0, err
	}
	_, err = g.Write(b)
	return filepath.Base(g.Name()), int64(len(b)), errors.Join(err, g.Close())
}

func (f folder) Open(_ context.Context, digest string) (io.ReadSeekCloser, error) {
	return os.Open(filepath.Join(string(f), digest))
}
