package serve

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"cairn.dev/cairn/internal/task"
)

// Who waits for something to happen is let go when the server stops; who is
// served is waited for.
func TestLeaving(t *testing.T) {
	here, ended, release := make(chan bool, 4), make(chan string, 4), make(chan bool)
	srv := httptest.NewUnstartedServer(nil)
	srv.Config.Handler = leaving(srv.Config, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		here <- true
		select {
		case <-r.Context().Done():
			ended <- "let go: " + r.URL.Path
		case <-release:
			ended <- "served: " + r.URL.Path
		}
	}))
	srv.Start()
	defer srv.Close()
	waiting := []string{task.PathWork, "/api/v1/runs/x/logs?follow=true"}
	served := []string{"/v2/a/blobs/uploads/1", "/api/v1/runs/x/logs"}
	for _, path := range append(waiting, served...) {
		go func() {
			req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, srv.URL+path, nil)
			if err != nil {
				t.Error(err)
				return
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Errorf("%s: %v", path, err)
				return
			}
			resp.Body.Close()
		}()
		<-here
	}
	stopped := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		stopped <- srv.Config.Shutdown(ctx)
	}()
	for range waiting {
		if got := <-ended; got != "let go: "+task.PathWork && got != "let go: /api/v1/runs/x/logs" {
			t.Error(got)
		}
	}
	close(release)
	for range served {
		if got := <-ended; got != "served: /v2/a/blobs/uploads/1" && got != "served: /api/v1/runs/x/logs" {
			t.Error(got)
		}
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
