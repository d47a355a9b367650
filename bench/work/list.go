package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/work"
)

// lists measures pages of a list of so many ended runs.
func lists(ctx context.Context, b *strings.Builder, runs int) error {
	dir, err := os.MkdirTemp("", "cairn-bench-work")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	d, err := db.Open(ctx, db.Config{Path: filepath.Join(dir, "work.db"), Sync: db.Full, Schema: work.Schema})
	if err != nil {
		return err
	}
	defer d.Close()
	fmt.Fprintf(os.Stderr, "making %d ended runs\n", runs)
	phases := []string{"succeeded", "succeeded", "succeeded", "failed", "canceled"}
	const step = 500
	for n := 1; n <= runs; n += step {
		if err := d.Write(ctx, func(tx *db.Tx) error {
			if _, err := tx.Exec("INSERT OR IGNORE INTO work_documents(id, hash, body) VALUES (1, x'00', x'31')"); err != nil {
				return err
			}
			for i := n; i < min(n+step, runs+1); i++ {
				if _, err := tx.Exec(`INSERT INTO work_runs(num, id, name, namespace, pool, by, documents, live, phase, created, ended, gone, total, succeeded) VALUES (?, ?, ?, ?, 'default', 'ann', 1, 0, ?, ?, ?, ?, 3, 3)`,
					i, fmt.Sprintf("%016x", i), fmt.Sprintf("nightly-%d", i%1000), fmt.Sprintf("team-%d", i%50), phases[i%len(phases)], i*1000, i*1000+500, int64(i)*1000+1<<40); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	s, err := work.New(ctx, work.Config{}, work.Deps{DB: d, Clock: clock.Real(), Compile: compile})
	if err != nil {
		return err
	}
	fmt.Fprintf(b, "\n## Lists of %d ended runs, pages of 100\n\n| | p50 | p99 | wanted |\n|---|---|---|---|\n", runs)
	for _, f := range []struct {
		title  string
		filter work.RunFilter
	}{
		{"all", work.RunFilter{}},
		{"of one namespace", work.RunFilter{Namespace: "team-7"}},
		{"that failed", work.RunFilter{Phase: "failed"}},
		{"that failed, of one namespace", work.RunFilter{Phase: "failed", Namespace: "team-8"}},
		{"of one name", work.RunFilter{Name: "nightly-7"}},
		{"that have not ended", work.RunFilter{Phase: "live"}},
	} {
		var took []time.Duration
		after := ""
		for range 300 {
			begin := time.Now()
			_, next, err := s.Runs(ctx, f.filter, after, 100)
			if err != nil {
				return err
			}
			took = append(took, time.Since(begin))
			after = next
		}
		slices.Sort(took)
		p99 := took[len(took)*99/100]
		fmt.Fprintf(b, "| %s | %s | %s | ≤ 100 ms: %s |\n", f.title, rounded(took[len(took)/2]), rounded(p99), verdict(p99 <= 100*time.Millisecond))
	}
	return nil
}
