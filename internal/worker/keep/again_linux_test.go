package keep

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"cairn.dev/cairn/internal/worker/isolate"
)

// slot is what a worker has for tasks that follow each other in one place.
type slot struct {
	t     *testing.T
	found *isolate.Found
	dir   string
	n     int
	k     *Keeper
}

// How a place was made ready for the next task.
const (
	asItWas  = "kept"     // as it was
	mended   = "mended"   // spots were replaced
	anew     = "anew"     // another root
	replaced = "replaced" // another keeper
)

func newSlot(t *testing.T) *slot {
	t.Helper()
	s := &slot{t: t, dir: t.TempDir()}
	s.found = isolate.Find(isolate.Place{Scratch: s.dir}, 2, Try)
	if err := s.found.Levels[isolate.Overlay]; err != nil {
		t.Fatal(err)
	}
	s.hire()
	return s
}

func (s *slot) hire() {
	s.t.Helper()
	s.k = start(s.t, s.found.Namespaces)
	s.enter()
}

func (s *slot) enter() {
	s.t.Helper()
	s.n++
	root, err := s.found.Survey.Root(filepath.Join(s.dir, strconv.Itoa(s.n)), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.k.Enter(*root); err != nil {
		s.t.Fatal(err)
	}
}

const private = "/tmp/private"

// task runs a script. With a helper there is a program at $HELPER, see [helper].
func (s *slot) task(script string, withHelper bool) string {
	s.t.Helper()
	setup := Setup{Folders: []Folder{{Path: private + "/home", Mode: 0o700}}}
	if _, err := s.k.Setup(setup); err != nil {
		s.t.Fatal(err)
	}
	if withHelper {
		f, err := os.Open("/proc/self/exe")
		if err != nil {
			s.t.Fatal(err)
		}
		defer f.Close()
		if err := s.k.Write(private+"/helper", 0o755, f); err != nil {
			s.t.Fatal(err)
		}
	}
	p := sh(script)
	p.Env = []string{path, "HOME=" + private + "/home", "HELPER=" + private + "/helper"}
	r, w, err := os.Pipe()
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Close()
	if err := s.k.Start(p, w, w); err != nil {
		s.t.Fatal(err)
	}
	_ = w.Close()
	said := make(chan string)
	go func() {
		var b strings.Builder
		for buffer := make([]byte, 4096); ; {
			n, err := r.Read(buffer)
			b.Write(buffer[:n])
			if err != nil {
				said <- b.String()
				return
			}
		}
	}()
	if _, err := s.k.Wait(); err != nil && !errors.Is(err, ErrGone) {
		s.t.Fatal(err)
	}
	return <-said
}

// next makes the place ready as a worker does.
func (s *slot) next() string {
	s.t.Helper()
	if !s.k.Spent() {
		left, err := s.k.Renew()
		switch {
		case err == nil && len(left) == 0:
			return asItWas
		case err == nil:
			return mended
		case errors.Is(err, isolate.ErrAnew):
			s.enter()
			return anew
		}
		s.t.Logf("renew: %v", err)
	}
	s.k.Close()
	s.hire()
	return replaced
}

// survey prints what a task can see of what another one may have left.
const survey = `
for d in / /usr /usr/bin /etc /tmp /tmp/private /tmp/private/home /var/tmp /opt /dev /dev/null /dev/shm /dev/pts /dev/pts/ptmx; do
  stat -c '%n %A %u %g' $d
  if test -d $d; then ls -A $d | cksum; fi
done
cat /proc/sysvipc/* /proc/self/oom_score_adj /proc/self/coredump_filter /proc/self/projid_map /proc/sys/kernel/shmmax
ulimit -aS; ulimit -aH; nice; umask
$HELPER report
echo whole
`

// Whatever a task does, the next one finds what the first one found.
func TestAgain(t *testing.T) {
	mark := "35" + strconv.Itoa(os.Getpid())
	s := newSlot(t)
	before := s.task(survey, true)
	if !strings.HasSuffix(before, "\nwhole\n") {
		t.Fatalf("the first one saw %s", before)
	}
	s.next()
	for _, c := range []struct {
		name, script string
		helper       bool
		way          string // "" for any
		say          string // what it prints; "" for whatever
	}{
		{"nothing", "true", false, asItWas, ""},
		{"reads", "ls -lR /usr/bin /tmp /dev > /dev/null; cat /etc/passwd > /dev/null", false, asItWas, ""},
		{"is killed", "kill -9 $$", false, asItWas, ""},

		{"files in /tmp", "echo x > /tmp/x; mkdir /tmp/y", false, asItWas, ""},
		{"files at home", "echo x > $HOME/x", false, asItWas, ""},
		{"files in /usr", "echo x > /usr/x; echo x > /usr/bin/x", false, mended, ""},
		{"much at home", "mkdir -p $HOME/a/b/c /tmp/d/e; ln -s /etc $HOME/a/etc; ln -s / /tmp/root; for i in 1 2 3 4 5 6 7 8 9; do echo x > $HOME/a/$i; mkfifo /tmp/d/$i; done; chmod 000 /tmp/d $HOME/a", false, asItWas, ""},
		{"another home", "rm -r /tmp/*; mkdir -p $HOME", false, mended, ""},
		{"home is elsewhere", "rm -r $HOME; ln -s /usr $HOME", false, mended, ""},
		{"a name at home", "$HELPER name", true, mended, "done\n"},
		{"files of memory", "echo x > /dev/shm/x", false, "", ""},
		{"files in the root", "echo x > /x", false, anew, ""},
		{"files everywhere", "for d in / /usr /etc /tmp /var/tmp /opt /dev /dev/shm; do echo x > $d/x; done", false, anew, ""},
		{"made and removed", "echo x > /usr/x; rm /usr/x; mkdir /dev/shm/y; rmdir /dev/shm/y; touch $HOME/z; rm $HOME/z", false, mended, ""},
		{"modes", "chmod 700 /usr; chmod 700 /tmp /dev/shm; chmod 777 $HOME", false, mended, ""},
		{"a mode and back", "chmod 700 /usr; chmod 755 /usr", false, mended, ""},
		{"mode of the root", "chmod 700 /", false, anew, ""},
		{"owners", "chown nobody /usr; chgrp 7 /dev/shm; chown 7 /tmp", false, mended, ""},
		{"terminals", "chmod 700 /dev/pts; chmod 600 /dev/pts/ptmx", false, "", ""},
		{"whiteouts", "rm /usr/bin/env; mkdir /usr/games/x; rm -rf /usr/games; test ! -e /usr/bin/env && echo gone", false, mended, "gone\n"},
		{"attributes", "$HELPER attributes", true, mended, "done\n"},
		{"devices' modes", "chmod 000 /dev/null", false, asItWas, ""},
		{"files of the kernel", "(echo 7 > /proc/sys/kernel/shmmax && echo done; touch /proc/sysrq-trigger && echo done) 2>/dev/null; echo tried", false, asItWas, "tried\n"},
		{"another mount", "mount -t tmpfs x /opt || umount /usr || mount -o remount,ro /usr || umount /proc || unshare -m true || chroot /opt unshare -m true || echo no", false, asItWas, ""},
		{"mounts of its own", "unshare -Urm sh -c 'mount -t tmpfs x /opt; umount -l /usr; mount --bind /opt /usr; mount -t tmpfs x /proc'", false, asItWas, ""},

		{"processes", "setsid sleep " + mark + " & (setsid sh -c 'trap \"\" TERM HUP INT; sleep " + mark + " & sleep " + mark + "' &); sleep " + mark + " & echo on", false, asItWas, "on\n"},
		{"processes in namespaces", "unshare -Urpf sleep " + mark + " & sleep 0.1; echo on", false, asItWas, "on\n"},
		{"forks without end", "(while :; do (true &) done) > /dev/null 2>&1 & (trap '' TERM; while :; do (setsid sleep 0.001 &) done) & sleep 0.05; echo on", false, "", "on\n"},
		{"is many", "f() { test $1 -gt 0 && { f $(($1-1)) & f $(($1-1)) & }; sleep " + mark + "; }; f 6 & sleep 0.1; echo on", false, asItWas, "on\n"},
		{"is traced by its keeper", "$HELPER traceme", true, asItWas, ""},
		{"children that tell nobody", "$HELPER quiet", true, asItWas, ""},

		{"attacks memory", "$HELPER memory", true, asItWas, "refused\n"},
		{"looks into its keeper", "(cat /proc/1/environ; cat /proc/1/maps; ls /proc/1/root/ /proc/1/cwd/ /proc/1/task/*/root/; readlink /proc/1/exe /proc/1/fd/*; cat < /proc/1/ns/mnt) 2>/dev/null; echo tried", false, asItWas, "tried\n"},
		{"enters its keeper's namespaces", "for t in /proc/1/task/*; do nsenter --mount=$t/ns/mnt true && echo in; nsenter --root=$t/root true && echo in; done 2>/dev/null; echo tried", false, asItWas, "tried\n"},
		{"signals", "for s in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 34 64; do kill -$s 1; done; echo on", false, asItWas, "on\n"},
		{"signals to all", "kill -TERM -1; kill -SEGV -1; kill -STOP -1; kill -KILL -1", false, asItWas, ""},
		{"limits", "prlimit --pid 1 --nofile=77:99 --core=5", false, replaced, ""},
		{"few files", "prlimit --pid 1 --nofile=0:0", false, replaced, ""},
		{"no memory", "prlimit --pid 1 --as=1000:1000 --data=1000:1000", false, replaced, ""},
		{"no time", "prlimit --pid 1 --cpu=0:0", false, replaced, ""},
		{"niceness", "renice -n 7 -p 1 > /dev/null", false, asItWas, ""},
		{"niceness of the user", "renice -n 7 -u 0 > /dev/null", false, asItWas, ""},
		{"processors", "taskset -p 1 1 > /dev/null", false, asItWas, ""},
		{"policy", "chrt --batch -p 0 1", false, asItWas, ""},
		{"disk", "ionice -c 3 -p 1", false, asItWas, ""},
		{"memory's end", "echo 500 > /proc/1/oom_score_adj", false, replaced, ""},
		{"dumps", "echo 1 > /proc/1/coredump_filter", false, replaced, ""},
		{"projects", "echo 0 0 5 > /proc/self/projid_map", false, "", ""},

		{"queues and shared memory", "$HELPER talk", true, asItWas, "done\n"},
		{"keys", "$HELPER keys", true, asItWas, "refused\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.task("true", false) // what is set up is there
			s.next()
			said := s.task(c.script, c.helper)
			if c.say != "" && said != c.say {
				t.Errorf("it printed %q, want %q", said, c.say)
			}
			if way := s.next(); c.way != "" && way != c.way {
				t.Errorf("the place was %s, want it %s (it printed %q)", way, c.way, said)
			}
			if !gone(t, mark) {
				t.Error("a process is left")
			}
			after := s.task(survey, true)
			s.next()
			if after != before {
				t.Errorf("it printed %q; the next one saw\n%s\nwhere the first one saw\n%s", said, diff(after, before), diff(before, after))
			}
		})
	}
}

