package worker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/worker/keep"
)

// A Member is a container of a pod whose containers are one task: it runs its
// program when the worker that leads says so.
type Member struct {
	Dir   string   // where the lead is met
	Name  string   // of the container
	Args  []string // the program
	Env   []string
	Clock clock.Clock

	mu  sync.Mutex
	out *json.Encoder
	pid int // of the program's group; 0: none runs
}

// Run waits for the lead, does what it says, and ends with it. No process of the
// program outlives it.
func (m *Member) Run(ctx context.Context) error {
	if len(m.Args) == 0 {
		return errors.New("there is no program to run: name a command, or take an image that has one")
	}
	var conn net.Conn
	for {
		var err error
		if conn, err = (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(m.Dir, meeting)); err == nil {
			break
		}
		if _, err := os.Stat(filepath.Join(m.Dir, parted)); err == nil {
			return nil
		}
		// It is not there before the lead's container is.
		if err := clock.Sleep(ctx, m.Clock, 50*time.Millisecond); err != nil {
			return err
		}
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	m.out = json.NewEncoder(conn)
	m.say(fromMember{Name: m.Name})
	var running sync.WaitGroup
	in := bufio.NewScanner(conn)
	for in.Scan() {
		var x toMember
		if err := json.Unmarshal(in.Bytes(), &x); err != nil {
			return fmt.Errorf("what the lead says: %w", err)
		}
		if x.Run {
			running.Wait()
			if c := m.start(); c != nil { // before the next word, which may be that it has to end
				running.Go(func() { m.wait(c) })
			}
		} else if x.Signal > 0 {
			m.signal(syscall.Signal(x.Signal))
		}
	}
	m.signal(syscall.SIGKILL)
	running.Wait()
	return nil
}

func (m *Member) say(x fromMember) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_ = m.out.Encode(x) // when the lead is gone, nobody hears it
}

// signal is sent to all of the program.
func (m *Member) signal(s syscall.Signal) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pid > 0 {
		_ = syscall.Kill(-m.pid, s) // it may have ended
	}
}

// start starts the program; nil if it cannot be.
func (m *Member) start() *exec.Cmd {
	c := exec.Command(m.Args[0], m.Args[1:]...)
	c.Env = m.Env
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Stdout, c.Stderr = printed{m, task.Stdout}, printed{m, task.Stderr}
	c.WaitDelay = 5 * time.Second // for what it left, which may go on printing
	if err := c.Start(); err != nil {
		m.say(fromMember{End: &keep.End{Exit: 127, Failure: fmt.Sprintf("start %s: %v", m.Args[0], err)}})
		return nil
	}
	m.mu.Lock()
	m.pid = c.Process.Pid
	m.mu.Unlock()
	return c
}

// wait says how the program ended.
func (m *Member) wait(c *exec.Cmd) {
	_ = c.Wait() // what it says is in the state
	m.mu.Lock()
	_ = syscall.Kill(-m.pid, syscall.SIGKILL)
	m.pid = 0
	m.mu.Unlock()
	end := keep.End{Exit: c.ProcessState.ExitCode()}
	if w, ok := c.ProcessState.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		end.Signal = int(w.Signal())
		end.Exit = 128 + end.Signal
	}
	m.say(fromMember{End: &end})
}

// printed is where a program prints to.
type printed struct {
	m      *Member
	stream byte
}

func (p printed) Write(b []byte) (int, error) {
	for at := 0; at < len(b); at += pumpBytes {
		p.m.say(fromMember{Stream: p.stream, Bytes: b[at:min(at+pumpBytes, len(b))]})
	}
	return len(b), nil
}
