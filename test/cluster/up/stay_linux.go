package main

import (
	"os/exec"
	"runtime"
	"syscall"
)

// stay ties the end of the command to ours, however we end. The kernel ties it
// to the thread that starts it.
func stay(cmd *exec.Cmd) {
	runtime.LockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
}
