//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"cairn.dev/cairn/test/cluster/keeper/wire"
)

// self is the plan as a machine gets it.
type self struct {
	Index int       `json:"index"`
	Plan  wire.Plan `json:"plan"`
}

// machine is the first process of a machine. It ends only by being killed, or
// when its keeper is gone.
func machine() error {
	signal.Ignore(os.Interrupt, syscall.SIGHUP, syscall.SIGTERM)
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return err
	}
	var me self
	if err := json.Unmarshal(line, &me); err != nil {
		return err
	}
	m := &runner{index: me.Index, out: json.NewEncoder(os.Stdout), processes: map[string]*wire.Process{}, running: map[int]string{}, pids: map[string]int{}}
	spec := me.Plan.Machines[me.Index]
	if err := furnish(me); err != nil {
		m.tell(wire.Event{Error: fmt.Sprintf("set up %s: %v", spec.Hostname, err)})
		return err
	}
	go m.reap()
	for _, p := range spec.Processes {
		m.processes[p.Name] = p
	}
	// Each waits for what it needs by itself, so that all start at once.
	for _, p := range spec.Processes {
		go func() {
			if err := await(context.Background(), p.Wait); err != nil {
				m.tell(wire.Event{Error: err.Error()})
				return
			}
			if err := m.start(p.Name); err != nil {
				m.tell(wire.Event{Error: err.Error()})
			}
		}()
	}
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return nil
		}
		var cmd wire.Command
		if err := json.Unmarshal(line, &cmd); err != nil {
			continue
		}
		e := wire.Event{ID: cmd.ID}
		if err := m.do(cmd); err != nil {
			e.Error = err.Error()
		}
		m.tell(e)
	}
}

// furnish gives the machine its name, mounts and network.
func furnish(me self) error {
	m := me.Plan.Machines[me.Index]
	if err := syscall.Sethostname([]byte(m.Hostname)); err != nil {
		return err
	}
	if m.Cgroup != "" {
		if err := makeCgroups(m.Cgroup); err != nil {
			return err
		}
	}
	// Private first: no mount of ours reaches the computer. Then shared, so
	// that mounts reach the containers that ask for it.
	for _, flag := range []uintptr{syscall.MS_PRIVATE, syscall.MS_SHARED} {
		if err := syscall.Mount("", "/", "", flag|syscall.MS_REC, ""); err != nil {
			return fmt.Errorf("make mounts our own: %w", err)
		}
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	for i, f := range m.Files {
		if _, err := os.Stat(f.Path); err != nil {
			continue
		}
		name := filepath.Join(os.TempDir(), fmt.Sprintf("%s-%d", me.Plan.Bridge, i))
		if err := os.WriteFile(name, []byte(f.Content), 0o644); err != nil {
			return err
		}
		err := syscall.Mount(name, f.Path, "", syscall.MS_BIND, "")
		_ = os.Remove(name) // the mount keeps it
		if err != nil {
			return fmt.Errorf("put a file over %s: %w", f.Path, err)
		}
	}
	for _, b := range m.Binds {
		if err := os.MkdirAll(b.From, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount(b.From, b.To, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("put %s over %s: %w", b.From, b.To, err)
		}
	}
	commands := [][]string{{"link", "set", "lo", "up"}, {"addr", "add", m.Address, "dev", "eth0"}, {"link", "set", "eth0", "up"}, {"route", "add", "default", "via", m.Gateway}}
	for _, a := range m.Aliases {
		commands = append(commands, []string{"addr", "add", a, "dev", "lo"})
	}
	for i, other := range me.Plan.Machines {
		if address, _, _ := strings.Cut(other.Address, "/"); i != me.Index && other.Pods != "" {
			commands = append(commands, []string{"route", "add", other.Pods, "via", address})
		}
	}
	for _, c := range commands {
		if err := ip(c...); err != nil {
			return err
		}
	}
	return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644)
}

// runner starts and ends processes, and takes in orphans.
type runner struct {
	index     int
	outLock   sync.Mutex
	out       *json.Encoder
	lock      sync.Mutex
	processes map[string]*wire.Process
	running   map[int]string
	pids      map[string]int
}

func (r *runner) tell(e wire.Event) {
	e.Machine = r.index
	r.outLock.Lock()
	defer r.outLock.Unlock()
	_ = r.out.Encode(e)
}

func (r *runner) do(c wire.Command) error {
	switch c.Do {
	case "start":
		return r.start(c.Process)
	case "signal":
		r.lock.Lock()
		defer r.lock.Unlock()
		pid, ok := r.pids[c.Process]
		if !ok {
			return fmt.Errorf("%s does not run", c.Process)
		}
		return syscall.Kill(pid, syscall.Signal(c.Signal))
	}
	return fmt.Errorf("no command %q", c.Do)
}

func (r *runner) start(name string) error {
	r.lock.Lock()
	defer r.lock.Unlock()
	p, ok := r.processes[name]
	if !ok {
		return fmt.Errorf("no process is called %q", name)
	}
	if _, ok := r.pids[name]; ok {
		return fmt.Errorf("%s runs already", name)
	}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	// Not os/exec: reap takes in all that ends.
	proc, err := os.StartProcess(p.Path, append([]string{p.Path}, p.Args...), &os.ProcAttr{
		Dir: "/", Env: p.Env, Files: []*os.File{null, log, log}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	r.running[proc.Pid], r.pids[name] = name, proc.Pid
	return proc.Release()
}

// reap waits for whatever ends in this machine.
func (r *runner) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if errors.Is(err, syscall.ECHILD) {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if err != nil {
			continue
		}
		r.lock.Lock()
		name, ok := r.running[pid]
		delete(r.running, pid)
		if ok {
			delete(r.pids, name)
		}
		r.lock.Unlock()
		if !ok {
			continue
		}
		how := fmt.Sprintf("exit status %d", status.ExitStatus())
		if status.Signaled() {
			how = "signal: " + status.Signal().String()
		}
		r.tell(wire.Event{Exited: name, Status: how})
	}
}

// await waits until an https address answers 200, or a socket accepts.
func await(ctx context.Context, what string) error {
	if what == "" {
		return nil
	}
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // asks for life, tells nothing
	}}
	defer client.CloseIdleConnections()
	for {
		if strings.HasPrefix(what, "https://") {
			if resp, err := client.Get(what); err == nil {
				resp.Body.Close()
				if resp.StatusCode == http.StatusOK {
					return nil
				}
			}
		} else if conn, err := net.Dial("unix", what); err == nil {
			conn.Close()
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}
