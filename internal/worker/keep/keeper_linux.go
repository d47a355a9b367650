package keep

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"cairn.dev/cairn/internal/worker/isolate"
)

// ErrGone means that the keeper ended by itself: somebody killed it.
var ErrGone = errors.New("the process that watches the program is gone")

// A Keeper is a keeper as its worker sees it. It runs one program at a time,
// and any number one after the other. Its methods are for one goroutine, but
// for Signal.
type Keeper struct {
	cmd  *exec.Cmd
	conn *net.UnixConn
	done chan struct{}
}

// New starts a keeper, in namespaces of its own when ns is not nil. It ends
// with Close, or with this process.
func New(ns *isolate.Namespaces) (*Keeper, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("start a keeper: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "keeper"), os.NewFile(uintptr(fds[1]), "worker")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, fmt.Errorf("start a keeper: %w", err)
	}
	k := &Keeper{conn: conn.(*net.UnixConn), done: make(chan struct{})}
	// The file itself and not its name: it may have been replaced, or lie
	// where a task could write.
	k.cmd = &exec.Cmd{Path: "/proc/self/exe", Args: []string{name}, Env: []string{"GOMAXPROCS=2", "GODEBUG=" + os.Getenv("GODEBUG")},
		Stderr: os.Stderr, ExtraFiles: []*os.File{theirs}, SysProcAttr: &syscall.SysProcAttr{Setpgid: true}}
	if ns != nil {
		ns.Apply(k.cmd.SysProcAttr)
	}
	if err := k.cmd.Start(); err != nil {
		_ = k.conn.Close()
		return nil, fmt.Errorf("start a keeper: %w", err)
	}
	go func() {
		defer close(k.done)
		_ = k.cmd.Wait()
	}()
	return k, nil
}

// Pid is the keeper's.
func (k *Keeper) Pid() int { return k.cmd.Process.Pid }

// Enter makes r the keeper's root, and returns it as a folder: what is looked
// up below it is seen as the program will see it, as long as the keeper is
// there. The caller closes it.
func (k *Keeper) Enter(r isolate.Root) (*os.File, error) {
	if err := send(k.conn, order{Root: &r}); err != nil {
		return nil, k.gone(err)
	}
	var rep report
	files, err := receive(k.conn, &rep)
	if err != nil {
		closeAll(files)
		return nil, k.gone(err)
	}
	if !rep.Ready || len(files) != 1 {
		closeAll(files)
		return nil, fmt.Errorf("assemble a fresh root: %s", rep.Err)
	}
	return files[0], nil
}

// Start starts p, whose output goes to stdout and stderr; the caller closes
// these. Wait has to be called then.
func (k *Keeper) Start(p Program, stdout, stderr *os.File) error {
	if p.Dir != "" {
		p.Dir = filepath.Clean(p.Dir)
	}
	err := send(k.conn, order{Start: &p}, stdout, stderr)
	runtime.KeepAlive(stdout)
	runtime.KeepAlive(stderr)
	if err != nil {
		return k.gone(err)
	}
	return nil
}

// Signal sends a signal to the process group of the program; SIGKILL goes to
// all that descends from it. It is safe for concurrent use.
func (k *Keeper) Signal(s syscall.Signal) error { return send(k.conn, order{Signal: int(s)}) }

// Wait returns when nothing of the program is left. It fails with ErrGone when
// that is not known.
func (k *Keeper) Wait() (End, error) {
	var rep report
	files, err := receive(k.conn, &rep)
	closeAll(files)
	if err != nil {
		return End{}, k.gone(err)
	}
	if rep.End == nil {
		return End{}, fmt.Errorf("watch the program: %s", rep.Err)
	}
	return *rep.End, nil
}

// Close ends the keeper, and the program if it still runs, and returns when it
// is gone.
func (k *Keeper) Close() {
	_ = k.conn.Close() // it kills its program and leaves
	<-k.done
}

// gone says what is known about the end of a keeper.
func (k *Keeper) gone(err error) error {
	_ = k.conn.Close()
	<-k.done
	return fmt.Errorf("%w: %s (%w)", ErrGone, k.cmd.ProcessState, err)
}

// Try says whether a root can be entered in namespaces.
func Try(ns *isolate.Namespaces, r *isolate.Root) error {
	k, err := New(ns)
	if err != nil {
		return err
	}
	defer k.Close()
	f, err := k.Enter(*r)
	if err != nil {
		return err
	}
	return f.Close()
}
