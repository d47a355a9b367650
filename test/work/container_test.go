package work_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/test/images"
)

const busybox = "library/busybox:latest"

// newPool is a server that runs tasks in containers on this machine.
func newPool(t *testing.T, more string) *server {
	t.Helper()
	s := newServer(t, filepath.Join(t.TempDir(), "data"), "work: {pool: auto, slots: 2, lease: 1s"+more+"}\n")
	s.needPool()
	images.Push(t, s.registry(), busybox)
	return s
}

// container is a document of one task that runs a script in busybox.
func container(mark, script string, more ...string) string {
	more = append(slices.Clone(more), `env: {WORK_TEST: "`+mark+`"}`)
	return shape{tasks: strings.ReplaceAll(task("a", script, more...), "image: far", "image: "+busybox)}.document(&farm{})
}

// one hands in a document and waits for its end.
func (s *server) one(doc string) wire.Run {
	s.t.Helper()
	return s.wait(s.hand(wire.Submission{Document: wire.Document{Text: doc}}), time.Minute)
}

// gone waits until no process of tasks with this mark is there.
func gone(t *testing.T, mark string, within time.Duration) {
	t.Helper()
	var left []string
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if left = (&farm{dir: mark}).left(); len(left) == 0 {
			return
		}
	}
	t.Errorf("%v later there are still processes of the task:\n%s", within, strings.Join(left, "\n"))
}

// Programs that do not want to end do.
func TestUnruly(t *testing.T) {
	s := newPool(t, "")
	for _, c := range []struct {
		name, script string
		more         []string
		phase        string
		exit         int
		atLeast      time.Duration
		cancel       bool
	}{
		{name: "forks away", script: "setsid sh -c '(trap \"\" TERM HUP; sleep 1000 & sleep 1000) &' &\nsleep 0.2", phase: "succeeded"},
		{name: "ignores SIGTERM", script: "trap '' TERM\nwhile true; do sleep 1; done", more: []string{"timeout: 500ms", "grace: 700ms"}, phase: "failed", exit: 137, atLeast: 1200 * time.Millisecond},
		{name: "ignores being canceled", script: "trap '' TERM INT HUP\n(trap '' TERM; sleep 1000) &\nwhile true; do sleep 1; done", more: []string{"grace: 500ms"}, phase: "canceled", atLeast: 500 * time.Millisecond, cancel: true},
		{name: "stops itself", script: "kill -STOP $$", more: []string{"timeout: 300ms", "grace: 300ms"}, phase: "failed", exit: 137},
		{name: "forks without end", script: "f() { f | f & }\nf\nsleep 1000", more: []string{"timeout: 700ms", "grace: 300ms"}, phase: "failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			mark := t.Name()
			begun := time.Now()
			id := s.hand(wire.Submission{Document: wire.Document{Text: container(mark, c.script, c.more...)}})
			if c.cancel {
				for len((&farm{dir: mark}).left()) == 0 && time.Since(begun) < 20*time.Second {
					time.Sleep(10 * time.Millisecond)
				}
				begun = time.Now()
				if _, err := s.client.Cancel(t.Context(), id, false); err != nil {
					t.Fatal(err)
				}
			}
			r := s.wait(id, 20*time.Second)
			if !c.cancel {
				gone(t, mark, time.Second)
			} else { // the run is canceled at once, its program has its grace
				gone(t, mark, 10*time.Second)
			}
			took := time.Since(begun)
			if r.Phase != c.phase || took < c.atLeast {
				t.Errorf("after %v: %+v\n%s", took, r, s.tree(id))
			}
			for _, n := range s.nodes(id) {
				if n.Kind == "task" && c.exit != 0 && n.Exit != c.exit {
					t.Errorf("the exit code is %d, want %d: %s", n.Exit, c.exit, n.Message)
				}
			}
		})
	}
	end(t, s.life)
}

// What a task leaves cannot be something that is not its own.
func TestOutputsOfOthers(t *testing.T) {
	t.Parallel()
	s := newPool(t, "")
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	const secret = "the secret of this machine"
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte(secret), 0o644); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 30)
	for _, c := range []struct{ name, script, kind, path string }{
		{"a link to a file", "ln -s " + dir + "/secret /out", "file", "/out"},
		{"a link upwards", "ln -s " + up + dir + "/secret /out", "file", "/out"},
		{"a link to a folder above", "ln -s " + dir + " /out", "file", "/out/secret"},
		{"a link to /etc", "ln -s /etc/shadow /out", "file", "/out"},
		{"a link of /proc", "ln -s /proc/1/root" + dir + "/secret /out", "file", "/out"},
		{"the same as text", "ln -s " + dir + "/secret /out", "text", "/out"},
		{"a folder that is a link", "ln -s " + dir + " /out", "folder", "/out"},
		{"links in a folder", "mkdir /out\nln -s " + dir + "/secret /out/a\nln -s " + up + dir + " /out/b\nln -s /etc/shadow /out/c", "folder", "/out"},
		{"a path upwards", "true", "file", "/tmp/" + up + dir + "/secret"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := s.one(container(t.Name(), c.script, "outputs: {o: {type: "+c.kind+", path: \""+c.path+"\"}}"))
			var left []byte
			for _, n := range s.nodes(r.ID) {
				if n.Kind != "task" {
					continue
				}
				if n.Phase == "succeeded" && c.name != "links in a folder" || n.Phase != "succeeded" && !strings.Contains(n.Message, "output o") {
					t.Errorf("%s: %s", n.Phase, n.Message)
				}
				x, err := s.client.Node(t.Context(), r.ID, n.ID)
				if err != nil {
					t.Fatal(err)
				}
				left = fmt.Appendf(nil, "%v", x.Outputs)
				if b, err := s.client.Artifact(t.Context(), r.ID, n.ID, "o"); err == nil {
					all, err := io.ReadAll(b)
					if err != nil {
						t.Error(err)
					}
					b.Close()
					left = append(left, all...)
				}
			}
			shadow, _ := os.ReadFile("/etc/shadow")
			if bytes.Contains(left, []byte(secret)) || len(shadow) > 0 && bytes.Contains(left, shadow[:min(len(shadow), 20)]) {
				t.Errorf("a task left what is not its own: %.200q", left)
			}
		})
	}
	end(t, s.life)
}

