package work

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/internal/workflow"
)

// punctual is how late a run may begin that has to begin on time.
const punctual = time.Minute

// schedule starts runs at its times.
type schedule struct {
	*workflow.Schedule
	by        string
	pool      string // of its runs
	zone      *time.Location
	hash      [32]byte
	suspended bool // by somebody, whatever its documents say
	created   time.Time
	last      time.Time // the newest of its times that was dealt with, in whatever way
	began     int64     // when the newest run that it began was due, Unix ms; 0: it began none
	next      time.Time // zero: it is suspended
	trouble   string    // why it started nothing the last time
}

// ScheduleInfo is a schedule in a list.
type ScheduleInfo struct {
	Namespace, Name, By string
	Pool                string // whose workers run its runs
	Crons               []string
	Timezone            string
	Suspended           bool
	// Last is when the newest run that it started was due, zero when there is none yet.
	Created, Last, Next time.Time
	Trouble             string // why it started nothing the last time it was due
}

func scheduleKey(namespace, name string) string { return namespace + "/" + name }

// PutSchedule stores a schedule in place of one of its name. Its times count
// from now on, or go on as they were when its documents are the same. Its runs
// are of the pool, [DefaultPool] when empty.
func (s *Server) PutSchedule(ctx context.Context, x *workflow.Schedule, by, pool string) error {
	y, err := newSchedule(x)
	if err != nil {
		return err
	}
	if y.pool, err = poolName(pool); err != nil {
		return fmt.Errorf("schedule %s: %w", scheduleKey(y.Namespace, y.Name), err)
	}
	y.by = by
	return s.do(ctx, func(c *commit) error {
		y.created = s.d.Clock.Now()
		y.last = y.created
		k := scheduleKey(y.Namespace, y.Name)
		old := s.schedules[k]
		if old != nil {
			y.created, y.suspended, y.began = old.created, old.suspended, old.began
			if old.hash == y.hash {
				y.last = old.last
			}
		}
		if err := y.plan(); err != nil {
			return fmt.Errorf("%w: schedule %s: %w", ErrInvalid, k, err)
		}
		c.writes = append(c.writes, func(tx *db.Tx) error {
			var before int64
			if _, err := tx.Row(ctx, "SELECT documents FROM work_schedules WHERE namespace = ? AND name = ?", []any{y.Namespace, y.Name}, &before); err != nil {
				return err
			}
			documents, err := keepDocuments(tx, y.hash, y.Documents)
			if err != nil {
				return err
			}
			if _, err := tx.Exec("INSERT OR REPLACE INTO work_schedules(namespace, name, pool, by, documents, suspended, created, last, began) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
				y.Namespace, y.Name, y.pool, y.by, documents, y.suspended, y.created.UnixMilli(), y.last.UnixMilli(), y.began); err != nil || before == 0 {
				return err
			}
			return dropDocuments(tx, before)
		})
		c.after = append(c.after, func() { s.install(k, y) })
		return nil
	})
}

func newSchedule(x *workflow.Schedule) (*schedule, error) {
	y := &schedule{Schedule: x, zone: time.UTC, hash: sha256.Sum256(x.Documents)}
	if y.Namespace == "" {
		c := *x
		c.Namespace = "default"
		y.Schedule = &c
	}
	name := scheduleKey(y.Namespace, y.Name)
	switch {
	case x.Name == "" || len(name) > maxName || strings.Contains(x.Name, "/"):
		return nil, fmt.Errorf("%w: a schedule has a name without slashes, and at most %d characters with its namespace", ErrInvalid, maxName)
	case len(x.Crons) == 0:
		return nil, fmt.Errorf("%w: schedule %s has no times: write at least one, such as \"0 3 * * *\"", ErrInvalid, name)
	case len(x.Documents) > maxDocuments:
		return nil, fmt.Errorf("%w: schedule %s: its documents have %d bytes, at most %d", ErrInvalid, name, len(x.Documents), maxDocuments)
	case x.Graph == nil || x.Graph.Templates[x.Graph.Entry] == nil:
		return nil, fmt.Errorf("%w: schedule %s: its workflow has nothing to begin with", ErrInvalid, name)
	}
	if x.Timezone != "" {
		zone, err := time.LoadLocation(x.Timezone)
		if err != nil {
			return nil, fmt.Errorf("%w: schedule %s: unknown time zone %q: write one such as Europe/Berlin", ErrInvalid, name, x.Timezone)
		}
		y.zone = zone
	}
	for _, cron := range x.Crons {
		if err := workflow.CheckCron(cron); err != nil {
			return nil, fmt.Errorf("%w: schedule %s: %w", ErrInvalid, name, err)
		}
	}
	return y, nil
}

