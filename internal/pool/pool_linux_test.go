package pool

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/upstream"
	"cairn.dev/cairn/internal/worker"
)

func with(t task.Task, f func(*task.Task)) task.Task {
	f(&t)
	return t
}

func TestTasks(t *testing.T) {
	w := newWorld(t, nil)
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
		{"says who and where it is", sh("id -u; id -g; hostname; pwd; echo $HOME"), func(e ended) bool { return e.result() == "0\n0\ntask\n/\n/" }},
		{"streams", sh("echo out; echo err >&2"), func(e ended) bool { return e.out == "out\n" && e.err == "err\n" }},
		{"exit code", sh("exit 3"), func(e ended) bool { return e.Phase == task.Failed && e.Exit == 3 }},
		{"variables", with(sh("echo $CAIRN_RUN $CAIRN_TASK $CAIRN_ATTEMPT $CAIRN_IDEMPOTENCY_KEY $X; env | wc -l"), func(t *task.Task) {
			t.Env = []task.Env{{Name: "X", Value: "a  b"}}
		}), func(e ended) bool { return strings.HasPrefix(e.result(), "r t 1 k a b\n") && len(e.result()) < 16 }},
		{"script", with(sh(""), func(t *task.Task) { t.Command, t.Script = []string{"sh"}, "echo from a file" }), func(e ended) bool { return e.result() == "from a file" }},
		{"the image's own command", task.Task{}, func(e ended) bool { return e.Phase == task.Succeeded }},
		{"user by name", with(sh("id -u; id -g; touch /tmp/x; touch /etc/x || echo no"), func(t *task.Task) { t.User = "nobody" }), func(e ended) bool { return e.result() == "65534\n65534\nno" }},
		{"user by number", with(sh("id -u; id -g"), func(t *task.Task) { t.User = "1000:100" }), func(e ended) bool { return e.result() == "1000\n100" }},
		{"no such user", with(sh(""), func(t *task.Task) { t.User = "nosuch" }), func(e ended) bool {
			return e.Phase == task.Errored && !e.Infrastructure && has(e.Message, "/etc/passwd")
		}},
		{"user out of range", with(sh("id"), func(t *task.Task) { t.User = "70000" }), func(e ended) bool {
			return e.Phase == task.Errored && !e.Infrastructure && has(e.Message, "70000")
		}},
		{"working folder", with(sh("pwd"), func(t *task.Task) { t.WorkDir = "/new/one" }), func(e ended) bool { return e.result() == "/new/one" }},
		{"inputs", with(sh("cat /in/small /in/large /in/tree/a/b.txt; stat -c %u /in/small"), func(t *task.Task) {
			t.Inputs = []task.Input{{Name: "s", Path: "/in/small", Content: []byte("é\n")}, {Name: "l", Path: "/in/large", Digest: "sha256:bb"}, {Name: "t", Path: "/in/tree", Digest: "sha256:aa", Folder: true}}
		}), func(e ended) bool { return e.result() == "é\nblobhi0" }},
		{"no such input", with(sh(""), func(t *task.Task) { t.Inputs = []task.Input{{Name: "s", Path: "/in", Digest: "sha256:cc"}} }), func(e ended) bool {
			return e.Phase == task.Errored && !e.Infrastructure && has(e.Message, "404")
		}},
		{"outputs", with(sh("mkdir -p /out/f; echo x > /out/f/x; chmod 0 /out/f/x; printf v > /out/p"), func(t *task.Task) {
			t.Outputs = []task.Output{{Name: "p", Kind: task.Parameter, Path: "/out/p"}, {Name: "f", Kind: task.Artifact, Path: "/out/f"}}
		}), func(e ended) bool {
			return *e.Outputs["p"].Text == "v" && e.Outputs["f"].Folder && bytes.Contains(w.bytes.blobs[e.Outputs["f"].Digest], []byte("x\n"))
		}},
		{"output is missing", with(sh(""), func(t *task.Task) {
			t.Outputs = []task.Output{{Name: "p", Kind: task.Parameter, Path: "/out/p"}}
		}), func(e ended) bool { return e.Phase == task.Errored && has(e.Message, "not there") }},
		{"volumes are new", with(sh("ls -A /data; touch /data/x; touch /ro/x 2>/dev/null || echo ro"), func(t *task.Task) {
			t.Volumes = []task.Volume{{Name: "a", Path: "/data"}, {Name: "b", Path: "/ro", ReadOnly: true}}
		}), func(e ended) bool { return e.result() == "ro" }},
		{"no such image", with(sh(""), func(t *task.Task) { t.Image = "nosuch" }), func(e ended) bool {
			return e.Phase == task.Errored && !e.Infrastructure && has(e.Message, "nosuch")
		}},
		{"no image", with(sh(""), func(t *task.Task) { t.Image = " " }), func(e ended) bool { return e.Phase == task.Errored }},
		{"fields of a cluster", with(sh(""), func(t *task.Task) { t.Pod = map[string]any{"nodeSelector": 1, "affinity": 2} }), func(e ended) bool {
			return e.Phase == task.Errored && has(e.Message, "affinity, nodeSelector")
		}},
		{"more than the machine", with(sh(""), func(t *task.Task) { t.CPU = 1_000_500 }), func(e ended) bool {
			return e.Phase == task.Errored && has(e.Message, "1000.500 processors")
		}},
		{"more memory than the machine", with(sh(""), func(t *task.Task) { t.Memory = 1 << 50 }), func(e ended) bool {
			return e.Phase == task.Errored && has(e.Message, "1073741824 MiB")
		}},
		{"isolation is what it is", with(sh(""), func(t *task.Task) { t.Isolation = "shared" }), func(e ended) bool { return e.Isolation == "overlay" }},
		{"no such isolation", with(sh(""), func(t *task.Task) { t.Isolation = "perfect" }), func(e ended) bool { return e.Phase == task.Errored }},
		{"no request is made", task.Task{HTTP: &task.HTTP{}}, func(e ended) bool { return e.Phase == task.Errored }},
		{"a volume over /proc", with(sh(""), func(t *task.Task) { t.Volumes = []task.Volume{{Name: "a", Path: "/proc/x"}} }), func(e ended) bool { return e.Phase == task.Errored }},
		{"a claim elsewhere", with(sh(""), func(t *task.Task) { t.Volumes = []task.Volume{{Name: "a", Path: "/x", Claim: "../l"}} }), func(e ended) bool { return e.Phase == task.Errored }},
		{"timeout, deaf", with(sh("trap '' TERM; sleep 100 & wait; sleep 100"), func(t *task.Task) { t.Timeout, t.Grace = 50*time.Millisecond, 50*time.Millisecond }), func(e ended) bool {
			return e.Phase == task.Failed && e.Exit == 137 && has(e.Message, "timeout")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if e := w.do(t.Context(), c.task); !c.ok(e) {
				t.Errorf("%+v\nresult %q\nprinted %q and %q", e.Outcome, e.result(), e.out, e.err)
			}
		})
	}
}

