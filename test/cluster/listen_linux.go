package cluster

import (
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// listenOn listens in the network of another process.
func listenOn(pid int, address string) (l net.Listener, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Never unlocked: the thread ends with the goroutine, and nothing else
		// ever runs in that network. A socket stays where it was made.
		runtime.LockOSThread()
		ns, e := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
		if e != nil {
			err = e
			return
		}
		defer ns.Close()
		if e := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); e != nil {
			err = fmt.Errorf("enter the network of process %d: %w", pid, e)
			return
		}
		l, err = net.Listen("tcp", address)
	}()
	<-done
	return l, err
}
