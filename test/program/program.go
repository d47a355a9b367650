// Package program runs real programs as processes of a test: Cairn, to be ended
// in whatever way, and the servers that Cairn is tested against.
//
// It owns the process, the last lines of its log and its end: as the kernel
// does it, or in order; and how the servers are started that several rooms need.
// It promises that no process outlives its test, not even one that is killed (on
// Linux). It builds nothing (test/parts does), and understands nothing of what
// is said but where a Cairn serves.
package program

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a start and an orderly end may take.
const patience = time.Minute

// A Process is one life of a program. Several goroutines may use it.
type Process struct {
	cmd     *exec.Cmd
	log     log
	address chan string // where it serves, once it said so
	exited  chan struct{}

	mu   sync.Mutex
	last []string // lines it said
}

// kept is how many lines of a log stay, to be shown when a test fails.
const kept = 60

// Start begins a life and does not wait for anything. What it writes is its log,
// but for its standard output where cmd has another place for that. said gets
// each line of the log; nil is nobody. It is killed when the test ends, if it
// has not ended before.
func Start(t testing.TB, cmd *exec.Cmd, said func(line string)) *Process {
	t.Helper()
	p := &Process{cmd: cmd, address: make(chan string, 1), exited: make(chan struct{})}
	p.log.line = func(line string) {
		p.hear(line)
		if said != nil {
			said(line)
		}
	}
	cmd.Stderr = &p.log
	if cmd.Stdout == nil {
		cmd.Stdout = &p.log
	}
	// What it started may hold its log open after it.
	cmd.WaitDelay = 5 * time.Second
	started := make(chan error)
	go p.live(started)
	if err := <-started; err != nil {
		t.Fatalf("start %s: %v", filepath.Base(cmd.Path), err)
	}
	t.Cleanup(p.Kill)
	return p
}

// Serve starts a server and waits until ready returns no error. With the test it
// ends in order; if that has failed, the end of its log is shown.
func Serve(t testing.TB, cmd *exec.Cmd, ready func() error) *Process {
	t.Helper()
	p := Start(t, cmd, nil)
	t.Cleanup(func() {
		_ = p.Stop() // how somebody else's server ends is not tested
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(cmd.Path), p.Output())
		}
	})
	if err := p.Until(ready); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *Process) live(started chan<- error) {
	defer close(p.exited)
	defer tie(p.cmd)()
	err := p.cmd.Start()
	started <- err
	if err == nil {
		_ = p.cmd.Wait() // how it ended is in ProcessState
		p.log.flush()
	}
}

func (p *Process) hear(line string) {
	var l struct{ Msg, Address string }
	if json.Unmarshal([]byte(line), &l) == nil && l.Msg == "cairn serves" {
		p.address <- strings.TrimPrefix(l.Address, "http://")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last = append(p.last, line); len(p.last) > kept {
		p.last = p.last[1:]
	}
}

// Address waits until a Cairn says at which host and port it serves. Its log
// must be JSON. It is asked for once in a life.
func (p *Process) Address() (string, error) {
	select {
	case a := <-p.address:
		return a, nil
	case <-p.exited:
		return "", p.failed("did not start")
	case <-time.After(patience):
		return "", p.failed(fmt.Sprintf("did not say its address within %v", patience))
	}
}

// Until waits until ready returns no error.
func (p *Process) Until(ready func() error) error {
	end := time.After(patience)
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-p.exited:
			return p.failed("ended before it was ready")
		case <-end:
			return p.failed(fmt.Sprintf("is not ready within %v: %v", patience, err))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// failed is an error that says what became of the process and what it said.
func (p *Process) failed(what string) error {
	return fmt.Errorf("%s %s:\n%s", filepath.Base(p.cmd.Path), what, p.Output())
}

// Output is the end of its log.
func (p *Process) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.last, "\n")
}

// Exited is closed when it has ended and all that it said was read.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// PID is its number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Shoot is Kill without waiting for the end.
func (p *Process) Shoot() { _ = p.cmd.Process.Kill() }

// Kill ends it as the kernel or a pulled plug would, short of losing what the
// page cache holds. It may have ended.
func (p *Process) Kill() {
	p.Shoot()
	<-p.exited
}

// Stop ends it as a service manager would. That it does not end by itself, or
// not well, is an error.
func (p *Process) Stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return p.failed("cannot be told to end: " + err.Error())
	}
	select {
	case <-p.exited:
	case <-time.After(patience / 2):
		return p.failed(fmt.Sprintf("did not end within %v of SIGTERM", patience/2))
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		return p.failed(fmt.Sprintf("ended with %d after SIGTERM", code))
	}
	return nil
}

// FreeAddress is a host and port of loopback at which nobody listens. Another
// process could take it before it is used; tests live with that.
func FreeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Listens says that somebody listens at the address.
func Listens(address string) func() error {
	return func() error {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
		}
		return err
	}
}

// Answers says that a GET of the URL is answered well.
func Answers(url string) func() error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	return func() error {
		resp, err := client.Get(url)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("GET %s: %s", url, resp.Status)
		}
		return nil
	}
}
