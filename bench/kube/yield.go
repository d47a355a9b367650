package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// elsewhere is the priority (see nice(1)) of what has machines of its own in
// other clusters, nodes and Cairn's server: the processors are the control
// plane's first, so that who waits for it waits for what it has to do.
const elsewhere = 15

// yield gives the processors to the control plane before the nodes: to all
// threads of their programs, from which those of pods inherit it.
func (w *world) yield() error {
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	found := false
	for _, dir := range all {
		words, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || !strings.Contains(string(words), filepath.Join(w.Dir, "node1")) {
			continue
		}
		found = true
		threads, err := filepath.Glob(filepath.Join(dir, "task", "*"))
		if err != nil {
			return err
		}
		for _, t := range threads {
			id, err := strconv.Atoi(filepath.Base(t))
			if err != nil {
				return err
			}
			if err := syscall.Setpriority(syscall.PRIO_PROCESS, id, elsewhere); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("have the node yield to the control plane: %w", err)
			}
		}
	}
	if !found {
		return fmt.Errorf("no program of a node runs from %s", w.Dir)
	}
	return nil
}
