package pool

import (
	"archive/tar"
	"bytes"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/worker"
	"cairn.dev/cairn/test/parts"
)

// engine is a world whose tasks run in containers of a real podman.
func newEngineWorld(t *testing.T) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		parts.Missing(t, "podman's containers are made by root here")
	}
	parts.Apt(t, "podman", "runc")
	dir := t.TempDir()
	w := &world{t: t, dir: dir, shelf: newShelf(), bytes: &bytesOf{blobs: map[string][]byte{}}, clock: clock.Real(), log: &bytes.Buffer{}}
	// Its default is more than this machine may give.
	conf := filepath.Join(dir, "containers.conf")
	if err := os.WriteFile(conf, []byte("[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CONTAINERS_CONF", conf)
	podman := []string{"podman", "--runtime", "runc", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--root", dir + "/store", "--runroot", dir + "/run"}
	e, err := NewEngine(t.Context(), EngineConfig{Command: podman, Config: Config{Dir: dir + "/pool"}},
		Deps{Images: w.shelf, Exchange: w.bytes, Clock: w.clock, Log: slog.New(slog.NewTextHandler(&locked{w: w.log}, nil))})
	if err != nil {
		parts.Missing(t, err.Error())
	}
	t.Cleanup(func() {
		e.Close()
		out, err := exec.Command(podman[0], append(podman[1:], "ps", "--all", "--quiet")...).Output()
		if err != nil || len(bytes.TrimSpace(out)) > 0 {
			t.Errorf("containers are left: %s, %v", out, err)
		}
	})
	w.runner = e
	return w
}

func TestEngine(t *testing.T) {
	w := newEngineWorld(t)
	w.busybox()
	var tree bytes.Buffer
	tw := tar.NewWriter(&tree)
	_ = tw.WriteHeader(&tar.Header{Name: "a/b.txt", Typeflag: tar.TypeReg, Mode: 0o644, Size: 2})
	_, _ = tw.Write([]byte("hi"))
	_ = tw.Close()
	w.bytes.blobs["sha256:aa"], w.bytes.blobs["sha256:bb"] = tree.Bytes(), []byte("blob")
	for _, c := range []struct {
		name string
		task task.Task
		ok   func(e ended) bool
	}{
		{"streams and result", sh("echo out; echo err >&2; id -u; hostname; cat /proc/self/uid_map | tr -s ' '"), func(e ended) bool {
			return e.result() == "out\n0\ntask\n 0 2000000000 65536" && has(e.err, "err\n")
		}},
		{"exit code", sh("exit 3"), func(e ended) bool { return e.Phase == task.Failed && e.Exit == 3 && e.Message == "exit code 3" }},
		{"variables", with(sh("echo $CAIRN_RUN $CAIRN_TASK $X; pwd"), func(t *task.Task) {
			t.Env, t.WorkDir = []task.Env{{Name: "X", Value: "a\nb"}}, "/new"
		}), func(e ended) bool { return e.result() == "r t a b\n/new" }},
		{"script and inputs", with(sh(""), func(t *task.Task) {
			t.Command, t.Script = []string{"sh"}, "cat /in/small /in/large /in/tree/a/b.txt"
			t.Inputs = []task.Input{{Name: "s", Path: "/in/small", Content: []byte("é\n")}, {Name: "l", Path: "/in/large", Digest: "sha256:bb"}, {Name: "t", Path: "/in/tree", Digest: "sha256:aa", Folder: true}}
		}), func(e ended) bool { return e.result() == "é\nblobhi" }},
		{"outputs", with(sh("mkdir -p /out/f/g; echo x > /out/f/g/x; ln -s /etc/passwd /out/f/l; printf v > /out/p"), func(t *task.Task) {
			t.Outputs = []task.Output{{Name: "p", Kind: task.Parameter, Path: "/out/p"}, {Name: "f", Kind: task.Artifact, Path: "/out/f"}, {Name: "a", Kind: task.Artifact, Path: "/out/p"}}
		}), func(e ended) bool {
			folder := w.bytes.blobs[e.Outputs["f"].Digest]
			return e.Phase == task.Succeeded && *e.Outputs["p"].Text == "v" && e.Outputs["f"].Folder && bytes.Contains(folder, []byte("g/x")) && !bytes.Contains(folder, []byte("root:")) &&
				string(w.bytes.blobs[e.Outputs["a"].Digest]) == "v"
		}},
		{"output is missing", with(sh(""), func(t *task.Task) {
			t.Outputs = []task.Output{{Name: "p", Kind: task.Parameter, Path: "/nosuch"}}
		}), func(e ended) bool { return e.Phase == task.Errored && has(e.Message, "not there") }},
		{"output is a link out", with(sh("ln -s "+w.dir+" /leak"), func(t *task.Task) {
			t.Outputs = []task.Output{{Name: "p", Kind: task.Artifact, Path: "/leak"}}
		}), func(e ended) bool { return e.Phase == task.Errored && len(e.Outputs) == 0 }},
		{"output is a link to what both have", with(sh("ln -s /etc/passwd /leak"), func(t *task.Task) {
			t.Outputs = []task.Output{{Name: "p", Kind: task.Parameter, Path: "/leak"}}
		}), func(e ended) bool { // engines follow it, in the container
			return e.Phase == task.Errored || !has(*e.Outputs["p"].Text, "daemon")
		}},
		{"no such program", task.Task{Command: []string{"nosuch"}}, func(e ended) bool { return e.Phase == task.Errored }},
		{"timeout, deaf", with(sh("trap '' TERM; sleep 100 & wait; sleep 100"), func(t *task.Task) { t.Timeout, t.Grace = time.Second, 50*time.Millisecond }), func(e ended) bool {
			return e.Phase == task.Failed && e.Exit == 137 && has(e.Message, "timeout")
		}},
		{"powers", sh("grep -E 'NoNewPrivs|CapEff' /proc/self/status | tr -s '\\t\\n' ' '"), func(e ended) bool {
			return e.result() == "CapEff: 00000000000405fb NoNewPrivs: 1 "
		}},
		{"fields of a cluster", with(sh(""), func(t *task.Task) { t.Pod = map[string]any{"affinity": 2} }), func(e ended) bool {
			return e.Phase == task.Errored && has(e.Message, "affinity")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if e := w.do(t.Context(), c.task); !c.ok(e) {
				t.Errorf("%+v\nresult %q\nprinted %q and %q", e.Outcome, e.result(), e.out, e.err)
			}
		})
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(worker.ErrCanceled)
	if e := w.do(ctx, with(sh("sleep 100"), func(t *task.Task) { t.Grace = time.Millisecond })); e.Phase != task.Canceled {
		t.Errorf("%+v", e.Outcome)
	}
	if left, err := filepath.Glob(filepath.Join(w.dir, "pool", "engine", "*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestNoEngine(t *testing.T) {
	_, err := NewEngine(t.Context(), EngineConfig{Command: []string{"no-such-engine"}, Config: Config{Dir: t.TempDir()}}, Deps{Images: newShelf(), Exchange: &bytesOf{}, Clock: clock.Real()})
	if err == nil || !strings.Contains(err.Error(), "no-such-engine") {
		t.Errorf("%v", err)
	}
}

func TestDockerOfRoot(t *testing.T) {
	for name, c := range map[string]struct {
		info dockerInfo
		want bool
	}{
		"as it comes": {dockerInfo{SecurityOptions: []string{"name=seccomp,profile=builtin", "name=cgroupns"}, OperatingSystem: "Debian"}, true},
		"remapped":    {dockerInfo{SecurityOptions: []string{"name=seccomp,profile=builtin", "name=userns"}, OperatingSystem: "Debian"}, false},
		"rootless":    {dockerInfo{SecurityOptions: []string{"name=rootless"}, OperatingSystem: "Debian"}, false},
		"desktop":     {dockerInfo{OperatingSystem: "Docker Desktop"}, false},
	} {
		if got := c.info.rootful(); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
