package worker

import (
	"context"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/work/door"
	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/internal/work/worktest"
	"cairn.dev/cairn/internal/worker/isolate"
)

// Real programs, by a real worker, of the real server, over HTTP.
func TestRealServer(t *testing.T) {
	ctx, end := context.WithCancel(t.Context())
	defer end()
	d, err := db.Open(ctx, db.Config{Path: filepath.Join(t.TempDir(), "work.db"), Sync: db.Full, Schema: work.Schema})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	graphs := worktest.Graphs{}
	graph := graphs.Add(worktest.Fan("fan", 40))
	s, err := work.New(ctx, work.Config{}, work.Deps{DB: d, Clock: clock.Real(), Compile: graphs.Compile})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Run(ctx) }()
	web := httptest.NewServer(door.New(s, nil))
	defer web.Close()

	api, err := NewHTTP(web.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := NewLocal(LocalConfig{Place: isolate.Place{Scratch: filepath.Join(t.TempDir(), "scratch")}, Slots: 2,
		Entrypoint: []string{"sh", "-c", `test "$1" != 3`, "sh"}}, api, clock.Real(), nil)
	if err != nil {
		t.Fatal(err)
	}
	w, err := New(Config{Pool: "", Slots: 2}, Deps{Server: api, Runner: l, Clock: clock.Real()})
	if err == nil {
		t.Fatal("a worker without a pool")
	}
	w, err = New(Config{Pool: "p", Slots: 2}, Deps{Server: api, Runner: l, Clock: clock.Real()})
	if err != nil {
		t.Fatal(err)
	}
	working, leave := context.WithCancel(ctx)
	worked := make(chan error, 1)
	go func() { worked <- w.Run(working) }()

	id, err := s.Submit(ctx, graph, "tester", work.Options{Pool: "p"})
	if err != nil {
		t.Fatal(err)
	}
	var info work.Info
	for info.Ended.IsZero() && err == nil {
		if info, err = s.Get(ctx, id); err == nil {
			err = clock.Sleep(ctx, clock.Real(), 20*time.Millisecond)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if info.Phase != machine.Failed || info.Counts.Failed == 0 || info.Isolation["overlay"] != 40 {
		t.Errorf("the run: %+v", info)
	}
	leave()
	if err := <-worked; err != context.Canceled {
		t.Errorf("the worker ended with %v", err)
	}
	end()
	<-served
}
