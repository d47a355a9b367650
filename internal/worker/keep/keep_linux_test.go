package keep

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"cairn.dev/cairn/internal/worker/files"
	"cairn.dev/cairn/internal/worker/isolate"
)

func TestMain(m *testing.M) {
	Main()
	if len(os.Args) == 2 && os.Getenv("HELPER") != "" {
		helper(os.Args[1])
		return
	}
	os.Exit(m.Run())
}

const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func start(t *testing.T, ns *isolate.Namespaces) *Keeper {
	t.Helper()
	k, err := New(ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

// run starts a program and returns what it printed and how it ended; during is
// called when it printed its first line.
func run(t *testing.T, k *Keeper, p Program, during func()) (string, End) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if p.Env == nil {
		p.Env = []string{path}
	}
	if err := k.Start(p, w, w); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	var out strings.Builder
	read := make(chan error)
	go func() {
		if during != nil {
			b := make([]byte, 1)
			for n, err := r.Read(b); n == 1 && err == nil && b[0] != '\n'; n, err = r.Read(b) {
				out.WriteByte(b[0])
			}
			during()
		}
		_, err := io.Copy(&out, r)
		read <- err
	}()
	end, err := k.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	return out.String(), end
}

func sh(script string, args ...string) Program {
	return Program{Args: append([]string{"sh", "-c", script, "sh"}, args...)}
}

func TestEnds(t *testing.T) {
	k := start(t, nil)
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		f := filepath.Join(dir, name)
		if err := os.WriteFile(f, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return f
	}
	for _, c := range []struct {
		name    string
		program Program
		out     string
		end     End
		failure string
	}{
		{"says and ends", sh("echo hello; echo there >&2"), "hello\nthere\n", End{}, ""},
		{"exit code", sh("exit 7"), "", End{Exit: 7}, ""},
		{"signal", sh("kill -TERM $$"), "", End{Exit: 143, Signal: 15}, ""},
		{"no input", sh("cat"), "", End{}, ""},
		{"arguments", sh(`printf '%s|' "$@"`, "a b", "", "it's\n\"x\""), "a b||it's\n\"x\"|", End{}, ""},
		{"environment is only its own", Program{Args: []string{"/usr/bin/env"}, Env: []string{"A=1"}}, "A=1\n", End{}, ""},
		{"directory", Program{Args: []string{"pwd"}, Dir: dir}, dir + "\n", End{}, ""},
		{"no such program", Program{Args: []string{"nosuch"}}, "", End{Exit: 127}, "no such program in PATH"},
		{"no such file", Program{Args: []string{"/no/such"}}, "", End{Exit: 127}, "no such file"},
		{"no interpreter", Program{Args: []string{write("interp", "#!/no/such\n", 0o755)}}, "", End{Exit: 127}, "interpreter"},
		{"other architecture", Program{Args: []string{write("arm", "\x7fELF\x02\x01\x01nothing", 0o755)}}, "", End{Exit: 126}, "another architecture"},
		{"not executable", Program{Args: []string{write("plain", "#!/bin/sh\n", 0o644)}}, "", End{Exit: 126}, "permission denied"},
		{"no directory", Program{Args: []string{"pwd"}, Dir: "/no/such"}, "", End{Exit: 126}, "working directory /no/such"},
		{"no command", Program{}, "", End{Exit: 126}, "no command"},
		{"long argument", sh("", strings.Repeat("x", 1<<20)), "", End{Exit: 126}, "as files"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, end := run(t, k, c.program, nil)
			if !strings.Contains(end.Failure, c.failure) || (c.failure == "") != (end.Failure == "") {
				t.Errorf("failure %q, want %q in it", end.Failure, c.failure)
			}
			end.Failure = ""
			if out != c.out || end != c.end {
				t.Errorf("printed %q and ended %+v, want %q and %+v", out, end, c.out, c.end)
			}
		})
	}
}

