package gitea

import (
	"os/exec"
	"runtime"
	"syscall"
	"testing"
)

// start starts the process, and returns what closes when it has ended. The
// kernel ends it with the thread that started it, so a test that is killed
// leaves nothing behind: that thread is kept for as long.
func start(t testing.TB, cmd *exec.Cmd) (ended chan struct{}) {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	ended = make(chan struct{})
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	return ended
}
