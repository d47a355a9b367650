package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"

	"cairn.dev/cairn/test/cluster/keeper/wire"
)

// Folder is where the clusters of this computer keep their files. It is the
// same for all users of the computer, and short: it holds sockets.
const Folder = "/var/tmp/cairn-clusters"

// keeper is the process that keeps a cluster's processes.
type keeper struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	stderr *strings.Builder
	failed chan error // the first failure nobody asked for
	gone   chan struct{}
	booted chan struct{} // all machines are there

	closing sync.Once
	ended   error

	lock     sync.Mutex
	next     int
	answers  map[int]chan wire.Event
	machines int
	pids     map[int]int            // of the machines
	exits    map[string]chan string // of processes that were told to end
	stopped  map[string]bool        // by us: their end is no failure
}

func startKeeper(ctx context.Context, program string) (*keeper, wire.Slot, error) {
	k := &keeper{cmd: exec.Command(program, "run", Folder), stderr: &strings.Builder{}, failed: make(chan error, 1), gone: make(chan struct{}), booted: make(chan struct{}),
		answers: map[int]chan wire.Event{}, pids: map[int]int{}, exits: map[string]chan string{}, stopped: map[string]bool{}}
	k.cmd.Stderr = k.stderr
	// A group of its own: what is meant for the test is not meant for it.
	k.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := k.cmd.StdinPipe()
	if err != nil {
		return nil, wire.Slot{}, err
	}
	k.in = in
	out, err := k.cmd.StdoutPipe()
	if err != nil {
		return nil, wire.Slot{}, err
	}
	if err := k.cmd.Start(); err != nil {
		return nil, wire.Slot{}, fmt.Errorf("start the keeper of a cluster: %w", err)
	}
	lines := bufio.NewReader(out)
	var slot wire.Slot
	line, err := lines.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &slot)
	}
	if err != nil {
		in.Close()
		_ = k.cmd.Wait()
		return nil, slot, fmt.Errorf("start the keeper of a cluster: %w: %s", err, k.stderr)
	}
	go k.listen(lines)
	return k, slot, nil
}

func (k *keeper) listen(lines *bufio.Reader) {
	defer close(k.gone)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			k.fail(errors.New("the keeper of the cluster is gone"))
			return
		}
		var e wire.Event
		if err := json.Unmarshal(line, &e); err != nil {
			continue
		}
		k.lock.Lock()
		switch {
		case e.ID != 0:
			if c, ok := k.answers[e.ID]; ok {
				c <- e
				delete(k.answers, e.ID)
			}
		case e.PID != 0:
			k.pids[e.Machine] = e.PID
			if len(k.pids) == k.machines {
				close(k.booted)
			}
		case e.Exited != "":
			key := process(e.Machine, e.Exited)
			if c, ok := k.exits[key]; ok {
				close(c)
				delete(k.exits, key)
			}
			if !k.stopped[key] {
				k.fail(fmt.Errorf("%s ended by itself: %s", e.Exited, e.Status))
			}
		case e.Error != "":
			k.fail(errors.New(e.Error))
		}
		k.lock.Unlock()
	}
}

func process(machine int, name string) string { return fmt.Sprintf("%d/%s", machine, name) }

func (k *keeper) fail(err error) {
	select {
	case k.failed <- err:
	default:
	}
}

// plan hands over what to run, and returns when the machines and their network
// are there. Before, the addresses of the cluster lead somewhere else.
func (k *keeper) plan(ctx context.Context, p wire.Plan) error {
	k.lock.Lock()
	k.machines = len(p.Machines)
	k.lock.Unlock()
	if err := k.write(p); err != nil {
		return err
	}
	select {
	case <-k.booted:
		return nil
	case err := <-k.failed:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (k *keeper) write(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if _, err := k.in.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("tell the keeper of the cluster: %w", err)
	}
	return nil
}

// do sends a command and waits for its answer.
func (k *keeper) do(ctx context.Context, c wire.Command) error {
	answer := make(chan wire.Event, 1)
	k.lock.Lock()
	k.next++
	c.ID = k.next
	k.answers[c.ID] = answer
	err := k.write(c)
	k.lock.Unlock()
	if err != nil {
		return err
	}
	select {
	case e := <-answer:
		if e.Error != "" {
			return errors.New(e.Error)
		}
		return nil
	case <-k.gone:
		return errors.New("the keeper of the cluster is gone")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// stop sends a signal that ends a process, and waits for its end.
func (k *keeper) stop(ctx context.Context, machine int, name string, s syscall.Signal) error {
	key, exit := process(machine, name), make(chan string)
	k.lock.Lock()
	k.exits[key], k.stopped[key] = exit, true
	k.lock.Unlock()
	if err := k.do(ctx, wire.Command{Machine: machine, Do: "signal", Process: name, Signal: int(s)}); err != nil {
		return err
	}
	select {
	case <-exit:
		return nil
	case <-k.gone:
		return errors.New("the keeper of the cluster is gone")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (k *keeper) start(ctx context.Context, machine int, name string) error {
	k.lock.Lock()
	delete(k.stopped, process(machine, name))
	k.lock.Unlock()
	return k.do(ctx, wire.Command{Machine: machine, Do: "start", Process: name})
}

// pid is the first process of a machine.
func (k *keeper) pid(machine int) int {
	k.lock.Lock()
	defer k.lock.Unlock()
	return k.pids[machine]
}

// close ends the keeper, and waits until it has removed everything. It may be
// called again.
func (k *keeper) close() error {
	k.closing.Do(func() {
		k.in.Close()
		<-k.gone
		if err := k.cmd.Wait(); err != nil {
			k.ended = fmt.Errorf("the keeper of the cluster: %w: %s", err, strings.TrimSpace(k.stderr.String()))
		}
	})
	return k.ended
}