func TestUsers(t *testing.T) {
	k := start(t, nil)
	for user, want := range map[string]string{"": "0\n0\n0\n", "65534:65533": "65534\n65533\n65533\n", "nobody": "65534\n65534\n65534\n", "1234567": "1234567\n0\n0\n", "nobody:daemon": "65534\n1\n1\n"} {
		who, err := k.Setup(Setup{User: user, Files: []File{{Path: filepath.Join(t.TempDir(), "f"), Content: []byte("x")}}})
		if err != nil {
			t.Errorf("%q: %v", user, err)
			continue
		}
		out, end := run(t, k, Program{Args: []string{"sh", "-c", "id -u; id -g; id -G"}}, nil)
		if out != want || end.Exit != 0 || user == "nobody" && who.Home != "/nonexistent" {
			t.Errorf("%q: is %q (%+v), and ended %+v; want %q", user, out, who, end, want)
		}
	}
	for _, user := range []string{"nosuch", "nobody:nosuch"} {
		if _, err := k.Setup(Setup{User: user}); !errors.Is(err, ErrUser) {
			t.Errorf("%q: %v", user, err)
		}
	}
}

// What is asked of a keeper fails as it would here.
func TestFiles(t *testing.T) {
	k, dir := start(t, nil), t.TempDir()
	if _, err := k.Setup(Setup{Folders: []Folder{{Path: dir + "/d/e", Mode: 0o750}, {Path: "/proc/nosuch", Try: true}}}); err != nil {
		t.Fatal(err)
	}
	if err := k.Write(dir+"/d/f", 0o640, strings.NewReader("hello")); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	if err := k.Write(dir+"/d/broken", 0o640, io.MultiReader(strings.NewReader("x"), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("a source that breaks: %v", err)
	}
	for path, want := range map[string]error{dir + "/none": files.ErrNotThere, "/dev/null": files.ErrUnsafe} {
		if _, err := k.Open(path); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
	f, err := k.Open(dir + "/d")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil { // before the end of it
		t.Fatal(err)
	}
	if f, err = k.Open(dir + "/d/f"); err != nil {
		t.Fatal(err)
	}
	text, err := f.Text(5)
	if err != nil || text != "hello" || f.Mode != 0o640 || f.Size != 5 {
		t.Errorf("read %q, %v, %+v", text, err, f)
	}
	_ = f.Close()
	if _, end := run(t, k, sh("test -d "+dir+"/d/e"), nil); end.Exit != 0 {
		t.Error("what was asked of it confused the keeper")
	}
}

// gone reports whether no process has the words in its command line.
func gone(t *testing.T, words string) bool {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), words) {
			return false
		}
	}
	return true
}

func TestNothingIsLeft(t *testing.T) {
	k := start(t, nil)
	mark := "31" + strconv.Itoa(os.Getpid())
	for name, script := range map[string]string{
		"in the background":  "sleep " + mark + " & echo on",
		"in its own session": "setsid sleep " + mark + " & echo on",
		"twice forked":       "(setsid sh -c 'sleep " + mark + " & sleep " + mark + " &' &) ; echo on",
		"deaf":               "(trap '' TERM HUP INT; setsid sh -c 'trap \"\" TERM; sleep " + mark + "; sleep " + mark + "' &) ; echo on",
	} {
		t.Run(name, func(t *testing.T) {
			out, end := run(t, k, sh(script), nil)
			if out != "on\n" || end.Exit != 0 || end.Stuck != 0 {
				t.Errorf("printed %q and ended %+v", out, end)
			}
			if !gone(t, mark) {
				t.Error("a process is left")
			}
		})
	}
	if _, end := run(t, k, sh("sleep "+mark+" &"), nil); end.Left != 1 {
		t.Errorf("%d were left, want 1 said", end.Left)
	}
}

