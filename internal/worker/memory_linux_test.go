package worker

import (
	"errors"
	"slices"
	"syscall"
	"testing"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/worker/keep"
)

func TestMemoryFiles(t *testing.T) {
	for groups, want := range map[string][]string{
		"0::/a/b\n":                           {"/sys/fs/cgroup/a/b/memory.events", "/sys/fs/cgroup/memory.events"},
		"9:name=systemd:/\n4:memory:/x\n0::/": {"/sys/fs/cgroup/memory/x/memory.oom_control", "/sys/fs/cgroup/memory/memory.oom_control", "/sys/fs/cgroup//memory.events", "/sys/fs/cgroup/memory.events"},
		"nonsense":                            nil,
	} {
		if got := memoryFiles(groups); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", groups, got, want)
		}
	}
	for text, want := range map[string]int{
		"low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n": 2,
		"oom_kill_disable 0\nunder_oom 0\noom_kill 7\n":                7,
		"oom_kill_disable 1\n":                                         0,
		"":                                                             0,
	} {
		if got := countKills(text); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

func TestOutcomes(t *testing.T) {
	for name, c := range map[string]struct {
		end   keep.End
		why   error
		phase task.Phase
		says  string
	}{
		"well":               {keep.End{}, nil, task.Succeeded, ""},
		"exit code":          {keep.End{Exit: 2}, nil, task.Failed, "exit code 2"},
		"killed":             {keep.End{Exit: 137, Signal: int(syscall.SIGKILL)}, nil, task.Failed, "signal 9"},
		"memory":             {keep.End{Exit: 137, Signal: int(syscall.SIGKILL)}, errMemory, task.Failed, "out of memory"},
		"timeout":            {keep.End{Exit: 143, Signal: int(syscall.SIGTERM)}, errTimeout, task.Failed, "timeout"},
		"timeout, ended 0":   {keep.End{}, errTimeout, task.Failed, "timeout"},
		"never started":      {keep.End{Exit: 127, Failure: "start x: no"}, nil, task.Errored, "start x"},
		"wrapped":            {keep.End{Exit: 1}, errors.Join(errTimeout), task.Failed, "timeout"},
		"ended from outside": {keep.End{Exit: 143, Signal: 15}, ErrCanceled, task.Failed, "signal 15"},
	} {
		o := outcome(c.end, c.why)
		if o.Phase != c.phase || !has(o.Message, c.says) || o.Exit != c.end.Exit {
			t.Errorf("%s: %+v", name, o)
		}
	}
}
