package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

var testSchema = []string{
	"CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT NOT NULL UNIQUE); CREATE TABLE child (k INTEGER REFERENCES t(k) DEFERRABLE INITIALLY DEFERRED)",
	"ALTER TABLE t ADD COLUMN n INTEGER NOT NULL DEFAULT 0; CREATE TABLE big (k INTEGER PRIMARY KEY, v TEXT)",
}

func open(t testing.TB, cfg Config) *DB {
	t.Helper()
	if cfg.Path == "" {
		cfg.Path = filepath.Join(t.TempDir(), "test.db")
	}
	if cfg.Schema == nil {
		cfg.Schema = testSchema
	}
	d, err := Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func insert(d *DB, v string) error {
	return d.Write(context.Background(), func(tx *Tx) error {
		_, err := tx.Insert("INSERT INTO t(v) VALUES (?)", v)
		return err
	})
}

// values are all v in order of k, by a view of its own.
func values(t testing.TB, d *DB) string {
	t.Helper()
	var vs []string
	err := d.Read(context.Background(), func(q Query) error {
		rows, err := q.Query(context.Background(), "SELECT v FROM t ORDER BY k")
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var v string
			if err := rows.Scan(&v); err != nil {
				return err
			}
			vs = append(vs, v)
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(vs, " ")
}

func wantValues(t testing.TB, d *DB, want string) {
	t.Helper()
	if got := values(t, d); got != want {
		t.Fatalf("the table holds %q, want %q", got, want)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestReopen(t *testing.T) {
	// Characters that mean something in a URL are ordinary ones in a path.
	path := filepath.Join(t.TempDir(), "a b%20c?d#e", "x&y=z.db")
	d, err := Open(t.Context(), Config{Path: path, Schema: testSchema[:1]})
	must(t, err)
	must(t, insert(d, "one"))
	must(t, d.Close())
	must(t, d.Close())
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	d = open(t, Config{Path: path}) // with one migration more
	wantValues(t, d, "one")
	var n int
	must(t, d.ReadOne(t.Context(), func(q Query) error {
		_, err := q.Row(t.Context(), "SELECT n FROM t", nil, &n)
		return err
	}))
}

func TestNewerSchema(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	must(t, open(t, Config{Path: path}).Close())
	_, err := Open(t.Context(), Config{Path: path, Schema: testSchema[:1]})
	if !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), path) {
		t.Fatalf("got %v, want ErrNewer naming the file", err)
	}
}

func TestFailedMigrationLeavesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	bad := append(testSchema[:1:1], "CREATE TABLE u (k); CREATE TABLE t (again)")
	if _, err := Open(t.Context(), Config{Path: path, Schema: bad}); err == nil || !strings.Contains(err.Error(), "schema 2") {
		t.Fatalf("got %v, want an error that names schema 2", err)
	}
	d := open(t, Config{Path: path, Schema: append(testSchema[:1:1], "CREATE TABLE u (k)")})
	must(t, insert(d, "one"))
}

func TestNotADatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	must(t, os.WriteFile(path, []byte(strings.Repeat("this is not a database\n", 100)), 0o600))
	if _, err := Open(t.Context(), Config{Path: path}); err == nil {
		t.Fatal("opened")
	}
}

func TestErrorTouchesNoNeighbour(t *testing.T) {
	d := open(t, Config{})
	release := block(t, d)
	boom := errors.New("boom")
	errs := make(chan error, 30)
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			errs <- d.Write(t.Context(), func(tx *Tx) error {
				if _, err := tx.Insert("INSERT INTO t(k, v) VALUES (?, ?)", i+1, fmt.Sprint(i+1)); err != nil {
					return err
				}
				switch i % 3 {
				case 1:
					return boom
				case 2: // breaks a constraint
					_, err := tx.Exec("INSERT INTO t(k, v) VALUES (?, 'x')", i+1)
					return err
				}
				return nil
			})
		})
	}
	waitQueue(d, 30)
	release()
	wg.Wait()
	close(errs)
	var ok, booms int
	for err := range errs {
		switch {
		case err == nil:
			ok++
		case errors.Is(err, boom):
			booms++
		}
	}
	if ok != 10 || booms != 10 {
		t.Fatalf("%d succeeded and %d got their own error, want 10 and 10", ok, booms)
	}
	wantValues(t, d, "1 4 7 10 13 16 19 22 25 28")
}

func TestReadIsConsistentAndReadOnly(t *testing.T) {
	d := open(t, Config{})
	must(t, insert(d, "one"))
	count := func(q Query) (n int) {
		if _, err := q.Row(t.Context(), "SELECT count(*) FROM t", nil, &n); err != nil {
			t.Error(err)
		}
		return n
	}
	must(t, d.Read(t.Context(), func(q Query) error {
		a := count(q)
		if err := insert(d, "two"); err != nil {
			return err
		}
		if b := count(q); a != 1 || b != 1 {
			t.Errorf("the view moved: %d, then %d", a, b)
		}
		return nil
	}))
	must(t, d.ReadOne(t.Context(), func(q Query) error {
		if n := count(q); n != 2 {
			t.Errorf("%d rows, want 2", n)
		}
		return nil
	}))
	for _, query := range []string{"DELETE FROM t", "INSERT INTO t(v) VALUES ('x')", "DROP TABLE t"} {
		if err := d.Read(t.Context(), func(q Query) error {
			_, err := q.Row(t.Context(), query, nil)
			return err
		}); !errors.Is(err, ErrReadOnly) {
			t.Errorf("%s in a read: %v", query, err)
		}
	}
	wantValues(t, d, "one two")
}

