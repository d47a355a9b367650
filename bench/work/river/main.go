// Command river runs tasks that do nothing through the queue of that name, on
// SQLite, and prints how many were done in a second.
//
// It owns nothing but this measurement, and is a module of its own so that
// Cairn does not depend on what it is measured beside. Its jobs are functions
// of its own process: there is no lease and no worker that could be elsewhere.
package main

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
	_ "modernc.org/sqlite"
)

type args struct{}

func (args) Kind() string { return "nothing" }

type worker struct {
	river.WorkerDefaults[args]
	left *atomic.Int64
	done chan struct{}
}

func (w *worker) Work(context.Context, *river.Job[args]) error {
	if w.left.Add(-1) == 0 {
		close(w.done)
	}
	return nil
}

func main() {
	jobs := flag.Int("jobs", 20_000, "tasks")
	workers := flag.Int("workers", 64, "at a time")
	flag.Parse()
	if err := run(context.Background(), *jobs, *workers); err != nil {
		fmt.Fprintln(os.Stderr, "river:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, jobs, workers int) error {
	dir, err := os.MkdirTemp("", "bench-river-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "river.db")+"?_pragma=journal_mode(wal)&_pragma=synchronous(full)&_pragma=busy_timeout(30000)&_txlock=immediate")
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1) // as its documentation wants
	driver := riversqlite.New(db)
	m, err := rivermigrate.New(driver, nil)
	if err != nil {
		return err
	}
	if _, err := m.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	w := &worker{left: &atomic.Int64{}, done: make(chan struct{})}
	w.left.Store(int64(jobs))
	all := river.NewWorkers()
	river.AddWorker(all, w)
	client, err := river.NewClient(driver, &river.Config{
		Logger:            slog.New(slog.DiscardHandler),
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: workers}},
		Workers:           all,
		FetchCooldown:     time.Millisecond,
		FetchPollInterval: 10 * time.Millisecond,
	})
	if err != nil {
		return err
	}
	const batch = 1000
	for n := 0; n < jobs; n += batch {
		params := make([]river.InsertManyParams, min(batch, jobs-n))
		for i := range params {
			params[i].Args = args{}
		}
		if _, err := client.InsertMany(ctx, params); err != nil {
			return fmt.Errorf("insert: %w", err)
		}
	}
	start := time.Now()
	if err := client.Start(ctx); err != nil {
		return err
	}
	<-w.done
	took := time.Since(start)
	fmt.Printf("%.0f\n", float64(jobs)/took.Seconds())
	stop, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return client.Stop(stop)
}