func has(s, part string) bool { return strings.Contains(s, part) }

// Nothing that a task does is seen by another one, but what it does to a claim.
func TestEachHasItsOwnRoot(t *testing.T) {
	w := newWorld(t, nil)
	w.busybox()
	one := with(sh("cat /bin/left /tmp/left /claim/left 2>/dev/null; echo old > /tmp/left; echo claimed > /claim/left; rm -rf /bin/ls; echo old > /bin/left"), func(t *task.Task) {
		t.Volumes = []task.Volume{{Name: "c", Path: "/claim", Claim: "mine"}}
	})
	if e := w.do(t.Context(), one); e.Phase != task.Succeeded || e.result() != "" {
		t.Fatalf("%+v %q", e, e.err)
	}
	if e := w.do(t.Context(), one); e.result() != "claimed" {
		t.Errorf("the second one saw %q", e.result())
	}
	elsewhere := with(one, func(t *task.Task) {
		t.Volumes = []task.Volume{{Name: "c", Path: "/claim", Claim: "mine", Namespace: "../other"}}
	})
	for _, want := range []string{"", "claimed"} {
		if e := w.do(t.Context(), elsewhere); e.Phase != task.Succeeded || e.result() != want {
			t.Errorf("one of another namespace saw %q, want %q", e.result(), want)
		}
	}
	if e := w.sh("ls / >/dev/null && echo there"); e.result() != "there" {
		t.Errorf("the image was changed: %+v", e)
	}
	w.Close()
	if left, err := os.ReadDir(filepath.Join(w.dir, tasksDir)); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	w.open(nil)
	if e := w.do(t.Context(), one); e.result() != "claimed" {
		t.Errorf("the next pool's task saw %q", e.result())
	}
}

