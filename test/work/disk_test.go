package work_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/test/parts"
)

// The disk of the server is full while tasks run: what is refused is said to be
// refused for that, nothing that was answered is lost, and when there is room
// again everything goes on.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	disk := parts.SmallDisk(t, "48m")
	s := newServer(t, filepath.Join(disk, "data"), "work: {pool: \"off\", lease: 2s}\n")
	f := newFarm(t, s, 2)
	one := shape{tasks: task("one", "{begin}\nseq 1 200\nhead -c 200000 /dev/urandom > /file", "outputs: {file: {type: file, path: /file}}")}.document(f)
	hand := func(name string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		r, err := s.client.Submit(ctx, wire.Submission{Document: wire.Document{Text: one}, Run: wire.SubmitOptions{Name: name, Key: name, Pool: "far"}})
		return r.ID, err
	}
	taken := map[string]string{}
	id, err := hand("before")
	if err != nil {
		t.Fatal(err)
	}
	taken["before"] = id
	s.wait(id, 20*time.Second)

	long := s.hand(wire.Submission{Document: wire.Document{Text: shape{tasks: task("long", "{begin}\nseq 1 2000\nwhile ! test -e "+f.dir+"/go; do sleep 0.05; done\nseq 2001 4000\nhead -c 500000 /dev/urandom > /file", "outputs: {file: {type: file, path: /file}}")}.document(f)}, Run: wire.SubmitOptions{Pool: "far"}})
	f.until("the long task has begun", func(all []entry) bool { return len(all) == 2 })
	filler := filepath.Join(disk, "filler")
	if err := fill(filler, 300<<10); err != nil { // room for some commits, and for hardly a file
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(f.dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var refused int
	for n := 0; n < 400 && refused < 3; n++ {
		name := fmt.Sprint("full-", n)
		switch id, err := hand(name); {
		case err == nil:
			taken[name] = id
		case diskFull(err):
			refused++
			taken[name] = "" // asked for again later
		default:
			t.Fatalf("with a full disk a submission is answered %v\nthe server said:\n%s", err, s.life.Output())
		}
	}
	if refused == 0 {
		t.Error("nothing was refused although the disk is full")
	}
	if r, err := s.client.Run(t.Context(), taken["before"]); err != nil || !r.Done() {
		t.Errorf("with a full disk a run that has ended is %+v, %v", r, err)
	}
	t.Logf("%d runs were handed in with a full disk, %d were refused", len(taken)-1-refused, refused)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}

	room := time.Now()
	for name, id := range taken {
		if id == "" {
			if id, err = hand(name); err != nil {
				t.Fatalf("with room again: %v\nthe server said:\n%s", err, s.life.Output())
			}
			taken[name] = id
		}
		if r := s.wait(id, 40*time.Second); r.Phase != "succeeded" {
			t.Errorf("%s: %+v\n%s", name, r, s.tree(id))
		}
	}
	if r := s.wait(long, 40*time.Second); r.Phase != "succeeded" {
		t.Errorf("what ran meanwhile: %+v\n%s", r, s.tree(long))
	}
	t.Logf("%v after there was room all had ended", time.Since(room).Round(time.Millisecond))
	lines := map[string]bool{}
	for _, l := range s.lines(long, client.LogQuery{}) {
		lines[l.Text] = true
	}
	if len(lines) != 4000 {
		t.Errorf("of the 4000 lines it printed %d are there", len(lines))
	}
	f.check()
	f.stop()
	end(t, s.life)
	bin, err := cairn()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(bin, "scrub", "--data", s.data).CombinedOutput(); err != nil {
		t.Errorf("scrub: %v\n%s", err, out)
	}
	s.start()
	for name, id := range taken {
		if r, err := s.client.Run(t.Context(), id); err != nil || r.Phase != "succeeded" {
			t.Errorf("after a start %s is %+v, %v", name, r, err)
		}
	}
	end(t, s.life)
}

func diskFull(err error) bool {
	p, ok := errors.AsType[*wire.Problem](err)
	return ok && p.Status == http.StatusInsufficientStorage && strings.Contains(p.Detail+p.Hint, "space")
}

// fill writes until there is room only for so many bytes.
func fill(file string, room int64) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	for block := make([]byte, 64<<10); len(block) > 0; block = block[:len(block)/2] {
		for err = nil; err == nil; {
			_, err = f.Write(block)
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("fill the disk: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return f.Truncate(info.Size() - room)
}
