package program

import (
	"os/exec"
	"runtime"
	"syscall"
)

// tie lets the kernel end the process with the thread that starts it, so that a
// test that is killed leaves nothing behind. That thread, the caller's, is kept
// until the returned function is called: Go ends threads at its own will.
func tie(cmd *exec.Cmd) (untie func()) {
	runtime.LockOSThread()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	return runtime.UnlockOSThread
}