// A program that prints far more than is kept of it goes on to its end; what is
// kept is bounded on the way and on disk, and that it is not all is said.
func TestPrintsMuch(t *testing.T) {
	megabytes := 300
	if soak() {
		megabytes = 2000
	}
	s := newPool(t, ", log_limit: 1MiB")
	begun := time.Now()
	id := s.hand(wire.Submission{Document: wire.Document{Text: container(t.Name(), fmt.Sprintf("yes 'a line of what it prints, which is not very long but there are many' | head -c %d\necho the last line", megabytes<<20))}})
	r := s.wait(id, 5*time.Minute)
	took := time.Since(begun)
	rss := memory(t, s.life, "VmHWM")
	kept, cut := 0, int64(0)
	for _, l := range s.lines(id, client.LogQuery{}) {
		kept += len(l.Text)
		cut += l.Cut
	}
	size := int64(0)
	for _, dir := range []string{"logs", "blobs"} {
		_ = filepath.WalkDir(filepath.Join(s.data, dir), func(_ string, e os.DirEntry, err error) error {
			if info, infoErr := e.Info(); err == nil && infoErr == nil && e.Type().IsRegular() {
				size += info.Size()
			}
			return nil
		})
	}
	t.Logf("%d MB in %v; memory %d MiB, disk %d KiB; %d bytes kept, %d cut", megabytes, took.Round(time.Millisecond), rss>>20, size>>10, kept, cut)
	if r.Phase != "succeeded" || cut < int64(megabytes-2)<<20 || kept < 1<<19 || kept > 2<<20 {
		t.Errorf("%+v: %d bytes are kept, %d are said to be cut", r, kept, cut)
	}
	if rss > 256<<20 {
		t.Errorf("the server took %d MiB", rss>>20)
	}
	if size > 16<<20 {
		t.Errorf("%d MiB are on disk", size>>20)
	}
	end(t, s.life)
}

// An image that is not there, or not for this machine, is told by name, soon.
func TestWrongImages(t *testing.T) {
	t.Parallel()
	s := newPool(t, "")
	base, err := images.Build(t.Context(), os.Stderr, busybox)
	if err != nil {
		t.Fatal(err)
	}
	f, err := base[0].Image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	f = f.DeepCopy()
	f.Architecture = "s390x"
	other, err := mutate.ConfigFile(base[0].Image, f)
	if err != nil {
		t.Fatal(err)
	}
	if err := (images.Image{Refs: []string{"other/machine:1"}, Image: other}).Push(t.Context(), s.registry()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, image, want string }{
		{"unknown", s.registry() + "/no/such:1", "no/such:1"},
		{"unknown tag", s.registry() + "/" + strings.TrimSuffix(busybox, "latest") + "none", "busybox:none"},
		{"no host", "no-such-host.invalid/a:1", "no-such-host.invalid"},
		{"another architecture", "other/machine:1", "s390x"},
	} {
		if c.name == "no host" && !soak() {
			continue // it may be there in a moment: it is asked several times
		}
		t.Run(c.name, func(t *testing.T) {
			begun := time.Now()
			r := s.one(strings.ReplaceAll(container(t.Name(), "true"), busybox, c.image))
			if r.Phase == "succeeded" || !strings.Contains(r.Message, c.want) {
				t.Errorf("%s: %s\n%s", r.Phase, r.Message, s.tree(r.ID))
			}
			t.Logf("after %v: %s", time.Since(begun).Round(time.Millisecond), r.Message)
		})
	}
	end(t, s.life)
}

// The server is killed under the containers it runs itself: they end with it,
// and their tasks run again.
func TestKillPool(t *testing.T) {
	t.Parallel()
	rounds := 4
	if soak() {
		rounds = 40
	}
	rng := choices(t)
	s := newPool(t, "")
	mark := t.Name()
	var ids []string
	for range rounds {
		ids = append(ids, s.hand(wire.Submission{Document: wire.Document{Text: container(mark, "sleep 0.1\necho $N", "forEach: {count: 6}", "outputs: {n: json}") + "  outputs: {all: {type: json, value: \"${{ tasks.a.outputs.n }}\"}}\n"}}))
		time.Sleep(time.Duration(rng.IntN(600)) * time.Millisecond)
		s.life.Kill()
		gone(t, mark, 5*time.Second)
		s.start()
	}
	for _, id := range ids {
		if r := s.wait(id, time.Minute); r.Phase != "succeeded" || r.Tasks.Succeeded != 6 {
			t.Errorf("%+v\n%s", r, s.tree(id))
		}
	}
	end(t, s.life)
	gone(t, mark, time.Second)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), s.data) {
		t.Errorf("something is still mounted below %s", s.data)
	}
}
