package keep

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"cairn.dev/cairn/internal/worker/files"
	"cairn.dev/cairn/internal/worker/isolate"
)

// ErrGone means that the keeper ended by itself: somebody killed it.
var ErrGone = errors.New("the process that watches the program is gone")

// A Keeper is a keeper as its worker sees it. It runs one program at a time,
// and any number one after the other. Its methods are for one goroutine, but
// for Signal.
type Keeper struct {
	pid  int
	conn *net.UnixConn
	done <-chan struct{} // closed when the process is gone
	// spent is set when it cannot be for another program.
	spent bool
}

// New starts a keeper, in namespaces of its own when ns is not nil. It ends
// with Close, or with this process.
func New(ns *isolate.Namespaces) (*Keeper, error) {
	return startBy(ns, func(theirs *os.File) (int, <-chan struct{}, error) {
		c := command(ns, theirs)
		if err := c.Start(); err != nil {
			return 0, nil, err
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = c.Wait()
		}()
		return c.Process.Pid, done, nil
	})
}

// command is what starts a keeper in this process. It is the file itself and
// not its name: it may have been replaced, or lie where a task could write.
func command(ns *isolate.Namespaces, theirs *os.File) *exec.Cmd {
	c := &exec.Cmd{Path: "/proc/self/exe", Args: []string{name}, Env: []string{"GOMAXPROCS=2", "GODEBUG=" + os.Getenv("GODEBUG")},
		Stderr: os.Stderr, ExtraFiles: []*os.File{theirs}, SysProcAttr: &syscall.SysProcAttr{Setpgid: true}}
	if ns != nil {
		ns.Apply(c)
	}
	return c
}

// startBy has a process begun that speaks to us, and makes it root of its
// namespaces.
func startBy(ns *isolate.Namespaces, begin func(theirs *os.File) (int, <-chan struct{}, error)) (*Keeper, error) {
	conn, theirs, err := pair()
	if err != nil {
		return nil, fmt.Errorf("start a keeper: %w", err)
	}
	defer theirs.Close()
	k := &Keeper{conn: conn}
	if k.pid, k.done, err = begin(theirs); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("start a keeper: %w", err)
	}
	if ns != nil {
		if err := k.become(ns); err != nil {
			k.Close()
			return nil, fmt.Errorf("start a keeper: %w", err)
		}
	}
	return k, nil
}

// pair is a connection: one end for us, the other for a process to be started.
func pair() (*net.UnixConn, *os.File, error) {
	if !prepared() {
		return nil, nil, errors.New("this program does not call keep.Main at the start of its main")
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "keeper"), os.NewFile(uintptr(fds[1]), "worker")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		_ = theirs.Close()
		return nil, nil, err
	}
	return conn.(*net.UnixConn), theirs, nil
}

// become gives the keeper the users of its namespace.
func (k *Keeper) become(ns *isolate.Namespaces) error {
	if err := ns.Started(k.Pid()); err != nil || !ns.Foreign() {
		return err
	}
	_, err := k.do(order{Become: true})
	return err
}

// Pid is the keeper's.
func (k *Keeper) Pid() int { return k.pid }

// Enter makes r the keeper's root.
func (k *Keeper) Enter(r isolate.Root) error {
	_, err := k.do(order{Root: &r})
	return err
}

// Renew makes the root that was entered what it was before the last program, if
// it is one that is used again. left are folders that are of no use any more.
// It fails with [isolate.ErrAnew] where another root has to be entered; other
// errors are the end of the keeper. Programs of one Setup, and of the same,
// may follow each other in a root.
func (k *Keeper) Renew() (left []string, err error) {
	rep, err := k.do(order{Renew: true})
	if err != nil && !errors.Is(err, isolate.ErrAnew) {
		k.spent = true
	}
	return rep.Left, err
}

// Spent reports whether the keeper is not to be used for another program.
func (k *Keeper) Spent() bool { return k.spent }

// Setup makes what the next program finds, and says who it will be. What is
// written after it belongs to that user.
func (k *Keeper) Setup(s Setup) (Who, error) {
	rep, err := k.do(order{Setup: &s})
	if err != nil {
		return Who{}, err
	}
	if rep.Who == nil {
		return Who{}, errors.New("set up a program: the keeper does not say who it is")
	}
	return *rep.Who, nil
}

// Remove removes a folder and all in it, below the keeper's working folder: for
// what only users of its namespace may remove.
func (k *Keeper) Remove(path string) error {
	if !filepath.IsLocal(path) {
		return fmt.Errorf("remove %s: it lies elsewhere", path)
	}
	_, err := k.do(order{Remove: path})
	return err
}

// Write makes a file in the root, see [files.Root.Write].
func (k *Keeper) Write(path string, mode fs.FileMode, from io.Reader) error {
	_, err := k.put(put{Kind: putFile, Path: path, Mode: mode}, from)
	return err
}

