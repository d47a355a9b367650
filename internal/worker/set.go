package worker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/worker/keep"
)

// The containers of one pod that are one task meet at a socket in a folder that
// only they see. The worker, who has the lease, leads: it tells each member when
// to run its program, and hears what that prints and how it ends.

// meeting is the socket's name in the folder, parted that of a file which says
// that there is no lead any more: those who come later end at once.
const meeting, parted = "lead", "over"

// toMember and fromMember are lines of JSON; one field of each is set.
type toMember struct {
	Run    bool `json:"run,omitempty"`
	Signal int  `json:"signal,omitempty"`
}

type fromMember struct {
	Name   string    `json:"name,omitempty"`
	Stream byte      `json:"stream,omitempty"`
	Bytes  []byte    `json:"bytes,omitempty"`
	End    *keep.End `json:"end,omitempty"`
}

// maxLine bounds a line: what is read at once of a program's output, and more.
const maxLine = 4 * pumpBytes

// set is a [task.Set] while it runs.
type set struct {
	task.Set
	dir   string
	clock clock.Clock
	grace time.Duration
	limit time.Duration
	print func(stream byte, p []byte)

	mu      sync.Mutex
	changed chan struct{} // closed and replaced with every change
	ended   map[string]bool
	members map[string]*member
	over    bool
	conns   []net.Conn // theirs, and of those who have not said their names
	failed  []string   // containers that did, the first of them first
	end     keep.End   // of that
}

// member is a container that has come.
type member struct {
	conn net.Conn
	in   *bufio.Scanner
}

func newSet(dir string, c clock.Clock, j Job) *set {
	s := &set{Set: *j.Task.Set, dir: dir, clock: c, grace: j.Task.Grace, limit: j.Task.Timeout, print: j.Print,
		changed: make(chan struct{}), ended: map[string]bool{}, members: map[string]*member{}}
	if s.grace <= 0 {
		s.grace = defaultGrace
	}
	return s
}

// run has all containers run, of which program is the task's own. It returns the
// first end that was bad, or that of program.
func (s *set) run(ctx context.Context, program func(ctx context.Context) (keep.End, error, error)) (end keep.End, why error, err error) {
	at := filepath.Join(s.dir, meeting)
	_ = os.Remove(at) // of a task before
	l, err := net.Listen("unix", at)
	if err != nil {
		return end, nil, fmt.Errorf("meet the other containers of the pod: %w", err)
	}
	if err := os.Chmod(at, 0o666); err != nil { // they may run as others
		_ = l.Close()
		return end, nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var all, accepting sync.WaitGroup
	accepting.Go(func() { s.accept(l) })
	defer func() {
		cancel(nil)
		_ = l.Close()
		s.mu.Lock()
		s.over = true
		for _, c := range s.conns { // which ends the members
			_ = c.Close()
		}
		s.mu.Unlock()
		accepting.Wait()
	}()
	over := make(chan struct{})
	if s.limit > 0 {
		go func() {
			select {
			case <-s.clock.After(s.limit):
				cancel(fmt.Errorf("%w of %v", errTimeout, s.limit))
			case <-over:
			}
		}()
	}
	errs := make([]error, len(s.Members))
	for i, m := range s.Members {
		all.Go(func() {
			end, err := s.tries(ctx, m.Name, m.Needs, func() (keep.End, error) { return s.member(ctx, m.Name) })
			errs[i] = err
			s.note(m.Name, end, err)
			if err != nil { // the pod is not what it was
				cancel(err)
			}
		})
	}
	own, err := s.tries(ctx, s.Name, s.Needs, func() (end keep.End, err error) {
		end, why, err = program(ctx)
		return end, err
	})
	s.note(s.Name, own, err)
	if err != nil {
		cancel(err)
	}
	all.Wait()
	close(over)
	if cause := context.Cause(ctx); why == nil && errors.Is(cause, errTimeout) {
		why = cause
	}
	if len(s.failed) > 0 {
		own = s.end
	}
	return own, why, errors.Join(append(errs, err)...)
}

// tries runs a program when it is its turn, as often as it may fail.
func (s *set) tries(ctx context.Context, name string, needs []string, run func() (keep.End, error)) (end keep.End, err error) {
	if !s.turn(ctx, needs) {
		return keep.End{Exit: -1}, nil
	}
	for try := 0; ; try++ {
		end, err = run()
		if good(end) || err != nil || end.Failure != "" || ctx.Err() != nil || try >= s.Retries || clock.Sleep(ctx, s.clock, s.Delay) != nil {
			return end, err
		}
	}
}

func good(e keep.End) bool { return e.Exit == 0 && e.Signal == 0 && e.Failure == "" }

// turn waits for those that are needed, and reports whether all of them ended
// well.
func (s *set) turn(ctx context.Context, needs []string) bool {
	return s.await(ctx, func() bool {
		return !slices.ContainsFunc(needs, func(n string) bool { _, known := s.ended[n]; return !known })
	}) && !slices.ContainsFunc(needs, func(n string) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return !s.ended[n]
	})
}

