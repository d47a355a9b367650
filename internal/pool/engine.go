package pool

import (
	"fmt"
	"os/exec"
)

// findEngine says why a program is not to be had.
func findEngine(name string) error {
	if _, err := exec.LookPath(name); err != nil {
		return fmt.Errorf("there is no such program in PATH")
	}
	return nil
}
