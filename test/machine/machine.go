// Package machine gives tests a whole server that runs tasks on the machine of
// the test, and has the images that examples run.
//
// It owns the start and the end of that server. It promises that a test ends by
// [parts.Missing] where tasks cannot be run, and that a server which does not
// stop in order fails its test. What is run on it is the test's; the test's
// program has to call keep.Main first thing in TestMain, because tasks are begun
// by it.
package machine

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/serve"
	"cairn.dev/cairn/internal/serve/servetest"
	"cairn.dev/cairn/test/images"
	"cairn.dev/cairn/test/parts"
)

// Start starts the server, which ends with the test, and returns a client of it.
// edit sets how it works, and may leave all as it is.
func Start(t testing.TB, edit func(*config.Work)) *client.Client {
	t.Helper()
	c := servetest.Config(t)
	c.Work.Pool = "on"
	edit(&c.Work)
	var said servetest.Buffer
	log := slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelInfo}))
	srv, err := serve.New(t.Context(), serve.Config{Config: c}, serve.Deps{Clock: clock.Real(), Log: log, Stdout: &said, Version: serve.Version("test")})
	if err != nil {
		parts.Missing(t, fmt.Sprintf("a machine on which tasks run: %v", err))
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the server did not stop in order: %v\n%s", err, &said)
		}
	})
	cl, err := client.New(client.Config{Server: srv.URL()})
	if err != nil {
		t.Fatal(err)
	}
	all, err := images.Build(t.Context(), os.Stderr)
	if err != nil {
		parts.Missing(t, err.Error())
	}
	for _, i := range all {
		for k, r := range i.Refs { // a name without a host is ours if we have it
			i.Refs[k] = strings.TrimPrefix(r, "library/")
		}
		if err := i.Push(t.Context(), strings.TrimPrefix(srv.URL(), "http://")); err != nil {
			t.Fatal(err)
		}
	}
	return cl
}