func (s *set) await(ctx context.Context, is func() bool) bool {
	for {
		s.mu.Lock()
		ok, changed := is(), s.changed
		s.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// change wakes those who wait; the lock is held.
func (s *set) change() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// note keeps how a container ended. One that never ran, because another one failed,
// says nothing.
func (s *set) note(name string, end keep.End, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended[name] = good(end) && err == nil
	if !good(end) && end.Exit != -1 {
		if len(s.failed) == 0 {
			s.end = end
		}
		s.failed = append(s.failed, name)
	}
	s.change()
}

// accept takes in the members as they come, each once, until there is no lead.
func (s *set) accept(l net.Listener) {
	var greetings sync.WaitGroup
	defer greetings.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		over := s.over
		s.conns = append(s.conns, c)
		s.mu.Unlock()
		if over {
			_ = c.Close()
			return
		}
		greetings.Go(func() { s.greet(c) })
	}
}

func (s *set) greet(c net.Conn) {
	m := &member{conn: c, in: bufio.NewScanner(c)}
	m.in.Buffer(nil, maxLine)
	var hello fromMember
	ok := m.in.Scan() && json.Unmarshal(m.in.Bytes(), &hello) == nil && slices.ContainsFunc(s.Members, func(x task.Member) bool { return x.Name == hello.Name })
	s.mu.Lock()
	defer s.mu.Unlock()
	if !ok || s.members[hello.Name] != nil {
		_ = c.Close()
		return
	}
	s.members[hello.Name] = m
	s.change()
}

// member has a container run its program once.
func (s *set) member(ctx context.Context, name string) (end keep.End, err error) {
	var m *member
	if !s.await(ctx, func() bool { m = s.members[name]; return m != nil }) {
		return keep.End{Exit: -1}, nil
	}
	say := func(x toMember) { _ = json.NewEncoder(m.conn).Encode(x) } // one that is gone says nothing more, either
	say(toMember{Run: true})
	over := make(chan struct{})
	var asking sync.WaitGroup
	defer asking.Wait()
	defer close(over)
	asking.Go(func() {
		select {
		case <-over:
			return
		case <-ctx.Done():
		}
		say(toMember{Signal: int(syscall.SIGTERM)})
		select {
		case <-over:
		case <-s.clock.After(s.grace):
			say(toMember{Signal: int(syscall.SIGKILL)})
		}
	})
	for m.in.Scan() {
		var x fromMember
		if err := json.Unmarshal(m.in.Bytes(), &x); err != nil {
			return end, fmt.Errorf("container %s: %w", name, err)
		}
		switch {
		case x.End != nil:
			return *x.End, nil
		case x.Stream == task.Stdout || x.Stream == task.Stderr:
			s.print(x.Stream, x.Bytes)
		}
	}
	return end, fmt.Errorf("container %s is gone: %w", name, errors.Join(m.in.Err()))
}