func TestSignals(t *testing.T) {
	k := start(t, nil)
	signal := func(s ...syscall.Signal) func() {
		return func() {
			for _, s := range s {
				if err := k.Signal(s); err != nil {
					t.Error(err)
				}
			}
		}
	}
	if out, end := run(t, k, sh("trap 'echo told; exit 3' TERM; echo on; while :; do sleep 0.01; done"), signal(syscall.SIGTERM)); !strings.HasSuffix(out, "told\n") || end.Exit != 3 {
		t.Errorf("asked to end: printed %q, ended %+v", out, end)
	}
	mark := "32" + strconv.Itoa(os.Getpid())
	deaf := "trap '' TERM; setsid sleep " + mark + " & echo on; while :; do sleep " + mark + "; done"
	if _, end := run(t, k, sh(deaf), signal(syscall.SIGTERM, syscall.SIGKILL)); end.Exit != 137 || end.Signal != 9 || !gone(t, mark) {
		t.Errorf("killed: ended %+v", end)
	}
	if _, end := run(t, k, sh("exit 0"), nil); end.Exit != 0 {
		t.Errorf("the next one ended %+v", end)
	}
}

// A worker that dies takes everything with it.
func TestEndsWithItsWorker(t *testing.T) {
	for name, ns := range places(t) {
		t.Run(name, func(t *testing.T) {
			k, err := New(ns)
			if err != nil {
				t.Fatal(err)
			}
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			mark := "33" + strconv.Itoa(os.Getpid())
			p := sh("setsid sleep " + mark + " & echo on; trap '' TERM; sleep " + mark)
			p.Env = []string{path}
			if err := k.Start(p, w, w); err != nil {
				t.Fatal(err)
			}
			_ = w.Close()
			if _, err := r.Read(make([]byte, 8)); err != nil {
				t.Fatal(err)
			}
			k.Close() // all that a keeper can see of it
			if _, err := io.Copy(io.Discard, r); err != nil {
				t.Fatal(err)
			}
			if !gone(t, mark) {
				t.Error("a process is left")
			}
		})
	}
}

// What a nursery starts is as what we start, and does not end with the nursery.
func TestNursery(t *testing.T) {
	n, err := NewNursery()
	if err != nil {
		t.Fatal(err)
	}
	mark := "34" + strconv.Itoa(os.Getpid())
	for name, ns := range places(t) {
		t.Run(name, func(t *testing.T) {
			k, err := n.New(ns)
			if err != nil {
				t.Fatal(err)
			}
			if out, end := run(t, k, sh("echo on; setsid sleep "+mark+" & exit 3"), nil); out != "on\n" || end.Exit != 3 || !gone(t, mark) {
				t.Errorf("printed %q and ended %+v", out, end)
			}
			k.Close()
			// Its nursery is about to take leave of it, and starts others meanwhile.
			for range 1000 {
				if syscall.Kill(k.Pid(), 0) != nil {
					return
				}
				other, err := n.New(nil)
				if err != nil {
					t.Fatal(err)
				}
				other.Close()
			}
			b, _ := os.ReadFile("/proc/" + strconv.Itoa(k.Pid()) + "/stat")
			t.Errorf("it is closed, and there: %s", b)
		})
	}
	k, err := n.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	n.Close()
	if out, _ := run(t, k, sh("echo on"), nil); out != "on\n" {
		t.Errorf("without its nursery it printed %q", out)
	}
	if _, err := n.New(nil); err == nil {
		t.Error("a nursery that was closed started a keeper")
	}
}