func TestOpenRowsPoisonNothing(t *testing.T) {
	d := open(t, Config{Readers: 1})
	for i := range 10 {
		must(t, insert(d, fmt.Sprint(i)))
	}
	leave := func(q Query) error { // forgets to close
		rows, err := q.Query(t.Context(), "SELECT v FROM t")
		if err == nil && !rows.Next() {
			err = rows.Err()
		}
		return err
	}
	for _, read := range []func(context.Context, func(Query) error) error{d.Read, d.ReadOne} {
		must(t, read(t.Context(), leave))
		must(t, insert(d, fmt.Sprintf("new%p", read)))
		var n int
		must(t, read(t.Context(), func(q Query) error {
			_, err := q.Row(t.Context(), "SELECT count(*) FROM t", nil, &n)
			return err
		}))
		if want := strings.Count(values(t, d), " ") + 1; n != want || n < 11 {
			t.Fatalf("%d rows after rows were left open, want %d: the view is stale", n, want)
		}
	}
	// In a write: one that succeeds, one that fails, one with RETURNING.
	must(t, d.Write(t.Context(), func(tx *Tx) error { return leave(tx) }))
	boom := errors.New("boom")
	if err := d.Write(t.Context(), func(tx *Tx) error { return errors.Join(leave(tx), boom) }); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	must(t, d.Write(t.Context(), func(tx *Tx) error {
		_, err := tx.Query(t.Context(), "UPDATE t SET n = n + 1 RETURNING v")
		return err
	}))
	must(t, insert(d, "last"))
	if v := values(t, d); !strings.HasSuffix(v, "last") {
		t.Fatal(v)
	}
}

func TestSameQueryNested(t *testing.T) {
	d := open(t, Config{})
	for i := range 4 {
		must(t, insert(d, fmt.Sprint(i)))
	}
	const query = "SELECT v FROM t WHERE k > ? ORDER BY k"
	var got []string
	var walk func(q Query, depth int) error
	walk = func(q Query, depth int) error {
		rows, err := q.Query(t.Context(), query, depth)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var v string
			if err := rows.Scan(&v); err != nil {
				return err
			}
			got = append(got, v)
			if depth < 3 {
				if err := walk(q, depth+1); err != nil {
					return err
				}
				break
			}
		}
		return rows.Err()
	}
	for range 2 {
		got = nil
		must(t, d.Read(t.Context(), func(q Query) error { return walk(q, 0) }))
		if s := strings.Join(got, ""); s != "0123" {
			t.Fatalf("got %q", s)
		}
	}
	// Outer rows go on after an inner use of the same statement.
	must(t, d.Write(t.Context(), func(tx *Tx) error {
		rows, err := tx.Query(t.Context(), query, 0)
		if err != nil {
			return err
		}
		defer rows.Close()
		n := 0
		for rows.Next() {
			n++
			var v string
			if ok, err := tx.Row(t.Context(), query, []any{2}, &v); err != nil || !ok || v != "2" {
				t.Errorf("inner: %q, %v, %v", v, ok, err)
			}
		}
		if n != 4 {
			t.Errorf("the outer rows were %d, want 4", n)
		}
		return rows.Err()
	}))
}

func TestStatementsAreBoundedAndReused(t *testing.T) {
	d := open(t, Config{Readers: 1})
	must(t, d.Read(t.Context(), func(q Query) error {
		for range 3 {
			var n int
			if _, err := q.Row(t.Context(), "SELECT 1", nil, &n); err != nil {
				return err
			}
		}
		return nil
	}))
	c := <-d.readers
	if n := len(c.stmts); n != 3 { // BEGIN, COMMIT and the one
		t.Errorf("%d statements, want 3", n)
	}
	d.readers <- c
	for i := range 3 * maxStatements {
		must(t, d.ReadOne(t.Context(), func(q Query) error {
			var n int
			_, err := q.Row(t.Context(), fmt.Sprintf("SELECT %d", i), nil, &n)
			if n != i {
				t.Errorf("got %d, want %d", n, i)
			}
			return err
		}))
	}
	if n := len(c.stmts); n > maxStatements {
		t.Errorf("%d statements are kept, the limit is %d", n, maxStatements)
	}
}

func TestDeferredConstraintFailsTheCommit(t *testing.T) {
	d := open(t, Config{})
	err := d.Write(t.Context(), func(tx *Tx) error {
		_, err := tx.Exec("INSERT INTO child(k) VALUES (99)")
		return err
	})
	if err == nil {
		t.Fatal("a reference to nothing was committed")
	}
	must(t, insert(d, "after"))
	wantValues(t, d, "after")
}

