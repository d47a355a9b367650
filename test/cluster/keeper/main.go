//go:build linux

// Command keeper keeps the processes of one test cluster and makes sure that
// nothing of them stays.
//
// It owns the machines of the cluster: each is a set of namespaces (processes,
// mounts, network, host name) whose first process is this program again. The
// kernel ends whatever runs in a namespace of processes when its first process
// ends, and drops the mounts and devices of namespaces without processes; so a
// machine, its containers and their shims end together, however they were
// started. What the kernel does not drop by itself (cgroups, the bridge, files)
// this program removes, at its end or, if it was killed itself, at the start of
// the next one.
//
// It promises that all of this happens as soon as its standard input closes:
// when whoever started it ends, in whatever way. It knows nothing about
// Kubernetes: what runs on a machine it is told. It also answers to the name
// "pause": then it waits for a signal, which is all that the container of a
// pod's sandbox has to do.
//
//	keeper run FOLDER       one cluster; FOLDER is shared by all of this machine
//	keeper sweep FOLDER     remove what killed keepers left
//
// The protocol of "run", one JSON value a line: keeper tells the slot it got
// ([wire.Slot]); it is given the machines ([wire.Plan]); it tells what happens ([wire.Event]);
// it is given commands ([wire.Command]), each answered by an event with its number.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	var err error
	switch {
	case filepath.Base(os.Args[0]) == "pause":
		pause()
	case len(os.Args) == 3 && os.Args[1] == "run":
		err = keep(os.Args[2])
	case len(os.Args) == 3 && os.Args[1] == "sweep":
		err = sweepAll(os.Args[2])
	case len(os.Args) == 2 && os.Args[1] == "machine":
		err = machine()
	default:
		err = fmt.Errorf("usage: keeper run FOLDER | keeper sweep FOLDER")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "keeper:", err)
		os.Exit(1)
	}
}

// pause waits to be told to end. As the first process of a sandbox it also
// takes in orphans.
func pause() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for s := range signals {
		if s != syscall.SIGCHLD {
			os.Exit(0)
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
}