// diff is what lines a has and b has not.
func diff(a, b string) string {
	in := map[string]bool{}
	for line := range strings.Lines(b) {
		in[line] = true
	}
	var only string
	for line := range strings.Lines(a) {
		if !in[line] {
			only += line
		}
	}
	return only
}

// A keeper that nothing was done to stays for long.
func TestAgainAndAgain(t *testing.T) {
	s := newSlot(t)
	pid := s.k.Pid()
	for i := range 100 {
		if out := s.task("test ! -e /tmp/x && touch /tmp/x && echo ok", false); out != "ok\n" {
			t.Fatalf("task %d printed %q", i, out)
		}
		if way := s.next(); way != asItWas {
			t.Fatalf("after task %d the place was %s", i, way)
		}
	}
	if s.k.Pid() != pid {
		t.Error("it is another keeper")
	}
}

// Without namespaces programs may be as powerful as their keeper.
func TestSpent(t *testing.T) {
	for script, spent := range map[string]bool{
		"true": false, "kill -TERM $PPID; kill -SEGV $PPID; kill -USR1 $PPID": false,
		"prlimit --pid $PPID --nofile=77:99": true, "prlimit --pid $PPID --core=5": true, "renice -n 7 -p $PPID": true, "renice -n 7 -g 0; renice -n 7 -p $PPID": true,
		"chrt --batch -p 0 $PPID": true, "ionice -c 3 -p $PPID": true, "echo 500 > /proc/$PPID/oom_score_adj": true,
		"echo 1 > /proc/$PPID/coredump_filter": true, "echo 70000 > /proc/$PPID/timerslack_ns": true, "kill -KILL $PPID": true,
	} {
		k := start(t, nil)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		p := sh(script)
		p.Env = []string{path}
		if err := k.Start(p, w, w); err != nil {
			t.Fatal(err)
		}
		_ = w.Close()
		_, err = k.Wait()
		said, _ := io.ReadAll(r)
		_ = r.Close()
		if (err != nil) != strings.Contains(script, "KILL") || k.Spent() != spent {
			t.Errorf("%s: spent %v, want %v: %v, %s", script, k.Spent(), spent, err, said)
		}
		k.Close()
	}
}

