package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// elsewhere is the priority (see nice(1)) of what has machines of its own in
// other clusters, nodes and Cairn's server: the processors are the control
// plane's first, so that who waits for it waits for what it has to do.
const elsewhere = 15

// yield gives the processors to the control plane before this program and the
// nodes, those whose words contain one of some: to all threads of theirs, from
// which those of pods inherit it.
func (w *world) yield(some ...string) error {
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	found := 0
	for _, dir := range all {
		words, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || !slices.ContainsFunc(some, func(s string) bool { return strings.Contains(string(words), filepath.Join(w.Dir, s)) }) {
			continue
		}
		found++
		id, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			return err
		}
		if err := prioritize(id, elsewhere); err != nil {
			return fmt.Errorf("have the nodes yield to the control plane: %w", err)
		}
	}
	if found == 0 {
		return fmt.Errorf("no program of a node runs from %s", w.Dir)
	}
	if err := w.pods(); err != nil {
		return err
	}
	return prioritize(os.Getpid(), elsewhere)
}

// first gives a process the priority of the control plane.
func first(pid int) error { return prioritize(pid, 0) }

// prioritize gives all threads of a process a priority, and its session, which
// is what the kernel weighs against other sessions (sched(7), autogroup).
func prioritize(pid, priority int) error {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil {
		return err
	}
	for _, t := range threads {
		id, err := strconv.Atoi(filepath.Base(t))
		if err != nil {
			return err
		}
		if err := syscall.Setpriority(syscall.PRIO_PROCESS, id, priority); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("give process %d the priority %d: %w", pid, priority, err)
		}
	}
	group, err := os.OpenFile(fmt.Sprintf("/proc/%d/autogroup", pid), os.O_WRONLY, 0)
	if err != nil { // a kernel without them, or the process has ended
		return nil
	}
	defer group.Close()
	if _, err := fmt.Fprint(group, priority); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("give the session of process %d the priority %d: %w", pid, priority, err)
	}
	return nil
}

// pods gives the containers of the cluster's nodes the share of processors that
// threads of that priority have, wherever the kernel has groups mounted.
func (w *world) pods() error {
	for file, share := range map[string]string{
		"/sys/fs/cgroup/cpu/" + w.Name + "/cpu.shares":         "36",
		"/sys/fs/cgroup/cpu,cpuacct/" + w.Name + "/cpu.shares": "36",
		"/sys/fs/cgroup/" + w.Name + "/cpu.weight":             "4",
	} {
		if err := os.WriteFile(file, []byte(share), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("have containers yield to the control plane: %w", err)
		}
	}
	return nil
}
