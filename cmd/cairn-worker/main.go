//go:build linux

// Command cairn-worker runs tasks in the container that it is started in. It is
// what "cairn worker" is, alone and small, because it is carried into other
// people's images.
//
// It owns its flags, and what a signal means: the worker ends, and its tasks
// with it. It promises to read no file but those that the flags name, and no
// variable of ours but CAIRN_SERVER, CAIRN_CA and CAIRN_TOKEN, to hand none of
// ours on to tasks, and to follow no proxies that an image names. Everything else is package worker's.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"cairn.dev/cairn/internal/worker/keep"
	"cairn.dev/cairn/internal/worker/process"
)

func main() {
	keep.Main()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "cairn-worker:", err)
		os.Exit(64) // of 64 to 69, which say that the fault is not a task's
	}
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func run(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("cairn-worker", flag.ContinueOnError)
	server := f.String("server", os.Getenv("CAIRN_SERVER"), "address of the work server")
	pool := f.String("pool", "default", "pool that it works for")
	name := f.String("name", "", "its name, unique among workers (default: host name and PID)")
	slots := f.Int("slots", 1, "tasks at a time")
	token := f.String("token-file", "", "file with its secret (else CAIRN_TOKEN)")
	scratch := f.String("scratch", "/tmp/cairn-worker", "folder that is its own: in a pod an emptyDir, for overlays cannot lie on the image itself")
	address := f.String("address", "", "IP address at which others find it, for daemons")
	meet := f.String("meet", "", "folder that the containers of its pod have in common, where they are one task")
	member := f.String("member", "", "be the container of this name of such a task, and run the program behind the flags when it is its turn")
	single := f.Bool("single", false, "the container is for one task only")
	resources := f.Bool("resources", false, "make requests of tasks to the cluster that it is in, and run no programs")
	bare := f.Bool("bare", false, "all tasks ask for no namespaces")
	verbose := f.Bool("verbose", false, "say more")
	install := f.String("install", "", "copy this program to a file, and do nothing else")
	var fresh, shared, entrypoint, command list
	f.Var(&fresh, "fresh", "folder that is new for each task; may be repeated")
	f.Var(&shared, "keep", "folder that tasks share; may be repeated")
	f.Var(&entrypoint, "entrypoint", "a word of the image's entrypoint; may be repeated")
	f.Var(&command, "command", "a word of the image's command; may be repeated")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *install != "" {
		return copySelf(*install)
	}
	if *member != "" {
		return process.Member(ctx, *meet, *member, f.Args(), os.Environ())
	}
	level := slog.LevelInfo
	if *verbose {
		level = slog.LevelDebug
	}
	return process.Run(ctx, process.Config{Server: *server, CA: os.Getenv("CAIRN_CA"), Direct: true, Token: os.Getenv("CAIRN_TOKEN"), TokenFile: *token, Pool: *pool, Name: *name, Slots: *slots, Scratch: *scratch, Single: *single, Bare: *bare, Address: *address, Meet: *meet, Resources: *resources,
		Fresh: fresh, Keep: shared, Entrypoint: entrypoint, Command: command, Env: os.Environ(),
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))})
}

// copySelf is how the worker gets into somebody else's container: into a volume
// that both see.
func copySelf(to string) error {
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("copy the worker: %w", err)
	}
	defer from.Close()
	out, err := os.OpenFile(to+".part", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o555)
	if err != nil {
		return fmt.Errorf("copy the worker: %w", err)
	}
	_, err = io.Copy(out, from)
	if err = errors.Join(err, out.Close()); err == nil {
		err = os.Rename(out.Name(), to) // whole, or not at all
	}
	if err != nil {
		return fmt.Errorf("copy the worker to %s: %w", to, err)
	}
	return nil
}