// What a task sees of this machine, and what it may do to it.
func TestNothingOfTheMachine(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("s3cret"), 0o644); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("open\n"))
			_ = c.Close()
		}
	}()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, nil)
	w.busybox()
	for _, c := range []struct{ name, script, want string }{
		{"its files", "cat " + secret + " " + w.dir + "/l 2>/dev/null; ls / | tr '\\n' ' '", "bin dev etc proc root sys tmp usr "},
		{"its processes", "ls -d /proc/[0-9]* | wc -l | xargs test 6 -gt && echo few", "few"},
		{"no new privileges", "grep -E 'NoNewPrivs|CapEff|CapBnd|CapInh|CapAmb' /proc/self/status | tr -s '\\t\\n' ' '", "CapInh: 0000000000000000 CapEff: 00000000000405fb CapBnd: 00000000000405fb CapAmb: 0000000000000000 NoNewPrivs: 1 "},
		{"mounts", "mount -t tmpfs x /tmp 2>/dev/null || echo no", "no"},
		{"mounts in a namespace of its own", "unshare -Urm mount -t tmpfs x /tmp 2>/dev/null || echo no", "no"},
		{"unmounts", "umount /proc/kcore 2>/dev/null || umount -l /proc/sys 2>/dev/null || echo no", "no"},
		{"remounts", "mount -o remount,rw,bind /proc/sys 2>/dev/null || echo no", "no"},
		{"settings", "(echo 1 > /proc/sys/kernel/sysrq) 2>/dev/null || (echo h > /proc/sysrq-trigger) 2>/dev/null || echo no", "no"},
		{"settings of its own namespaces", "(echo x > /proc/sys/kernel/hostname) 2>/dev/null || echo no", "no"},
		{"memory of the kernel", "for f in kcore keys timer_list sched_debug; do test ! -e /proc/$f || cat /proc/$f; done | wc -c", "0"},
		{"firmware", "ls -A /sys/firmware | wc -l", "0"},
		{"sysfs", "(echo 0 > /sys/kernel/mm/transparent_hugepage/enabled) 2>/dev/null || mkdir /sys/fs/cgroup/x 2>/dev/null || echo no", "no"},
		{"devices", "ls /dev | tr '\\n' ' '", "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero "},
		{"devices made", "mknod /tmp/d b 254 0 2>/dev/null || mknod /dev/d c 1 1 2>/dev/null || echo no", "no"},
		{"modules", "grep -c . /proc/modules >/dev/null 2>&1; insmod /bin/sh 2>/dev/null || echo no", "no"},
		{"raw sockets", "ping -c 1 -W 1 127.0.0.1 >/dev/null 2>&1 || echo no", "no"},
		{"the clock", "date -s 2000-01-01 2>&1 >/dev/null | grep -o 'not permitted'", "not permitted"},
		{"its network, as said", "nc -w 1 127.0.0.1 " + port + " </dev/null", "open"},
		{"names", "grep -c localhost /etc/hosts | xargs test 1 -le && cat /etc/hostname", "task"},
		{"users", "cat /proc/self/uid_map | tr -s ' '", " 0 " + strconv.Itoa(w.users.root.First) + " " + strconv.Itoa(w.users.root.Size)},
		{"groups of others", "ls /sys/fs/cgroup >/dev/null; (echo 1 > /sys/fs/cgroup/cgroup.procs) 2>/dev/null || echo no", "no"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if e := w.sh(c.script); e.result() != c.want {
				t.Errorf("%q, want %q; %+v %q", e.result(), c.want, e.Outcome, e.err)
			}
		})
	}
}

// A task's root is nobody on this machine, and neither are its files.
func TestUsersOnTheMachine(t *testing.T) {
	w := newWorld(t, nil)
	w.busybox()
	mark := "57" + strconv.Itoa(os.Getpid())
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan ended)
	go func() { done <- w.do(ctx, sh("setsid sleep "+mark+" & echo on; sleep "+mark)) }()
	var pids []string
	for len(pids) < 2 {
		pids = running(t, mark)
		time.Sleep(time.Millisecond) // for a process of the kernel's, which tells nobody
	}
	for _, pid := range pids {
		b, err := os.ReadFile("/proc/" + pid + "/status")
		if err != nil {
			t.Fatal(err)
		}
		if !has(string(b), "Uid:\t2000000000\t2000000000\t2000000000\t2000000000\n") {
			t.Errorf("on this machine it is %s", b)
		}
	}
	cancel(worker.ErrCanceled)
	if e := <-done; e.Phase != task.Canceled {
		t.Errorf("canceled, and it ended %+v", e)
	}
	if left := running(t, mark); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
}

