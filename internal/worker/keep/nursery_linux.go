package keep

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"cairn.dev/cairn/internal/worker/isolate"
)

// A Nursery starts keepers for a large process: what starts in a user namespace
// is a copy of whoever starts it, and all that a server has in memory would be
// marked as shared and copied again when it is written, for each task. It is
// safe for concurrent use.
type Nursery struct {
	conn *net.UnixConn
	cmd  *exec.Cmd
	mu   sync.Mutex // one question at a time
}

// NewNursery starts one. It ends with Close, or with this process.
func NewNursery() (*Nursery, error) {
	conn, theirs, err := pair()
	if err != nil {
		return nil, fmt.Errorf("start what starts keepers: %w", err)
	}
	defer theirs.Close()
	c := command(nil, theirs)
	c.Args = []string{nurseryName}
	if err := c.Start(); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("start what starts keepers: %w", err)
	}
	return &Nursery{conn: conn, cmd: c}, nil
}

// New is as [New], by the nursery.
func (n *Nursery) New(ns *isolate.Namespaces) (*Keeper, error) {
	return startBy(ns, func(theirs *os.File) (int, <-chan struct{}, error) {
		pid, handle, err := n.spawn(ns, theirs)
		if err != nil {
			return 0, nil, err
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer handle.Close()
			awaitEnd(handle)
		}()
		return pid, done, nil
	})
}

func (n *Nursery) spawn(ns *isolate.Namespaces, theirs *os.File) (int, *os.File, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := send(n.conn, order{Spawn: ns}, theirs); err != nil {
		return 0, nil, fmt.Errorf("what starts keepers is gone: %w", err)
	}
	var rep report
	handed, err := receive(n.conn, &rep)
	if err == nil {
		err = rep.failed()
	}
	if err == nil && len(handed) != 1 {
		err = errors.New("what starts keepers hands over none")
	}
	if err != nil {
		closeAll(handed)
		return 0, nil, err
	}
	return rep.Pid, handed[0], nil
}

// awaitEnd returns when a process is gone: its pidfd can be read then
// (pidfd_open(2)).
func awaitEnd(handle *os.File) {
	raw, err := handle.SyscallConn()
	if err != nil {
		return
	}
	gone := func(fd uintptr, timeout int) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, timeout)
		return n > 0 || err != nil && err != unix.EINTR
	}
	if err := raw.Read(func(fd uintptr) bool { return gone(fd, 0) }); err != nil {
		// The runtime cannot wait for it: then a thread does.
		_ = raw.Control(func(fd uintptr) {
			for !gone(fd, -1) {
			}
		})
	}
}

// Close ends the nursery. Keepers that it started stay.
func (n *Nursery) Close() {
	_ = n.conn.Close()
	_ = n.cmd.Wait()
}

// nursery starts keepers until nobody asks any more.
func nursery() int {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	conn, err := inherited()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v: it is started by a worker\n", nurseryName, err)
		return 64
	}
	for {
		var o order
		handed, err := receive(conn, &o)
		if err != nil {
			return 0
		}
		pid, handle, err := hatch(o.Spawn, handed)
		closeAll(handed)
		rep := report{Pid: pid}
		var files []*os.File
		if err != nil {
			rep = failure(err)
		} else {
			files = append(files, handle)
		}
		_ = send(conn, rep, files...) // who is gone is noticed by receive
		closeAll(files)
	}
}

// hatch starts a keeper and sees to it that nothing is left of it when it ends.
func hatch(ns *isolate.Namespaces, handed []*os.File) (pid int, handle *os.File, err error) {
	if len(handed) != 1 {
		return 0, nil, errors.New("no connection for the keeper")
	}
	c := command(ns, handed[0])
	if err := c.Start(); err != nil {
		return 0, nil, err
	}
	// A handle of its own: to wait by one that does not block fails at once, and
	// nobody would take leave of the keeper (waitid(2), EAGAIN).
	fd, err := unix.PidfdOpen(c.Process.Pid, 0)
	go func() { _ = c.Wait() }()
	if err == nil {
		err = unix.SetNonblock(fd, true) // so that who gets it need not wait in a thread
	}
	if err != nil {
		_ = unix.Close(fd)
		return 0, nil, fmt.Errorf("get a handle of the keeper (Linux 5.3 has them): %w", err)
	}
	return c.Process.Pid, os.NewFile(uintptr(fd), "keeper"), nil
}
