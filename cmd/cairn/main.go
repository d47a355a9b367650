// Command cairn runs the registry and talks to it. It owns flags, what is
// printed and exit codes, and does nothing else: each file is one command,
// which parses, calls a package and prints.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"cairn.dev/cairn/internal/worker/keep"
)

func main() {
	keep.Main() // does not return in the processes between tasks and us
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Getenv)
	stop()
	os.Exit(code)
}