// running are the processes whose command line is exactly sleep n.
func running(t *testing.T, n string) (pids []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && string(b) == "sleep\x00"+n+"\x00" {
			pids = append(pids, filepath.Base(filepath.Dir(f)))
		}
	}
	return pids
}

func TestBadPrograms(t *testing.T) {
	w := newWorld(t, func(c *Config, _ *Deps) { c.Processes = 200 })
	w.busybox()
	mark := "58" + strconv.Itoa(os.Getpid())
	for _, c := range []struct {
		name string
		task task.Task
		ok   func(ended) bool
	}{
		{"forks away", sh("setsid sh -c 'setsid sleep " + mark + " & sleep " + mark + " &' & echo on"), func(e ended) bool { return e.Phase == task.Succeeded && e.result() == "on" }},
		{"forks without end", with(sh("f() { setsid sleep "+mark+" & f & f & }; f; sleep "+mark), func(t *task.Task) { t.Timeout, t.Grace = 300*time.Millisecond, 50*time.Millisecond }), func(e ended) bool { return e.Phase == task.Failed }},
		{"prints without end", sh("head -c 50000000 /dev/zero"), func(e ended) bool { return e.Phase == task.Errored && has(e.Message, "too large") }},
		{"output is a link to a file of the machine", with(sh("ln -s /etc/shadow /leak; ln -s / /all"), func(t *task.Task) {
			t.Outputs = []task.Output{{Name: "p", Kind: task.Parameter, Path: "/leak"}}
		}), func(e ended) bool {
			return e.Phase == task.Errored && len(e.Outputs) == 0 && has(e.Message, "symbolic link")
		}},
		{"output below a link", with(sh("ln -s /proc/1/cwd/etc /out"), func(t *task.Task) {
			t.Outputs = []task.Output{{Name: "p", Kind: task.Parameter, Path: "/out/shadow"}}
		}), func(e ended) bool { return e.Phase == task.Errored && len(e.Outputs) == 0 }},
		{"output is a device", with(sh("true"), func(t *task.Task) {
			t.Outputs = []task.Output{{Name: "p", Kind: task.Artifact, Path: "/dev/zero"}}
		}), func(e ended) bool { return e.Phase == task.Errored && has(e.Message, "a device") }},
		{"kills its keeper", sh("kill -9 1; kill -9 -1; echo on"), func(e ended) bool { return e.Phase == task.Succeeded || e.Exit == 137 }},
		{"takes all memory", with(sh("x=x; while :; do x=$x$x; done"), func(t *task.Task) { t.Memory = 64 << 20 }), func(e ended) bool {
			return e.Phase == task.Failed && (e.Message == "killed: out of memory" || w.groups == nil)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "takes all memory" && w.groups == nil {
				c.task.Timeout = 10 * time.Millisecond // nothing stops it here
			}
			if e := w.do(t.Context(), c.task); !c.ok(e) {
				t.Errorf("%+v\nresult %.50q\nprinted %.50q and %.200q", e.Outcome, e.result(), e.out, e.err)
			}
			if left := running(t, mark); len(left) > 0 {
				t.Errorf("%d processes are left", len(left))
			}
		})
	}
}

// The fault of the network spends no retries, and that of whoever wrote the
// task is told him.
func TestWhoseFault(t *testing.T) {
	w := newWorld(t, nil)
	for _, c := range []struct {
		err            error
		infrastructure bool
	}{
		{&upstream.Error{Kind: upstream.Unreachable, Host: "h", Why: "down"}, true},
		{&upstream.Error{Kind: upstream.Unreachable, Host: "h", Why: "no such host", Cause: &net.DNSError{Name: "h", IsNotFound: true}}, false},
		{&upstream.Error{Kind: upstream.Unreachable, Host: "h", Why: "no answer today", Cause: &net.DNSError{Name: "h", IsTemporary: true}}, true},
		{&upstream.Error{Kind: upstream.Busy, Host: "h", Why: "busy"}, true},
		{&upstream.Error{Kind: upstream.NotFound, Host: "h", Why: "not there"}, false},
		{ErrNoImage, false},
		{errors.New("disk full"), true},
	} {
		w.shelf.broken = c.err
		if e := w.sh("true"); e.Phase != task.Errored || e.Infrastructure != c.infrastructure || !has(e.Message, c.err.Error()) {
			t.Errorf("%v: %+v", c.err, e.Outcome)
		}
	}
}