// plan works out when it comes next.
func (x *schedule) plan() error {
	x.next = time.Time{}
	if x.suspended || x.Suspend {
		return nil
	}
	for _, cron := range x.Crons {
		at, err := nextTime(cron, x.zone, x.last)
		if err != nil {
			return err
		}
		if x.next.IsZero() || at.Before(x.next) {
			x.next = at
		}
	}
	return nil
}

// install puts a schedule to work.
func (s *Server) install(k string, x *schedule) {
	if old := s.schedules[k]; old != nil {
		s.images.remove(old.Graph)
	}
	s.schedules[k] = x
	s.images.add(x.Graph)
	s.expectSchedule(x.next)
}

func (s *Server) expectSchedule(at time.Time) {
	if !at.IsZero() && (s.alarm.IsZero() || at.Before(s.alarm)) {
		s.alarm = at
	}
}

// DeleteSchedule forgets a schedule. Runs that it began go on.
func (s *Server) DeleteSchedule(ctx context.Context, namespace, name string) error {
	return s.dropSchedule(ctx, namespace, name, func(*schedule) bool { return true })
}

// WithdrawSchedule forgets a schedule if it was put by whom is said: it is not
// found where another one was put in its place.
func (s *Server) WithdrawSchedule(ctx context.Context, namespace, name, by string) error {
	return s.dropSchedule(ctx, namespace, name, func(x *schedule) bool { return x.by == by })
}

func (s *Server) dropSchedule(ctx context.Context, namespace, name string, is func(*schedule) bool) error {
	return s.do(ctx, func(c *commit) error {
		k := scheduleKey(namespace, name)
		x := s.schedules[k]
		if x == nil || !is(x) {
			return fmt.Errorf("%w: schedule %s", ErrNotFound, k)
		}
		c.writes = append(c.writes, func(tx *db.Tx) error {
			var documents int64
			if _, err := tx.Row(ctx, "SELECT documents FROM work_schedules WHERE namespace = ? AND name = ?", []any{namespace, name}, &documents); err != nil {
				return err
			}
			if _, err := tx.Exec("DELETE FROM work_schedules WHERE namespace = ? AND name = ?", namespace, name); err != nil {
				return err
			}
			return dropDocuments(tx, documents)
		})
		c.after = append(c.after, func() {
			delete(s.schedules, k)
			s.images.remove(x.Graph)
		})
		return nil
	})
}

// SuspendSchedule keeps a schedule from starting runs, or lets it again. Times
// that passed meanwhile are not made up for.
func (s *Server) SuspendSchedule(ctx context.Context, namespace, name string, on bool) error {
	return s.do(ctx, func(c *commit) error {
		k := scheduleKey(namespace, name)
		x := s.schedules[k]
		if x == nil {
			return fmt.Errorf("%w: schedule %s", ErrNotFound, k)
		}
		y := *x
		if y.suspended = on; !on {
			y.last = s.d.Clock.Now()
		}
		if err := y.plan(); err != nil {
			return err
		}
		c.writes = append(c.writes, func(tx *db.Tx) error {
			_, err := tx.Exec("UPDATE work_schedules SET suspended = ?, last = ? WHERE namespace = ? AND name = ?", on, y.last.UnixMilli(), namespace, name)
			return err
		})
		c.after = append(c.after, func() { s.install(k, &y) })
		return nil
	})
}

