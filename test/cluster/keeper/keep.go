//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"cairn.dev/cairn/test/cluster/keeper/wire"
)

// slots is how many clusters fit on one computer.
const slots = 100

// keep runs one cluster until standard input ends.
func keep(folder string) error {
	// The kernel ties a child to the thread that started it, see Pdeathsig.
	runtime.LockOSThread()
	// The terminal's Ctrl-C is for whoever started us: its end is our end.
	signal.Ignore(os.Interrupt, syscall.SIGHUP, syscall.SIGPIPE)
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)

	slot, err := takeSlot(folder)
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(slot.Slot); err != nil {
		return errors.Join(err, slot.sweep())
	}
	in := bufio.NewReader(os.Stdin)
	var plan wire.Plan
	if line, err := in.ReadBytes('\n'); err != nil || json.Unmarshal(line, &plan) != nil {
		return slot.sweep() // nobody there any more, or nonsense
	}
	if err := slot.write(plan); err != nil {
		return errors.Join(err, slot.sweep())
	}

	c := &cluster{plan: plan}
	var lock sync.Mutex
	tell := func(e wire.Event) {
		lock.Lock()
		defer lock.Unlock()
		_ = out.Encode(e) // when nobody listens, standard input ends too
	}
	err = c.start(tell)
	if err != nil {
		tell(wire.Event{Error: err.Error()})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			line, err := in.ReadBytes('\n')
			if err != nil {
				return
			}
			var cmd wire.Command
			if err := json.Unmarshal(line, &cmd); err != nil || cmd.Machine < 0 || cmd.Machine >= len(c.commands) {
				tell(wire.Event{ID: cmd.ID, Error: fmt.Sprintf("no such command: %s", line)})
				continue
			}
			if _, err := c.commands[cmd.Machine].Write(line); err != nil {
				tell(wire.Event{ID: cmd.ID, Machine: cmd.Machine, Error: "the machine is gone"})
			}
		}
	}()
	select {
	case <-done:
	case <-term:
	}
	c.stop()
	return slot.sweep()
}

// cluster is the running machines.
type cluster struct {
	plan     wire.Plan
	machines []*exec.Cmd
	commands []io.WriteCloser
	readers  sync.WaitGroup
}

func (c *cluster) start(tell func(wire.Event)) error {
	if err := removeLinks(c.plan.Bridge); err != nil {
		return err
	}
	if err := ip("link", "add", c.plan.Bridge, "type", "bridge"); err != nil {
		return err
	}
	if err := ip("addr", "add", c.plan.Address, "dev", c.plan.Bridge); err != nil {
		return err
	}
	if err := ip("link", "set", c.plan.Bridge, "up"); err != nil {
		return err
	}
	for i := range c.plan.Machines {
		if err := c.boot(i, tell); err != nil {
			return fmt.Errorf("start machine %d: %w", i, err)
		}
	}
	return nil
}

func (c *cluster) boot(i int, tell func(wire.Event)) error {
	m := c.plan.Machines[i]
	cmd := exec.Command("/proc/self/exe", "machine")
	cmd.Args[0] = "keeper"
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
		Setsid:     true,
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	c.machines = append(c.machines, cmd)
	c.commands = append(c.commands, stdin)

	// The machine waits for its plan, so that its network is there first.
	port := fmt.Sprintf("%sm%d", c.plan.Bridge, i)
	if err := ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", strconv.Itoa(cmd.Process.Pid)); err != nil {
		return err
	}
	if err := ip("link", "set", port, "master", c.plan.Bridge, "up"); err != nil {
		return err
	}
	address, _, _ := strings.Cut(m.Address, "/")
	if m.Pods != "" {
		if err := ip("route", "add", m.Pods, "via", address); err != nil {
			return err
		}
	}
	tell(wire.Event{Machine: i, PID: cmd.Process.Pid})
	plan, err := json.Marshal(self{Index: i, Plan: c.plan})
	if err != nil {
		return err
	}
	if _, err := stdin.Write(append(plan, '\n')); err != nil {
		return err
	}
	c.readers.Go(func() {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			var e wire.Event
			if err := json.Unmarshal(lines.Bytes(), &e); err == nil {
				tell(e)
			}
		}
	})
	return nil
}

