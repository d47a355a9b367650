package worker

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// hide keeps programs of the same user from reading what this process has in
// memory, its environment with the secret among it: where tasks get no PID
// namespace they see it. It is not for where they do, because the namespaces of
// a process that hides cannot be set up by whoever is not root.
func hide() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("hide the worker's secret from its tasks: %w", err)
	}
	return nil
}
