package keep

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cairn.dev/cairn/internal/worker/files"
	"cairn.dev/cairn/internal/worker/isolate"
)

// What a keeper and a nursery are started as: nobody runs programs by these
// names by accident.
const (
	name        = "cairn-keeper"
	nurseryName = "cairn-nursery"
)

// preparedIn is the variable of the environment that says in which process Main
// was called.
const preparedIn = "CAIRN_KEEPERS"

// prepared reports whether Main was called here. A program in which it was not
// would begin anew, whole, in place of each keeper that it starts.
func prepared() bool { return os.Getenv(preparedIn) == strconv.Itoa(os.Getpid()) }

// Main does not return when this process was started as a keeper. It has to be
// the first call of main.
func Main() {
	_ = os.Setenv(preparedIn, strconv.Itoa(os.Getpid())) // else none can be started
	switch {
	case len(os.Args) != 1:
	case os.Args[0] == name:
		os.Exit(keeper())
	case os.Args[0] == nurseryName:
		os.Exit(nursery())
	}
}

// keeper keeps programs one after the other, until its worker goes.
func keeper() int {
	// A program is killed when the thread that started it ends (Pdeathsig).
	runtime.LockOSThread()
	debug.SetGCPercent(400)
	// What a terminal or a container runtime sends to the group is for the
	// worker, who tells us; what a program sends us is nothing, be it SIGSEGV.
	// Not ignored: that would be handed on to programs.
	deaf := make(chan os.Signal, 1)
	signal.Notify(deaf)
	signal.Reset(syscall.SIGCHLD, syscall.SIGURG) // they come all the time, and do nothing
	conn, err := inherited()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v: it is started by a worker\n", name, err)
		return 64
	}
	k := &kept{conn: conn, null: nothing(), who: self()}
	// As the first process of a PID namespace we are that anyway.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		k.tell(failure(fmt.Errorf("adopt orphans: %w", err)))
		return 71
	}
	starts := make(chan begin)
	go k.listen(starts)
	for b := range starts {
		k.tell(k.carryOut(b.order, b.files))
	}
	k.killRest()
	return 0
}

// inherited is the connection to the worker, which is file 3.
func inherited() (*net.UnixConn, error) {
	f := os.NewFile(3, "worker")
	if f == nil {
		return nil, errors.New("no connection to a worker")
	}
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("no connection to a worker: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.New("no connection to a worker")
	}
	return u, nil
}

// nothing is what a program reads as its standard input.
func nothing() *os.File {
	if f, err := os.Open(os.DevNull); err == nil {
		return f
	}
	r, w, err := os.Pipe() // an image without devices
	if err != nil {
		return nil
	}
	_ = w.Close()
	return r
}

// begin is an order that the main thread carries out.
type begin struct {
	order order
	files []*os.File
}

// kept is a keeper at work.
type kept struct {
	conn *net.UnixConn
	null *os.File

	// Of the main thread.
	files  *files.Root
	who    Who // the next program runs as
	inside *isolate.Inside
	mirror *mirror // once a program was started
	used   bool    // something was put into the root, or a program ran, since it was clean
	barred bool    // programs know no keys of the kernel

	sending sync.Mutex
	mu      sync.Mutex
	leader  int // process group of the program that runs; 0 for none
	pending int // a signal that came before it ran
}

// listen hands orders on until the worker is gone; then nothing of the program
// may stay.
func (k *kept) listen(starts chan<- begin) {
	defer close(starts)
	for {
		var o order
		files, err := receive(k.conn, &o)
		if err != nil {
			closeAll(files)
			k.signal(int(syscall.SIGKILL))
			return
		}
		if o.Signal != 0 {
			k.signal(o.Signal)
			continue
		}
		if o.Start != nil {
			k.mu.Lock()
			k.pending = 0
			k.mu.Unlock()
		}
		starts <- begin{o, files}
	}
}

