//go:build !linux

package gitea

import (
	"os/exec"
	"testing"
)

// start starts the process, and returns what closes when it has ended.
func start(t testing.TB, cmd *exec.Cmd) (ended chan struct{}) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended = make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	return ended
}