// Schedules are all schedules, by namespace and name.
func (s *Server) Schedules() []ScheduleInfo {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]ScheduleInfo, 0, len(s.schedules))
	for _, x := range s.schedules {
		out = append(out, ScheduleInfo{Namespace: x.Namespace, Name: x.Name, By: x.by, Pool: x.pool, Crons: x.Crons, Timezone: x.Timezone,
			Suspended: x.suspended || x.Suspend, Created: x.created, Last: millis(x.began), Next: x.next, Trouble: x.trouble})
	}
	slices.SortFunc(out, func(a, b ScheduleInfo) int {
		return strings.Compare(scheduleKey(a.Namespace, a.Name), scheduleKey(b.Namespace, b.Name))
	})
	return out
}

// readSchedules brings them back.
func (s *Server) readSchedules(ctx context.Context) error {
	return s.d.DB.ReadOne(ctx, func(q db.Query) error {
		rows, err := q.Query(ctx, "SELECT s.namespace, s.name, s.pool, s.by, s.suspended, s.created, s.last, s.began, d.body FROM work_schedules s JOIN work_documents d ON d.id = s.documents ORDER BY s.namespace, s.name")
		if err != nil {
			return err
		}
		for rows.Next() {
			var namespace, name, pool, by string
			var suspended bool
			var created, last, began int64
			var body []byte
			if err := rows.Scan(&namespace, &name, &pool, &by, &suspended, &created, &last, &began, &body); err != nil {
				return err
			}
			x, err := s.compileSchedule(body)
			if err == nil {
				x.by, x.pool, x.suspended, x.created, x.last, x.began = by, pool, suspended, millis(created), millis(last), began
				err = x.plan()
			}
			if err != nil { // one must not keep the others from running
				s.log.Error("a schedule cannot be brought back; it starts nothing until it is put again", "namespace", namespace, "name", name, "error", err)
				continue
			}
			s.install(scheduleKey(namespace, name), x)
		}
		return rows.Err()
	})
}

func (s *Server) compileSchedule(documents []byte) (*schedule, error) {
	if s.d.CompileSchedule == nil {
		return nil, errors.New("this server reads no schedules")
	}
	x, err := s.d.CompileSchedule(documents)
	if err != nil {
		return nil, err
	}
	return newSchedule(x)
}

// schedule begins what is due.
func (c *commit) schedule(wall time.Time) {
	c.s.alarm = time.Time{}
	for _, k := range c.s.scheduleKeys() {
		x := c.s.schedules[k]
		if !x.next.IsZero() && !x.next.After(wall) {
			c.fire(k, x, wall)
		}
		c.s.expectSchedule(x.next)
	}
}