// carryOut does what an order says.
func (k *kept) carryOut(o order, files []*os.File) report {
	switch {
	case o.Start != nil:
		if s := o.Start.Setup; s != nil {
			if err := k.furnish(*s); err != nil {
				closeAll(files)
				return failure(err)
			}
		}
		end := k.run(*o.Start, files)
		return report{End: &end}
	case o.Setup != nil:
		return k.setup(*o.Setup)
	case o.Put != nil:
		return k.put(*o.Put, files)
	case o.Take != "":
		return k.take(o.Take, files)
	case o.Remove != "":
		return outcome(os.RemoveAll(o.Remove))
	case o.Become:
		return outcome(become())
	case o.Root != nil:
		return outcome(k.enter(*o.Root))
	case o.Renew:
		return k.renew()
	}
	closeAll(files)
	return failure(errors.New("an order that this keeper does not know"))
}

func outcome(err error) report {
	if err != nil {
		return failure(err)
	}
	return report{}
}

// signal is sent to the program's process group; SIGKILL to all that descends
// from it.
func (k *kept) signal(n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.leader == 0 {
		k.pending = n
		return
	}
	_ = syscall.Kill(-k.leader, syscall.Signal(n))
	if n == int(syscall.SIGKILL) {
		killAll()
		for _, pid := range descendants() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

func (k *kept) tell(r report, files ...*os.File) {
	k.sending.Lock()
	defer k.sending.Unlock()
	_ = send(k.conn, r, files...) // a worker that is gone is noticed by listen
}

// become makes this process root of its user namespace. It began as somebody
// whom that does not know, so that it could find its working folder.
func become() error {
	// Some namespaces have one user, and no groups to be in.
	if err := syscall.Setgroups(nil); err != nil && !errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("leave all groups: %w", err)
	}
	if err := syscall.Setresgid(0, 0, 0); err != nil {
		return fmt.Errorf("become root of the namespace: %w", err)
	}
	if err := syscall.Setresuid(0, 0, 0); err != nil {
		return fmt.Errorf("become root of the namespace: %w", err)
	}
	return nil
}

// run starts a program and returns when nothing of it is left.
func (k *kept) run(p Program, files []*os.File) End {
	defer closeAll(files)
	if len(files) != 2 {
		return End{Exit: 126, Failure: "no place for its output"}
	}
	path, err := lookup(p)
	if err != nil {
		return refuse(p, err)
	}
	if k.mirror == nil {
		if k.mirror, err = harden(); err != nil {
			return refuse(p, fmt.Errorf("keep other processes away: %w", err))
		}
	}
	k.used = true
	attr := &syscall.ProcAttr{Dir: p.Dir, Env: p.Env,
		Files: []uintptr{k.null.Fd(), files[0].Fd(), files[1].Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
	}
	if me := self(); k.who.UID != me.UID || k.who.GID != me.GID || len(k.who.Groups) > 0 {
		attr.Sys.Credential = &syscall.Credential{Uid: k.who.UID, Gid: k.who.GID, Groups: k.who.Groups, NoSetGroups: groupless()}
	}
	if p.Processes > 0 {
		if err := syscall.Setrlimit(unix.RLIMIT_NPROC, &syscall.Rlimit{Cur: p.Processes, Max: p.Processes}); err != nil {
			return refuse(p, fmt.Errorf("limit its processes: %w", err))
		}
	}
	pid, err := syscall.ForkExec(path, p.Args, attr)
	if err != nil {
		return refuse(p, err)
	}
	closeAll(files) // so that the worker sees the end of the output
	k.mu.Lock()
	k.leader = pid
	pending := k.pending
	k.mu.Unlock()
	if pending != 0 {
		k.signal(pending)
	}
	status := k.wait(pid)
	k.mu.Lock()
	k.leader = 0
	k.mu.Unlock()
	end := End{Exit: status.ExitStatus()}
	if status.Signaled() {
		end.Signal = int(status.Signal())
		end.Exit = 128 + end.Signal
	}
	end.Left, end.Stuck = k.killRest()
	end.Spent = end.Stuck > 0 || !k.mirror.same()
	return end
}

// wait reaps everything, orphans as well, until the program itself ended.
func (k *kept) wait(pid int) syscall.WaitStatus {
	for {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(-1, &status, 0, nil)
		if err == nil && status.Stopped() {
			release(got, status.StopSignal())
			continue
		}
		if got == pid || err != nil && err != syscall.EINTR {
			return status
		}
	}
}

// release has a program that asked to be traced by its parent go on, as it would
// without that.
func release(pid int, signal syscall.Signal) {
	if signal == syscall.SIGTRAP { // says only that another program was executed
		signal = 0
	}
	_, _, _ = syscall.Syscall6(syscall.SYS_PTRACE, syscall.PTRACE_DETACH, uintptr(pid), 0, uintptr(signal), 0, 0)
}

// killRest kills what a program left behind: left is how many there were. All
// that descends from it descends from us, so that none is left when we have no
// child. They are killed before they are waited for: what forks all the time
// would have us wait for ever.
func (k *kept) killRest() (left, stuck int) {
	killAll()
	for waited := time.Duration(0); ; {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		switch {
		case pid > 0 && status.Signaled() && status.Signal() == syscall.SIGKILL:
			left++
			continue
		case err == syscall.EINTR, pid > 0:
			continue
		case err != nil: // ECHILD
			return left, 0
		}
		killAll()
		rest := descendants()
		for _, pid := range rest {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if waited >= killPatience {
			return left + len(rest), len(rest)
		}
		pause := max(100*time.Microsecond, min(waited, 20*time.Millisecond))
		time.Sleep(pause)
		waited += pause
	}
}

// killAll kills everybody else in a PID namespace that is this process's own,
// at once: what forks all the time cannot run away from that.
func killAll() {
	if os.Getpid() == 1 {
		_ = syscall.Kill(-1, syscall.SIGKILL)
	}
}

// lookup finds the program's file.
func lookup(p Program) (string, error) {
	if len(p.Args) == 0 || p.Args[0] == "" {
		return "", errors.New("no command")
	}
	file := p.Args[0]
	if strings.Contains(file, "/") {
		if !filepath.IsAbs(file) {
			file = filepath.Join(p.Dir, file)
		}
		return file, nil
	}
	path := ""
	for _, e := range p.Env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	for _, dir := range filepath.SplitList(path) {
		if !filepath.IsAbs(dir) {
			continue
		}
		f := filepath.Join(dir, file)
		if info, err := os.Stat(f); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return f, nil
		}
	}
	return "", &exec.Error{Name: file, Err: exec.ErrNotFound}
}

// refuse says why a program was not started, and what may cure it.
func refuse(p Program, err error) End {
	what := "start"
	if len(p.Args) > 0 {
		what = "start " + p.Args[0]
	}
	if p.Dir != "" {
		if info, statErr := os.Stat(p.Dir); statErr != nil || !info.IsDir() {
			return End{Exit: 126, Failure: fmt.Sprintf("%s: its working directory %s is not there", what, p.Dir)}
		}
	}
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return End{Exit: 127, Failure: what + ": there is no such program in PATH of the task"}
	case errors.Is(err, syscall.ENOENT):
		return End{Exit: 127, Failure: what + ": there is no such file, or the interpreter that it names is not there"}
	case errors.Is(err, syscall.ENOEXEC):
		return End{Exit: 126, Failure: fmt.Sprintf("%s: this machine (%s/%s) cannot run it: it is for another architecture, or a script without its #! line", what, runtime.GOOS, runtime.GOARCH)}
	case errors.Is(err, syscall.EACCES):
		return End{Exit: 126, Failure: what + ": permission denied: is it executable, for the user that the task runs as?"}
	case errors.Is(err, syscall.E2BIG):
		return End{Exit: 126, Failure: what + ": its arguments are too long (one may have 128 KiB): hand over long values as files"}
	}
	return End{Exit: 126, Failure: what + ": " + err.Error()}
}