func TestFault(t *testing.T) {
	boom := errors.New("the power went")
	for _, point := range []string{BeforeCommit, AfterCommit} {
		t.Run(point, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.db")
			var armed atomic.Bool
			d := open(t, Config{Path: path, Fault: func(p string) error {
				if armed.Load() && p == point {
					return boom
				}
				return nil
			}})
			must(t, insert(d, "a"))
			release := block(t, d)
			res := make(chan error, 3)
			for i := range 3 {
				go func() { res <- insert(d, fmt.Sprint("b", i)) }()
				waitQueue(d, i+1)
			}
			armed.Store(true)
			release()
			for range 3 {
				if err := <-res; !errors.Is(err, ErrClosed) || !errors.Is(err, boom) {
					t.Errorf("waiter: %v", err)
				}
			}
			armed.Store(false) // and yet it stays dead
			if err := insert(d, "c"); !errors.Is(err, ErrClosed) {
				t.Errorf("write: %v", err)
			}
			if err := d.ReadOne(t.Context(), func(Query) error { t.Error("read"); return nil }); !errors.Is(err, ErrClosed) {
				t.Errorf("read: %v", err)
			}
			must(t, d.Close())
			want := "a"
			if point == AfterCommit {
				want = "a b0 b1 b2"
			}
			wantValues(t, open(t, Config{Path: path}), want)
		})
	}
}

func TestClose(t *testing.T) {
	d := open(t, Config{})
	release := block(t, d)
	res := make(chan error, 20)
	for i := range 20 {
		go func() { res <- insert(d, fmt.Sprint(i)) }()
	}
	waitQueue(d, 20)
	closed := make(chan error)
	go func() { closed <- d.Close() }()
	<-d.stop
	if err := insert(d, "late"); !errors.Is(err, ErrClosed) {
		t.Errorf("write after close: %v", err)
	}
	release()
	for range 20 { // what was accepted is kept
		if err := <-res; err != nil {
			t.Error(err)
		}
	}
	must(t, <-closed)
	if err := d.Read(t.Context(), func(Query) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("read after close: %v", err)
	}
	entries, err := os.ReadDir(filepath.Dir(d.cfg.Path))
	must(t, err)
	if len(entries) != 1 {
		t.Errorf("%v is left: the log was not put into the file", entries)
	}
}

func TestManyWritersAndReaders(t *testing.T) {
	d := open(t, Config{Sync: Normal})
	const writers, each = 16, 50
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 6 { // more than connections
		wg.Go(func() {
			last := 0
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := d.Read(t.Context(), func(q Query) error {
					var n, m int
					if _, err := q.Row(t.Context(), "SELECT count(*) FROM t", nil, &n); err != nil {
						return err
					}
					if _, err := q.Row(t.Context(), "SELECT count(*) FROM child", nil, &m); err != nil {
						return err
					}
					if n != m || n < last {
						return fmt.Errorf("saw %d and %d rows after %d", n, m, last)
					}
					last = n
					return nil
				}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var w sync.WaitGroup
	for i := range writers {
		w.Go(func() {
			for j := range each {
				if err := d.Write(t.Context(), func(tx *Tx) error {
					id, err := tx.Insert("INSERT INTO t(v) VALUES (?)", fmt.Sprintf("%d-%d", i, j))
					if err != nil {
						return err
					}
					_, err = tx.Exec("INSERT INTO child(k) VALUES (?)", id)
					return err
				}); err != nil {
					t.Error(err)
				}
				// One's own write is seen.
				var n int
				if err := d.ReadOne(t.Context(), func(q Query) error {
					_, err := q.Row(t.Context(), "SELECT count(*) FROM t WHERE v = ?", []any{fmt.Sprintf("%d-%d", i, j)}, &n)
					return err
				}); err != nil || n != 1 {
					t.Errorf("own write: %d, %v", n, err)
				}
			}
		})
	}
	w.Wait()
	close(stop)
	wg.Wait()
	if n := strings.Count(values(t, d), " ") + 1; n != writers*each {
		t.Fatalf("%d rows, want %d", n, writers*each)
	}
}

func TestRowTypes(t *testing.T) {
	d := open(t, Config{})
	err := d.ReadOne(t.Context(), func(q Query) error {
		var n int
		ok, err := q.Row(t.Context(), "SELECT 1 WHERE 0", nil, &n)
		if ok || err != nil {
			t.Errorf("no row: %v, %v", ok, err)
		}
		if ok, err := q.Row(t.Context(), "SELECT 'x'", nil, &n); ok || err == nil {
			t.Errorf("a text in a number: %v, %v", ok, err)
		}
		if _, err := q.Row(t.Context(), "SELECT nothing", nil, &n); err == nil || !strings.Contains(err.Error(), "SELECT nothing") {
			t.Errorf("an error that does not name the statement: %v", err)
		}
		var b []byte
		var s sql.NullString
		ok, err = q.Row(t.Context(), "SELECT x'0102', NULL", nil, &b, &s)
		if !ok || err != nil || len(b) != 2 || s.Valid {
			t.Errorf("%v %v %v %v", ok, err, b, s)
		}
		return nil
	})
	must(t, err)
}