// stop ends the machines, and returns when the kernel has ended all in them.
func (c *cluster) stop() {
	for _, m := range c.machines {
		_ = m.Process.Kill()
	}
	c.readers.Wait()
	for _, m := range c.machines {
		_ = m.Wait()
	}
}

func ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// removeLinks removes a bridge and the ports of machines. The kernel drops the
// ports with the networks at their other ends, but in its own time.
func removeLinks(bridge string) error {
	names, err := filepath.Glob("/sys/class/net/" + bridge + "m[0-9]*")
	if err != nil {
		return err
	}
	there := func(name string) bool {
		_, err := os.Stat("/sys/class/net/" + name)
		return err == nil
	}
	for _, name := range append(names, bridge) {
		name = filepath.Base(name)
		if !there(name) {
			continue
		}
		if err := ip("link", "del", name); err != nil && there(name) {
			return err
		}
	}
	return nil
}

// slot is a place for a cluster that is held by this process.
type slot struct {
	wire.Slot
	held   *os.File
	record string // file that says what to remove; outlives us when we are killed
}

// takeSlot takes the first free place, and on its way removes what killed
// keepers left in others.
func takeSlot(folder string) (*slot, error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	var mine *slot
	for n := range slots {
		if mine != nil {
			// Only what is there may have to be removed.
			if _, err := os.Stat(filepath.Join(folder, strconv.Itoa(n)+".lock")); err != nil {
				continue
			}
		}
		s, err := try(folder, n)
		if err != nil {
			return nil, err
		}
		if s == nil {
			continue
		}
		if err := s.clear(); err != nil {
			return nil, err
		}
		if mine != nil {
			s.held.Close()
			continue
		}
		mine = s
	}
	if mine == nil {
		return nil, fmt.Errorf("all %d places for clusters in %s are taken", slots, folder)
	}
	if err := os.MkdirAll(mine.Folder, 0o755); err != nil {
		return nil, err
	}
	return mine, nil
}

// sweepAll removes what killed keepers left.
func sweepAll(folder string) error {
	var errs []error
	for n := range slots {
		if _, err := os.Stat(filepath.Join(folder, strconv.Itoa(n)+".lock")); err != nil {
			continue
		}
		s, err := try(folder, n)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if s != nil {
			errs = append(errs, s.sweep())
		}
	}
	return errors.Join(errs...)
}

// try takes place n; nil when somebody lives there. The kernel lets go of the
// lock when its holder ends.
func try(folder string, n int) (*slot, error) {
	name := filepath.Join(folder, strconv.Itoa(n))
	f, err := os.OpenFile(name+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, nil
		}
		return nil, fmt.Errorf("lock %s.lock: %w", name, err)
	}
	return &slot{wire.Slot{Slot: n, Folder: name}, f, name + ".plan"}, nil
}

// write notes what must be removed before it is made.
func (s *slot) write(p wire.Plan) error {
	b, err := json.Marshal(wire.Plan{Bridge: p.Bridge, Cgroup: p.Cgroup})
	if err != nil {
		return err
	}
	return os.WriteFile(s.record, b, 0o644)
}

// sweep clears the place and lets go of it.
func (s *slot) sweep() error {
	err := s.clear()
	s.held.Close()
	return err
}

// clear removes all of a cluster whose processes are gone.
func (s *slot) clear() error {
	var errs []error
	b, err := os.ReadFile(s.record)
	if err == nil {
		var p wire.Plan
		if err := json.Unmarshal(b, &p); err != nil {
			return fmt.Errorf("read %s: %w; remove it, after a look at what runs", s.record, err)
		}
		if p.Bridge != "" {
			errs = append(errs, removeLinks(p.Bridge))
		}
		if p.Cgroup != "" {
			errs = append(errs, removeCgroups(p.Cgroup))
		}
	}
	if _, err := os.Stat(s.Folder); err == nil {
		errs = append(errs, os.RemoveAll(s.Folder))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if b != nil {
		return os.Remove(s.record)
	}
	return nil
}