func TestKeeperIsKilled(t *testing.T) {
	k := start(t, nil)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := k.Start(Program{Args: []string{"sleep", "100"}, Env: []string{path}}, w, w); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	if err := syscall.Kill(k.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Wait(); !errors.Is(err, ErrGone) {
		t.Errorf("waited for: %v", err)
	}
	if _, err := io.Copy(io.Discard, r); err != nil { // ends only with the program
		t.Error(err)
	}
}

// places are without and with namespaces.
func places(t *testing.T) map[string]*isolate.Namespaces {
	t.Helper()
	ns, err := isolate.NewNamespaces()
	if err != nil {
		t.Fatal(err)
	}
	return map[string]*isolate.Namespaces{"plain": nil, "in namespaces": ns}
}

func TestFreshRoot(t *testing.T) {
	scratch, secret := t.TempDir(), filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(secret, []byte("s3cret"), 0o600); err != nil {
		t.Fatal(err)
	}
	place := isolate.Place{Scratch: scratch, Hide: []string{secret}}
	n := 0
	found := isolate.Find(place, 2, func(ns *isolate.Namespaces, r *isolate.Root) error {
		n++
		return Try(ns, r)
	})
	if err := found.Levels[isolate.Overlay]; err != nil || n != 1 {
		t.Fatalf("overlay: %v", err)
	}
	var pid string
	task := func(script string) string {
		t.Helper()
		n++
		dir := filepath.Join(scratch, strconv.Itoa(n))
		root, err := found.Survey.Root(dir, []string{"/usr/share"})
		if err != nil {
			t.Fatal(err)
		}
		k := start(t, found.Namespaces)
		if err := k.Enter(*root); err != nil {
			t.Fatal(err)
		}
		out, end := run(t, k, sh(script), nil)
		if end.Exit != 0 || end.Failure != "" {
			t.Fatalf("%s: ended %+v, printed %q", script, end, out)
		}
		k.Close()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
		return out
	}
	mark := "cairn-fresh-" + strconv.Itoa(os.Getpid())
	for _, dir := range []string{"/usr/bin", "/etc", "/tmp", "/var/lib", "/", "/opt", "/dev/shm", "/mnt", "/usr/share"} {
		file := filepath.Join(dir, mark)
		if out := task("test ! -e " + file + " && echo x > " + file + " && cat " + file); out != "x\n" {
			t.Errorf("%s: wrote and read %q", dir, out)
		}
		if _, err := os.Lstat(file); err == nil {
			t.Errorf("%s is seen outside", file)
			_ = os.Remove(file)
		}
		task("test ! -e " + file)
	}
	if out := task("ls " + scratch + " " + filepath.Dir(secret) + " /tmp /usr/share 2>&1 | grep -v '^/\\|^$\\|^ls:' || true"); out != "" {
		t.Errorf("a task sees %q", out)
	}
	if out := task("rm -rf /etc/passwd /usr/bin/env; ls /etc/passwd /usr/bin/env 2>/dev/null | wc -l"); out != "0\n" {
		t.Errorf("removed, and still %q", out)
	}
	if _, err := os.Stat("/etc/passwd"); err != nil {
		t.Fatal("a task removed a file of this machine")
	}
	pid = task("echo $$; ls -d /proc/[0-9]* | wc -l")
	if fields := strings.Fields(pid); fields[0] == "1" || len(fields[0]) > 2 || len(fields[1]) > 1 {
		t.Errorf("it sees processes of others: PID and count %q", pid)
	}
	for _, forbidden := range []string{"mount -t tmpfs x /opt", "umount /proc", "mount -o remount,bind,rw /sys", "mount -t tmpfs x /sys/kernel && umount /sys/kernel && mount -o remount,rw /sys", "echo 1 > /proc/sys/kernel/sysrq", "mknod /tmp/d b 254 0 && cat /tmp/d | head -c1"} {
		if out := task("(" + forbidden + ") >/dev/null 2>&1 && echo done || true"); out != "" {
			t.Errorf("a task may %s", forbidden)
		}
	}
}

// A program that does not know what it is started for would run whole.
func TestNotPrepared(t *testing.T) {
	t.Setenv(preparedIn, "1")
	if k, err := New(nil); err == nil {
		k.Close()
		t.Error("a keeper was started")
	}
	if n, err := NewNursery(); err == nil {
		n.Close()
		t.Error("a nursery was started")
	}
}