// Unpack makes a folder in the root, see [files.Root.Unpack].
func (k *Keeper) Unpack(path string, from io.Reader, limits files.Limits) error {
	_, err := k.put(put{Kind: putFolder, Path: path, Limits: limits}, from)
	return err
}

// Layer applies a layer to the root, see [files.Root.Layer].
func (k *Keeper) Layer(from io.Reader, limits files.Limits, oneOwner bool) (files.Applied, error) {
	rep, err := k.put(put{Kind: putLayer, Limits: limits, OneOwner: oneOwner}, from)
	if err != nil || rep.Applied == nil {
		return files.Applied{}, err
	}
	return *rep.Applied, nil
}

// put sends what is read through a pipe.
func (k *Keeper) put(p put, from io.Reader) (report, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return report{}, err
	}
	err = k.order(order{Put: &p}, r)
	_ = r.Close()
	if err != nil {
		_ = w.Close()
		return report{}, err
	}
	_, copied := io.Copy(w, from)
	_ = w.Close()
	rep, err := k.answer()
	if err == nil {
		err = copied
	}
	if copied != nil && !errors.Is(copied, syscall.EPIPE) {
		err = copied // what the keeper made of half of it is no matter
	}
	return rep, err
}

// Open opens what lies at a path of the root, see [files.Root.Open]. It has to
// be closed before anything else is asked of the keeper.
func (k *Keeper) Open(path string) (*files.Found, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	err = k.order(order{Take: path}, w)
	_ = w.Close()
	var rep report
	if err == nil {
		rep, err = k.answer()
	}
	if err == nil && rep.Found == nil {
		err = fmt.Errorf("read %s: the keeper does not say what it is", path)
	}
	if err != nil {
		_ = r.Close()
		return nil, err
	}
	return files.NewFound(rep.Found.Folder, rep.Found.Size, rep.Found.Mode, &stream{k: k, pipe: r}), nil
}

// stream is what a keeper reads for us; after it the keeper says how that went.
type stream struct {
	k     *Keeper
	pipe  *os.File
	ended bool
	err   error
}

func (s *stream) Read(p []byte) (int, error) {
	if s.ended {
		return 0, s.err
	}
	n, err := s.pipe.Read(p)
	if err == io.EOF {
		if _, s.err = s.k.answer(); s.err == nil {
			s.err = io.EOF
		}
		s.ended, err = true, s.err
	}
	return n, err
}

func (s *stream) Close() error {
	err := s.pipe.Close()
	if !s.ended {
		s.ended, s.err = true, fs.ErrClosed
		_, _ = s.k.answer() // nobody wants to know any more
	}
	return err
}

// do gives an order and waits until it was carried out.
func (k *Keeper) do(o order) (report, error) {
	if err := k.order(o); err != nil {
		return report{}, err
	}
	return k.answer()
}

func (k *Keeper) order(o order, files ...*os.File) error {
	err := send(k.conn, o, files...)
	runtime.KeepAlive(files)
	if err != nil {
		return k.gone(err)
	}
	return nil
}

func (k *Keeper) answer() (report, error) {
	var rep report
	files, err := receive(k.conn, &rep)
	closeAll(files)
	if err != nil {
		return report{}, k.gone(err)
	}
	return rep, rep.failed()
}

// Start starts p, whose output goes to stdout and stderr; the caller closes
// these. Wait has to be called then.
func (k *Keeper) Start(p Program, stdout, stderr *os.File) error {
	if p.Dir != "" {
		p.Dir = filepath.Clean(p.Dir)
	}
	return k.order(order{Start: &p}, stdout, stderr)
}

// Signal sends a signal to the process group of the program; SIGKILL goes to
// all that descends from it. It is safe for concurrent use.
func (k *Keeper) Signal(s syscall.Signal) error { return send(k.conn, order{Signal: int(s)}) }

// Wait returns when nothing of the program is left. It fails with ErrGone when
// that is not known.
func (k *Keeper) Wait() (End, error) {
	rep, err := k.answer()
	if err != nil {
		return End{}, fmt.Errorf("watch the program: %w", err)
	}
	k.spent = k.spent || rep.End == nil || rep.End.Spent
	if rep.End == nil {
		return End{}, errors.New("watch the program: the keeper does not say how it ended")
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
	k.spent = true
	_ = k.conn.Close()
	<-k.done
	return fmt.Errorf("%w (%w)", ErrGone, err)
}

// Try says whether a root can be entered in namespaces.
func Try(ns *isolate.Namespaces, r *isolate.Root) error {
	k, err := New(ns)
	if err != nil {
		return err
	}
	defer k.Close()
	return k.Enter(*r)
}
