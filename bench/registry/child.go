package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"time"
)

// child runs one of the servers or jobs that need a process of their own and
// are made of this program.
func child(ctx context.Context, what string, args []string) error {
	for name, c := range map[string]struct {
		args int
		run  func(context.Context, []string) error
	}{
		"child-bare":    {2, childBare},
		"child-ledger":  {3, childLedger},
		"child-collect": {3, childCollect},
		"child-fill":    {3, childFill},
		"child-plan":    {1, childPlan},
	} {
		if name == what && len(args) == c.args {
			return c.run(ctx, args)
		}
	}
	return fmt.Errorf("no child is called %s with %d arguments", what, len(args))
}

// childBare answers everything with the bytes of a file, with the headers of a
// registry. ARGS: address, file.
func childBare(ctx context.Context, args []string) error {
	body, err := os.ReadFile(args[1])
	if err != nil {
		return fmt.Errorf("read what to answer: %w", err)
	}
	length := []string{strconv.Itoa(len(body))}
	kind := []string{mediaType}
	return listen(ctx, args[0], http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h["Content-Type"] = kind
		h["Content-Length"] = length
		_, _ = w.Write(body)
	}))
}

// listen serves h until ctx ends.
func listen(ctx context.Context, addr string, h http.Handler) error {
	srv := &http.Server{Addr: addr, Handler: h, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve on %s: %w", addr, err)
	}
	return nil
}