// Who asks its parent to trace it is not waited for in vain.
func TestTraced(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	k := start(t, nil)
	out, end := run(t, k, Program{Args: []string{self, "traceme"}, Env: []string{path, "HELPER=1"}}, nil)
	if end.Signal != int(unix.SIGTERM) || out != "" {
		t.Errorf("printed %q and ended %+v", out, end)
	}
}

// A program that was put into the root by the worker is not the next task's.
func TestInputsAreNotKept(t *testing.T) {
	s := newSlot(t)
	for _, where := range []string{"/usr/input", "/input", "/tmp/input"} {
		if err := s.k.Write(where, 0o644, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
		s.task("true", false) // its folders are made after that
		s.next()
		if out := s.task("test -e "+where+" && echo there", false); out != "" {
			t.Errorf("%s: %s", where, out)
		}
		s.next()
	}
	s.task("echo x > /usr/x", false)
	s.task("true", false) // a worker would have renewed the place before
	s.next()
	if out := s.task("test -e /usr/x && echo there", false); out != "" {
		t.Errorf("what was left by two programs: %s", out)
	}
}

// helper is what the programs of tests do that no shell can.
func helper(what string) {
	said := "done"
	must := func(err error) {
		if err != nil {
			said = err.Error()
		}
	}
	switch what {
	case "report":
		attr, err := unix.SchedGetAttr(0, 0)
		must(err)
		var cpus unix.CPUSet
		must(unix.SchedGetaffinity(0, &cpus))
		io, _, _ := unix.Syscall(unix.SYS_IOPRIO_GET, 1, 0, 0)
		slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
		must(err)
		said = fmt.Sprintf("%+v %v %d %d, queue %v, %v", *attr, cpus, io, slack, queue(0), said)
		for _, d := range []string{"/", "/usr", "/tmp", "/dev/shm", private} {
			names := make([]byte, 1024)
			n, _ := unix.Listxattr(d, names)
			said += fmt.Sprintf("\n%s %q", d, names[:max(n, 0)])
		}
	case "attributes":
		must(unix.Setxattr("/usr", "user.x", []byte("y"), 0))
	case "name":
		must(unix.Setxattr(private, "user.x", []byte("y"), 0))
	case "traceme":
		runtime.LockOSThread()
		if _, _, errno := unix.RawSyscall(unix.SYS_PTRACE, unix.PTRACE_TRACEME, 0, 0); errno != 0 {
			must(errno)
		}
		must(unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGTERM))
		said = "it goes on" // its death comes on another thread
	case "quiet": // its end is no signal to its parent
		_, _, _ = unix.RawSyscall6(unix.SYS_CLONE, 0, 0, 0, 0, 0, 0)
	case "memory":
		said = "refused"
		if err := unix.PtraceAttach(1); err == nil {
			said = "attached"
		}
		if f, err := os.OpenFile("/proc/1/mem", os.O_RDWR, 0); err == nil {
			said = "opened " + f.Name()
		}
		fd, err := unix.PidfdOpen(1, 0)
		if err != nil {
			said = err.Error()
		}
		if _, err := unix.PidfdGetfd(fd, 3, 0); err == nil {
			said = "took its connection"
		}
	case "talk":
		for _, call := range [][3]uintptr{{unix.SYS_SHMGET, 4096, unix.IPC_CREAT | 0o666}, {unix.SYS_MSGGET, unix.IPC_CREAT | 0o666, 0}, {unix.SYS_SEMGET, 1, unix.IPC_CREAT | 0o666}} {
			if _, _, errno := unix.Syscall(call[0], 7777, call[1], call[2]); errno != 0 {
				must(errno)
			}
		}
		must(queue(unix.O_CREAT))
	case "keys":
		said = "refused"
		if _, err := unix.AddKey("user", "cairn", []byte("secret"), unix.KEY_SPEC_USER_KEYRING); err != unix.EPERM {
			said = fmt.Sprint("add: ", err)
		}
		if _, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, true); err != unix.EPERM {
			said = fmt.Sprint("keyctl: ", err)
		}
		if _, err := unix.RequestKey("user", "cairn", "", unix.KEY_SPEC_SESSION_KEYRING); err != unix.EPERM {
			said = fmt.Sprint("request: ", err)
		}
	}
	fmt.Println(said)
}

// queue opens one of POSIX's message queues.
func queue(flags int) error {
	name := []byte("cairn-test\x00")
	_, _, errno := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(&name[0])), uintptr(flags), 0o666, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