func (s *Server) scheduleKeys() []string {
	keys := make([]string, 0, len(s.schedules))
	for k := range s.schedules {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// fire deals with the times of a schedule that have come: of many that were
// missed, the newest alone is made up for, if it is not too late.
func (c *commit) fire(k string, x *schedule, wall time.Time) {
	s := c.s
	due := x.next
	for range 10_000 { // after years of silence the rest has its turn with the next tick
		y := *x
		y.last = due
		if err := y.plan(); err != nil || y.next.After(wall) {
			break
		}
		due = y.next
	}
	x.last, x.trouble = due, ""
	if err := x.plan(); err != nil {
		x.trouble = err.Error()
	}
	last := x.last.UnixMilli()
	c.writes = append(c.writes, func(tx *db.Tx) error {
		_, err := tx.Exec("UPDATE work_schedules SET last = ? WHERE namespace = ? AND name = ?", last, x.Namespace, x.Name)
		return err
	})
	if wall.Sub(due) > max(x.Late, punctual) {
		x.trouble = fmt.Sprintf("%s was missed, and is too long ago", due.Format(time.RFC3339))
		return
	}
	if why, err := c.start(k, x, due); err != nil {
		x.trouble = err.Error()
		s.log.Error("a schedule could not start a run", "schedule", k, "error", err)
	} else {
		x.trouble = why
	}
}

// start begins a run of a schedule, or says why not.
func (c *commit) start(k string, x *schedule, due time.Time) (why string, err error) {
	s := c.s
	if x.When != nil || x.StopWhen != nil {
		scope, err := s.scheduleScope(k, x)
		if err != nil {
			return "", err
		}
		if x.StopWhen != nil {
			if yes, err := isTrue(x.StopWhen, scope); err != nil {
				return "", fmt.Errorf("condition to stop: %w", err)
			} else if yes {
				x.suspended, x.next = true, time.Time{}
				c.writes = append(c.writes, func(tx *db.Tx) error {
					_, err := tx.Exec("UPDATE work_schedules SET suspended = 1 WHERE namespace = ? AND name = ?", x.Namespace, x.Name)
					return err
				})
				return "its condition to stop has come true", nil
			}
		}
		if x.When != nil {
			if yes, err := isTrue(x.When, scope); err != nil {
				return "", fmt.Errorf("when: %w", err)
			} else if !yes {
				return "its condition was false", nil
			}
		}
	}
	for _, r := range slices.Clone(s.order) {
		if r.schedule != k || r.finished {
			continue
		}
		switch x.Overlap {
		case "forbid":
			return "run " + r.name + " has not ended", nil
		case "replace":
			if err := c.apply(r, machine.Cancel{By: "schedule " + k}); err != nil {
				return "", err
			}
		}
	}
	name := x.Graph.Name
	if name == "" {
		name = x.Name
	}
	r, n, err := s.prepare(x.Graph, x.by, Options{Name: strings.TrimSuffix(name, "-") + "-", Namespace: x.Namespace, Pool: x.pool, schedule: k, scheduled: due})
	if err != nil {
		return "", err
	}
	if _, err = c.submit(context.Background(), r, n); err != nil {
		return "", err
	}
	x.began = due.UnixMilli()
	began := x.began
	c.writes = append(c.writes, func(tx *db.Tx) error {
		_, err := tx.Exec("UPDATE work_schedules SET began = ? WHERE namespace = ? AND name = ?", began, x.Namespace, x.Name)
		return err
	})
	return "", nil
}

// scheduleScope is what the conditions of a schedule see.
func (s *Server) scheduleScope(k string, x *schedule) (valueScope, error) {
	counts := map[string]any{"succeeded": 0.0, "failed": 0.0}
	err := s.d.DB.ReadOne(context.Background(), func(q db.Query) error {
		var good, bad float64
		_, err := q.Row(context.Background(), "SELECT count(*) FILTER (WHERE phase = 'succeeded'), count(*) FILTER (WHERE phase IN ('failed', 'error')) FROM work_runs WHERE schedule = ? AND live = 0 AND created >= ?",
			[]any{k, x.created.UnixMilli()}, &good, &bad)
		counts["succeeded"], counts["failed"] = good, bad
		return err
	})
	active := 0.0
	for _, r := range s.order {
		if r.schedule == k {
			active++
		}
	}
	counts["active"], counts["name"], counts["namespace"] = active, x.Name, x.Namespace
	if x.began != 0 { // conditions ask whether there was one
		counts["lastScheduledTime"] = millis(x.began).Format(time.RFC3339)
	}
	return valueScope{"cronworkflow": counts, "schedule": counts, "now": s.now().Format(time.RFC3339)}, err
}

// valueScope is a scope of plain values.
type valueScope map[string]any

// Lookup implements [workflow.Scope].
func (v valueScope) Lookup(path ...string) (workflow.Value, bool) {
	var at workflow.Value = map[string]any(v)
	for _, p := range path {
		m, ok := at.(map[string]any)
		if !ok {
			return nil, false
		}
		if at, ok = m[p]; !ok {
			return nil, false
		}
	}
	return at, true
}

func isTrue(e workflow.Expr, s workflow.Scope) (bool, error) {
	v, err := e.Eval(s)
	if err != nil {
		return false, err
	}
	b, ok := v.(bool)
	if !ok {
		return false, fmt.Errorf("%s is %v, neither true nor false", e, v)
	}
	return b, nil
}
