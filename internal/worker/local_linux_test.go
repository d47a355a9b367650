package worker

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/worker/isolate"
)

// runs works through tasks in a container that is this machine.
func runs(t *testing.T, slots int, b *book, n int) []task.Outcome {
	t.Helper()
	scratch := filepath.Join(t.TempDir(), "scratch")
	// What a worker left that was killed.
	for _, dir := range []string{"t1/u0/usr", "t1/u1/bin", "t1/w0/work", "t2/root", "base/etc", "try"} {
		if err := os.MkdirAll(filepath.Join(scratch, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"t1/u0/usr/stale", "t1/u1/stale", "base/etc/stale"} {
		if err := os.WriteFile(filepath.Join(scratch, file), []byte("old"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l, err := NewLocal(LocalConfig{Place: isolate.Place{Scratch: scratch}, Slots: slots, Env: []string{"INHERITED=1"}}, b, clock.Real(), nil)
	if err != nil {
		t.Fatal(err)
	}
	w, err := New(Config{Name: "w", Pool: "p", Slots: slots, Beat: 20 * time.Millisecond}, Deps{Server: b, Runner: l, Clock: clock.Real()})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- w.Run(t.Context()) }()
	out := b.results(t, n)
	b.with(func() { b.drain = true })
	if err := <-done; err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(scratch); err != nil || len(left) > 2 { // the copies, and what was tried
		t.Errorf("left in the scratch folder: %v, %v", left, err)
	}
	return out
}

var result = []task.Output{{Name: "result", Kind: task.Result}}

// levels are those that tasks get when they ask.
func levels(t *testing.T, f func(t *testing.T, level string)) {
	for _, level := range []string{"shared", "overlay"} {
		t.Run(level, func(t *testing.T) { f(t, level) })
	}
}

func TestTasks(t *testing.T) {
	levels(t, func(t *testing.T, level string) {
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		def := "default"
		var tarball bytes.Buffer
		tw := tar.NewWriter(&tarball)
		_ = tw.WriteHeader(&tar.Header{Name: "a/b.txt", Typeflag: tar.TypeReg, Mode: 0o644, Size: 2})
		_, _ = tw.Write([]byte("hi"))
		_ = tw.Close()
		b := newBook()
		b.blobs["sha256:aa"], b.blobs["sha256:bb"] = tarball.Bytes(), []byte("blob")
		cases := []struct {
			name  string
			task  task.Task
			check func(o task.Outcome) string
		}{
			{"result", with(sh("echo one; echo two >&2; printf 'th ree\n\n'"), func(t *task.Task) { t.Outputs = result }), func(o task.Outcome) string {
				return want(o.Phase == task.Succeeded && text(o, "result") == "one\nth ree\n")
			}},
			{"exit code", sh("exit 3"), func(o task.Outcome) string {
				return want(o.Phase == task.Failed && o.Exit == 3 && o.Message == "exit code 3")
			}},
			{"signal", sh("kill -SEGV $$"), func(o task.Outcome) string { return want(o.Phase == task.Failed && o.Exit == 139) }},
			{"timeout", with(sh("trap '' TERM; sleep 100 & wait; sleep 100"), func(t *task.Task) { t.Timeout, t.Grace = 50*time.Millisecond, 50*time.Millisecond }), func(o task.Outcome) string {
				return want(o.Phase == task.Failed && o.Exit == 137 && has(o.Message, "timeout of 50ms"))
			}},
			{"variables", with(sh("echo $CAIRN_RUN $CAIRN_TASK $CAIRN_ATTEMPT $CAIRN_IDEMPOTENCY_KEY $INHERITED $X; touch $HOME/x $TMPDIR/y"), func(t *task.Task) {
				t.Outputs, t.Env = result, []task.Env{{Name: "X", Value: "1"}, {Name: "X", Value: "a  b"}}
			}), func(o task.Outcome) string {
				return want(text(o, "result") == "r "+o.Task+" 1 key"+o.Task+" 1 a b")
			}},
			{"new homes", with(sh("ls -A $HOME $TMPDIR | grep -v : | tr -d '\n'"), func(t *task.Task) { t.Outputs = result }), func(o task.Outcome) string { return want(text(o, "result") == "") }},
			{"script", with(task.Task{Command: []string{"sh"}, Script: "echo from a file", Outputs: result}, nil), func(o task.Outcome) string { return want(text(o, "result") == "from a file") }},
			{"user", with(sh("id -u; id -g; echo ok > $HOME/y"), func(t *task.Task) { t.User, t.Outputs = "nobody", result }), func(o task.Outcome) string {
				return want(o.Exit == 0 && text(o, "result") == "65534\n65534")
			}},
			{"no such user", with(sh(""), func(t *task.Task) { t.User = "nosuch" }), func(o task.Outcome) string {
				return want(o.Phase == task.Errored && !o.Infrastructure && has(o.Message, "/etc/passwd"))
			}},
			{"inputs", with(sh("cat "+dir+"/in/small "+dir+"/in/large "+dir+"/in/tree/a/b.txt"), func(t *task.Task) {
				t.Outputs = result
				t.Inputs = []task.Input{{Name: "s", Path: dir + "/in/small", Content: []byte("é\n")}, {Name: "l", Path: dir + "/in/large", Digest: "sha256:bb"}, {Name: "t", Path: dir + "/in/tree", Digest: "sha256:aa", Folder: true}}
			}), func(o task.Outcome) string { return want(text(o, "result") == "é\nblobhi") }},
			{"no such input", with(sh("echo"), func(t *task.Task) { t.Inputs = []task.Input{{Name: "l", Path: dir + "/l", Digest: "sha256:cc"}} }), func(o task.Outcome) string {
				return want(o.Phase == task.Errored && !o.Infrastructure && has(o.Message, "404"))
			}},
			{"outputs", with(sh("mkdir -p "+dir+"; cd "+dir+"; mkdir -p f/g; echo x > f/g/h; ln -s /etc/passwd f/link; printf v > p; rm -rf f/fifo; mkfifo f/fifo; exit 0"), func(t *task.Task) {
				t.Outputs = []task.Output{{Name: "p", Kind: task.Parameter, Path: dir + "/p"}, {Name: "d", Kind: task.Parameter, Path: dir + "/none", Default: &def}, {Name: "o", Kind: task.Artifact, Path: dir + "/none", Optional: true}, {Name: "f", Kind: task.Artifact, Path: dir + "/f"}}
			}), func(o task.Outcome) string {
				blob := b.blobs[o.Outputs["f"].Digest]
				return want(o.Phase == task.Succeeded && text(o, "p") == "v" && text(o, "d") == def && len(o.Outputs) == 3 && o.Outputs["f"].Folder && has(string(blob), "g/h") && !has(string(blob), "root:"))
			}},
			{"output is missing", with(sh("true"), func(t *task.Task) {
				t.Outputs = []task.Output{{Name: "p", Kind: task.Parameter, Path: dir + "/none"}}
			}), func(o task.Outcome) string {
				return want(o.Phase == task.Errored && has(o.Message, "output p") && has(o.Message, "not there"))
			}},
			{"outputs of one that failed", with(sh("mkdir -p "+dir+"; printf v > "+dir+"/q; exit 2"), func(t *task.Task) {
				t.Outputs = []task.Output{{Name: "n", Kind: task.Parameter, Path: dir + "/none"}, {Name: "q", Kind: task.Parameter, Path: dir + "/q"}}
			}), func(o task.Outcome) string {
				return want(o.Phase == task.Failed && o.Exit == 2 && text(o, "q") == "v")
			}},
			{"output is a link to a secret", with(sh("mkdir -p "+dir+"; ln -sf /etc/passwd "+dir+"/leak"), func(t *task.Task) {
				t.Outputs = []task.Output{{Name: "p", Kind: task.Parameter, Path: dir + "/leak"}}
			}), func(o task.Outcome) string {
				return want(o.Phase == task.Errored && len(o.Outputs) == 0 && has(o.Message, "symbolic link"))
			}},
			{"output is a pipe", with(sh("mkdir -p "+dir+"; mkfifo "+dir+"/pipe"), func(t *task.Task) {
				t.Outputs = []task.Output{{Name: "p", Kind: task.Artifact, Path: dir + "/pipe"}}
			}), func(o task.Outcome) string { return want(o.Phase == task.Errored && has(o.Message, "a pipe")) }},
			{"prints without end", with(sh("head -c 20000000 /dev/zero | tr '\\0' 'x'"), func(t *task.Task) { t.LogLimit = 1000 }), func(o task.Outcome) string {
				return want(o.Phase == task.Succeeded && o.Truncated == 20000000-1000 && len(b.printed[o.Task+"/1"]) == 1000)
			}},
			{"result without end", with(sh("head -c 2000000 /dev/zero"), func(t *task.Task) { t.Outputs = result }), func(o task.Outcome) string {
				return want(o.Phase == task.Errored && has(o.Message, "too large"))
			}},
			{"forks away", with(sh("setsid sleep 4242424 & echo on"), func(t *task.Task) { t.Outputs = result }), func(o task.Outcome) string {
				return want(o.Phase == task.Succeeded && text(o, "result") == "on")
			}},
			{"no such program", task.Task{Command: []string{"nosuch"}}, func(o task.Outcome) string { return want(o.Phase == task.Errored && o.Exit == 127) }},
			{"no such isolation", with(sh(""), func(t *task.Task) { t.Isolation = "perfect" }), func(o task.Outcome) string { return want(o.Phase == task.Errored && has(o.Message, "overlay")) }},
		}
		for _, c := range cases {
			if c.task.Isolation == "" {
				c.task.Isolation = level
			}
			b.tasks = append(b.tasks, c.task)
		}
		out := runs(t, 2, b, len(cases))
		for i, c := range cases {
			o := out[i]
			if problem := c.check(o); problem != "" {
				t.Errorf("%s: %s: %+v, result %q, printed %.100q", c.name, problem, o, text(o, "result"), b.printed[o.Task+"/2"])
			}
			if o.Isolation != level && c.task.Isolation == level {
				t.Errorf("%s: ran %s", c.name, o.Isolation)
			}
		}
		if b.printed["0/1"] != "one\nth ree\n\n" || b.printed["0/2"] != "two\n" {
			t.Errorf("printed %q and %q", b.printed["0/1"], b.printed["0/2"])
		}
	})
}

func with(t task.Task, f func(*task.Task)) task.Task {
	if f != nil {
		f(&t)
	}
	return t
}

func want(ok bool) string {
	if ok {
		return ""
	}
	return "not what was wanted"
}

// A task never sees what another one left.
func TestNothingStale(t *testing.T) {
	mark := filepath.Join("/var/tmp", fmt.Sprint("cairn-stale-", os.Getpid()))
	script := "cat " + mark + " /usr/bin/stale /tmp/stale /dev/shm/stale 2>/dev/null; for f in " + mark + " /usr/bin/stale /tmp/stale /dev/shm/stale; do echo old > $f; done"
	var tasks []task.Task
	for range 6 {
		tasks = append(tasks, with(sh(script), func(t *task.Task) { t.Outputs = result }))
	}
	for i, o := range runs(t, 2, newBook(tasks...), len(tasks)) {
		if o.Phase != task.Succeeded || o.Isolation != "overlay" || text(o, "result") != "" {
			t.Errorf("task %d: %+v saw %q", i, o, text(o, "result"))
		}
	}
	if _, err := os.Stat(mark); err == nil {
		_ = os.Remove(mark)
		t.Error("a task wrote on this machine")
	}
}

func TestVolumesAreNew(t *testing.T) {
	one := with(sh("ls -A /usr/share /data/v; echo x > /usr/share/y; echo x > /data/v/y"), func(t *task.Task) {
		t.Outputs, t.Isolation = result, "overlay"
		t.Volumes = []task.Volume{{Name: "a", Path: "/usr/share"}, {Name: "b", Path: "/data/v"}}
	})
	for _, o := range runs(t, 1, newBook(one, one), 2) {
		if got := strings.Fields(text(o, "result")); o.Phase != task.Succeeded || len(got) != 2 {
			t.Errorf("%+v saw %q", o, got)
		}
	}
}

// After a task that may have left something nobody is told that he is alone.
func TestSharedTaints(t *testing.T) {
	shared, auto := with(sh("true"), func(t *task.Task) { t.Isolation = "shared" }), sh("true")
	out := runs(t, 1, newBook(auto, shared, auto), 3)
	if out[0].Isolation != "overlay" || out[1].Isolation != "shared" || out[2].Phase != task.Errored || !has(out[2].Message, "shared has run") {
		t.Errorf("%+v", out)
	}
}

// A server that is away when bytes come or go is waited for; one that says no is not.
func TestBytesWait(t *testing.T) {
	down := fmt.Errorf("%w: connection reset", ErrAway)
	for _, c := range []struct {
		name   string
		breaks []error
		ok     bool
	}{
		{"never", nil, true},
		{"away", []error{down, &Refusal{Status: 503}, down, &Refusal{Status: 507}}, true}, // the first one is an input's
		{"refused", []error{nil, &Refusal{Status: 409}}, false},
	} {
		b := newBook(with(sh("cat /in > /out"), func(t *task.Task) {
			t.Isolation = "overlay"
			t.Inputs = []task.Input{{Name: "in", Path: "/in", Digest: "sha256:aa"}}
			t.Outputs = []task.Output{{Name: "out", Kind: task.Artifact, Path: "/out"}}
		}))
		b.blobs["sha256:aa"], b.breaks = []byte("all of it"), c.breaks
		o := runs(t, 1, b, 1)[0]
		if got := string(b.blobs[o.Outputs["out"].Digest]); (o.Phase == task.Succeeded && got == "all of it") != c.ok {
			t.Errorf("%s: %+v, %q", c.name, o, got)
		}
		if len(b.breaks) > 0 {
			t.Errorf("%s: given up before %v", c.name, b.breaks)
		}
	}
}

// Tasks of different users, with inputs and without, follow each other in a slot.
func TestUsersTakeTurns(t *testing.T) {
	seen := "ls -A $HOME $TMPDIR /tmp | grep -v : | grep -v '^.cairn' | tr -d '\n'; stat -c '%u %a' $HOME $TMPDIR | sort -u | tr '\n' ' '; test -e /usr/in && echo in; echo x > $HOME/x && echo x > $TMPDIR/y && echo x > /tmp/z"
	var tasks []task.Task
	var want []string
	for i := range 24 {
		tasks = append(tasks, with(sh(seen), func(t *task.Task) {
			t.Outputs = result
			if i%3 == 1 {
				t.User = "nobody"
			}
			if i%4 == 2 {
				t.Inputs = []task.Input{{Name: "in", Path: "/usr/in", Content: []byte("x")}}
			}
			if i%5 == 3 {
				t.WorkDir = "/new/folder"
			}
		}))
		w := "0 700"
		if i%3 == 1 {
			w = "65534 700"
		}
		if i%4 == 2 {
			w += " in"
		}
		want = append(want, w)
	}
	for i, o := range runs(t, 1, newBook(tasks...), len(tasks)) {
		if got := strings.TrimSpace(text(o, "result")); o.Phase != task.Succeeded || got != want[i] {
			t.Errorf("task %d: %s %s saw %q, want %q", i, o.Phase, o.Message, got, want[i])
		}
	}
}

// A task that ends its keeper, or changes it, is the only one to suffer.
func TestKeeperIsReplaced(t *testing.T) {
	levels(t, func(t *testing.T, level string) {
		limits := with(sh("ulimit -n; ulimit -c; cat /proc/self/oom_score_adj"), func(t *task.Task) { t.Isolation, t.Outputs = level, result })
		attack := func(script string) task.Task { return with(sh(script), func(t *task.Task) { t.Isolation = level }) }
		tasks := []task.Task{limits, limits, attack("kill -KILL $PPID; exit 0"), limits, limits,
			attack("prlimit --pid $PPID --nofile=70:80 --core=5; echo 300 > /proc/$PPID/oom_score_adj"), limits, limits,
			attack("prlimit --pid $PPID --as=1000:1000"), limits, limits, limits}
		out := runs(t, 1, newBook(tasks...), len(tasks))
		for i, o := range out {
			if len(tasks[i].Outputs) == 0 {
				continue
			}
			if o.Phase != task.Succeeded || text(o, "result") != text(out[0], "result") {
				t.Errorf("task %d: %s %s saw %q, the first one %q", i, o.Phase, o.Message, text(o, "result"), text(out[0], "result"))
			}
		}
		if out[2].Phase == task.Succeeded != (level == "overlay") { // there it is PID 1, and cannot be killed from within
			t.Errorf("it killed its keeper: %+v", out[2])
		}
	})
}
