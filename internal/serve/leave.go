package serve

import (
	"context"
	"net/http"
	"strings"

	"cairn.dev/cairn/internal/task"
)

// leaving ends requests that only wait for something to happen when the server
// stops: workers that ask for tasks, people who follow logs. All others are
// waited for.
func leaving(srv *http.Server, next http.Handler) http.Handler {
	stops, stop := context.WithCancel(context.Background())
	srv.RegisterOnShutdown(stop)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !waits(r) {
			next.ServeHTTP(w, r)
			return
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(stops, cancel)()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// waits reports whether a request may wait for as long as it likes.
func waits(r *http.Request) bool {
	return r.URL.Path == task.PathWork || strings.HasPrefix(r.URL.Path, "/api/v1/runs/") && strings.HasSuffix(r.URL.Path, "/logs") && r.URL.Query().Get("follow") != ""
}
