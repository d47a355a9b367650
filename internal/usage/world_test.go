package usage

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/db"
)

// world is a ledger with its database and a clock that stands still.
type world struct {
	testing.TB
	ctx   context.Context
	path  string
	clock *clock.Fake
	cfg   Config
	db    *db.DB
	l     *Ledger
}

func newWorld(t testing.TB) *world {
	w := &world{TB: t, ctx: context.Background(), path: filepath.Join(t.TempDir(), "usage.db"), clock: clock.NewFake(day0)}
	w.cfg.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	w.start()
	t.Cleanup(func() { w.db.Close() })
	return w
}

func (w *world) start() {
	w.Helper()
	var err error
	if w.db, err = db.Open(w.ctx, db.Config{Path: w.path, Sync: db.Normal, Schema: Schema, Readers: 1}); err != nil {
		w.Fatal(err)
	}
	w.cfg.DB, w.cfg.Clock = w.db, w.clock
	if w.l, err = Open(w.ctx, w.cfg); err != nil {
		w.Fatal(err)
	}
}

// stop ends the process cleanly, crash does not.
func (w *world) stop() {
	w.Helper()
	if err := w.l.Close(); err != nil {
		w.Fatal(err)
	}
	w.crash()
}

func (w *world) crash() {
	w.Helper()
	if err := w.db.Close(); err != nil {
		w.Fatal(err)
	}
}

func (w *world) tick() { w.l.tick(w.ctx) }

// pass lets time pass as a running ledger sees it.
func (w *world) pass(d time.Duration) {
	for step := 20 * time.Second; d > 0; d -= step {
		w.clock.Advance(min(step, d))
		w.tick()
	}
}

func (w *world) report(by Identity, s Statement) Receipt {
	w.Helper()
	rc, err := w.l.Report(w.ctx, by, s)
	if err != nil {
		w.Fatalf("report %+v: %v", s, err)
	}
	return rc
}

// last is the last use of a short-named digest, in hours of the story, "!" when
// it goes on, "" when there is none.
func (w *world) last(name string) string {
	u, _ := w.l.LastUse(dg(name), "")
	if u.At.IsZero() {
		return ""
	}
	s := fmt.Sprint(u.At.Sub(day0).Hours())
	if u.Now {
		s += "!"
	}
	return s
}

func (w *world) wantLast(name, want string) {
	w.Helper()
	if got := w.last(name); got != want {
		w.Errorf("last use of %s is %q, want %q", name, got, want)
	}
}

// inUse are the short names of those of names that are in use now.
func (w *world) inUse(names ...string) (out []string) {
	for _, n := range names {
		if strings.HasSuffix(w.last(n), "!") {
			out = append(out, n)
		}
	}
	return out
}

// inDB is a number from the database.
func (w *world) inDB(query string, args ...any) (n int64) {
	w.Helper()
	err := w.db.Read(w.ctx, func(q db.Query) error {
		_, err := q.Row(w.ctx, query, args, &n)
		return err
	})
	if err != nil {
		w.Fatal(err)
	}
	return n
}

func use(name string, source Source, subject string) Use {
	return Use{Digest: dg(name), Source: source, Subject: subject}
}
