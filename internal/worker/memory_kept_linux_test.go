package worker

import (
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/worker/keep"
)

// starved is a keeper that goes away while its program runs.
type starved struct {
	Tree  // no file is asked for
	count int
	kills int // of processes that the kernel kills before it goes
}

func (*starved) Setup(keep.Setup) (keep.Who, error)           { return keep.Who{}, nil }
func (*starved) Start(keep.Program, *os.File, *os.File) error { return nil }
func (*starved) Signal(syscall.Signal) error                  { return nil }
func (s *starved) killed() int                                { return s.count }
func (s *starved) Wait() (keep.End, error) {
	s.count += s.kills
	return keep.End{}, fmt.Errorf("watch the program: %w", keep.ErrGone)
}

// TestKeeperIsOutOfMemory: a program that takes all the memory it may have can
// take its keeper along. That is the program's end; begun anew it would do the
// same. A keeper that goes by itself is a worker's matter.
func TestKeeperIsOutOfMemory(t *testing.T) {
	for _, c := range []struct {
		kills          int
		phase          task.Phase
		exit           int
		message        string
		infrastructure bool
	}{
		{1, task.Failed, 137, "killed: out of memory", false},
		{0, task.Errored, -1, keep.ErrGone.Error(), true},
	} {
		s := &starved{kills: c.kills, count: 3}
		x := &Executor{Clock: clock.NewFake(time.Unix(0, 0))}
		o := x.Run(t.Context(), Setting{Keeper: s, Command: []string{"a"}, Killed: s.killed}, Job{Print: func(byte, []byte) {}})
		if o.Phase != c.phase || o.Exit != c.exit || !has(o.Message, c.message) || o.Infrastructure != c.infrastructure {
			t.Errorf("%d killed: %+v, want %+v", c.kills, o, c)
		}
	}
}
