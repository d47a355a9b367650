package work

import (
	"context"
	"fmt"
	"strings"
	"time"

	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/work/machine"
)

// Info is a run in a list.
type Info struct {
	ID, Name, Namespace, By string
	Pool                    string // whose workers run its tasks
	Schedule                string // that began it; "" for none
	Phase                   machine.Phase
	Message                 string
	Suspended               bool
	Created, Ended          time.Time
	Counts                  machine.Counts
	Isolation               map[string]int // what its tasks got; of one run only
	Outputs                 map[string]any // of the whole run; of one run only
}

// RunFilter says which runs are wanted; what is empty says nothing.
type RunFilter struct {
	Namespace, Name, Schedule string
	Phase                     string // "live" for all that have not ended
}

const maxPage = 1000

// Runs are the runs that the filter wants, newest first, after the one with
// the id, at most limit (100 when 0); after is "" for the first page. What is
// returned to go on is "" when there are no more.
func (s *Server) Runs(ctx context.Context, f RunFilter, after string, limit int) (out []Info, next string, err error) {
	if limit <= 0 {
		limit = 100
	}
	limit = min(limit, maxPage)
	before := int64(1) << 62
	if after != "" {
		if before, _, err = s.number(ctx, after); err != nil {
			return nil, "", err
		}
	}
	where := []string{"num < ?"}
	args := []any{before}
	also := func(column, value string) {
		if value != "" {
			where, args = append(where, column+" = ?"), append(args, value)
		}
	}
	also("namespace", f.Namespace)
	also("name", f.Name)
	also("schedule", f.Schedule)
	switch {
	case f.Phase == "live":
		where = append(where, "live = 1")
	case f.Phase != "":
		p, err := machine.ParsePhase(f.Phase)
		if err != nil {
			return nil, "", fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		also("phase", p.String())
	}
	args = append(args, limit+1)
	err = s.d.DB.ReadOne(ctx, func(q db.Query) error {
		rows, err := q.Query(ctx, "SELECT "+infoColumns+" FROM work_runs WHERE "+strings.Join(where, " AND ")+" ORDER BY num DESC LIMIT ?", args...)
		if err != nil {
			return err
		}
		for rows.Next() {
			i, err := scanInfo(rows.Scan)
			if err != nil {
				return err
			}
			out = append(out, i)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, "", err
	}
	if len(out) > limit {
		out = out[:limit]
		next = out[limit-1].ID
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for i := range out {
		if r := s.runs[out[i].ID]; r != nil {
			out[i].live(r)
		}
	}
	return out, next, nil
}

const infoColumns = "id, name, namespace, pool, by, schedule, phase, message, created, ended, total, succeeded, failed, skipped, canceled, retries"

func scanInfo(scan func(...any) error) (i Info, err error) {
	var phase string
	var created, ended int64
	if err := scan(&i.ID, &i.Name, &i.Namespace, &i.Pool, &i.By, &i.Schedule, &phase, &i.Message, &created, &ended,
		&i.Counts.Total, &i.Counts.Succeeded, &i.Counts.Failed, &i.Counts.Skipped, &i.Counts.Canceled, &i.Counts.Retries); err != nil {
		return i, err
	}
	i.Created, i.Ended = millis(created), millis(ended)
	i.Phase, err = machine.ParsePhase(phase)
	return i, err
}

// live is what memory knows better than the row.
func (i *Info) live(r *run) {
	x := r.m.Summary()
	i.Phase, i.Message, i.Counts, i.Suspended, i.Ended = x.Phase, x.Message, x.Counts, x.Paused, x.Ended
}

// Get is one run.
func (s *Server) Get(ctx context.Context, id string) (i Info, err error) {
	err = s.d.DB.ReadOne(ctx, func(q db.Query) error {
		rows, err := q.Query(ctx, "SELECT "+infoColumns+" FROM work_runs WHERE id = ?", id)
		if err != nil {
			return err
		}
		if !rows.Next() {
			if err := rows.Err(); err != nil {
				return err
			}
			return fmt.Errorf("%w: run %q", ErrNotFound, id)
		}
		i, err = scanInfo(rows.Scan)
		return err
	})
	if err != nil {
		return i, err
	}
	return i, s.look(ctx, id, func(m *machine.Machine) error {
		x := m.Summary()
		i.Phase, i.Message, i.Counts, i.Suspended, i.Ended = x.Phase, x.Message, x.Counts, x.Paused, x.Ended
		i.Isolation, i.Outputs = x.Isolation, x.Outputs
		return nil
	})
}

// look calls f with the state of a run, which f must not keep. An ended one is
// read for it.
func (s *Server) look(ctx context.Context, id string, f func(*machine.Machine) error) error {
	s.mu.RLock()
	if r := s.runs[id]; r != nil {
		defer s.mu.RUnlock()
		return f(r.m)
	}
	s.mu.RUnlock()
	num, _, err := s.number(ctx, id)
	if err != nil {
		return err
	}
	r, err := s.read(ctx, num)
	if err != nil {
		return err
	}
	return f(r.m)
}

// Nodes are the nodes of a run right below parent ("" for the top), after the
// one named, at most limit (100 when 0), and whether there are more.
func (s *Server) Nodes(ctx context.Context, id, parent, after string, limit int, f machine.Filter) (out []machine.View, more bool, err error) {
	if limit <= 0 {
		limit = 100
	}
	err = s.look(ctx, id, func(m *machine.Machine) error {
		out, more, err = m.Children(parent, after, min(limit, maxPage), f)
		return err
	})
	return out, more, conflict(err)
}

// Node is one node or task of a run.
func (s *Server) Node(ctx context.Context, id, node string) (v machine.View, err error) {
	t, err := machine.ParseTask(node)
	if err != nil {
		return v, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	var num int64
	if num, _, err = s.number(ctx, id); err != nil {
		return v, err
	}
	item := strings.Contains(node, ".")
	if err = s.look(ctx, id, func(m *machine.Machine) error {
		var ok bool
		if v, ok = m.View(t, item); !ok {
			return fmt.Errorf("%w: node %s of run %s", ErrNotFound, node, id)
		}
		return nil
	}); err != nil || !item {
		return v, err
	}
	var body []byte
	err = s.d.DB.ReadOne(ctx, func(q db.Query) error {
		ok, err := q.Row(ctx, "SELECT body FROM work_outputs WHERE run = ? AND node = ? AND item = ?", []any{num, t.Node, t.Item}, &body)
		if err != nil || !ok {
			return err
		}
		x, err := machine.DecodeValue(body)
		v.Outputs, _ = x.(map[string]any)
		return err
	})
	return v, err
}
