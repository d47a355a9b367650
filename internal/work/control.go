package work

import (
	"context"
	"errors"
	"fmt"

	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/internal/workflow"
)

// control has an event happen to a run that has not ended.
func (s *Server) control(ctx context.Context, id string, e machine.Event) error {
	return s.do(ctx, func(c *commit) error {
		r, err := s.lookup(id)
		if err != nil {
			return err
		}
		return conflict(c.apply(r, e))
	})
}

// conflict gives errors of the machine the names that callers know.
func conflict(err error) error {
	switch {
	case errors.Is(err, machine.ErrState):
		return fmt.Errorf("%w: %w", ErrConflict, err)
	case errors.Is(err, machine.ErrNode):
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return err
}

// Cancel ends a run: tasks that go on are told to end, and then its exit
// handlers run, unless now.
func (s *Server) Cancel(ctx context.Context, id, by string, now bool) error {
	return s.control(ctx, id, machine.Cancel{By: by, Now: now})
}

// Suspend keeps new tasks of a run from being given out, until Resume of the
// whole run.
func (s *Server) Suspend(ctx context.Context, id string) error {
	return s.control(ctx, id, machine.Paused{})
}

// Resume ends a suspension: of the run when node is "", else of the node that
// waits, which gets the outputs it wants, or fails.
func (s *Server) Resume(ctx context.Context, id, node string, outputs map[string]workflow.Value, fail bool, message string) error {
	if node == "" {
		return s.control(ctx, id, machine.Continued{})
	}
	t, err := machine.ParseTask(node)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if n := len(machine.EncodeValue(map[string]any(outputs))); n > s.cfg.MaxText {
		return fmt.Errorf("%w: the values have %d bytes, at most %d", ErrInvalid, n, s.cfg.MaxText)
	}
	return s.control(ctx, id, machine.Resumed{Node: t.Node, Outputs: outputs, Fail: fail, Message: cut(message, maxMessage)})
}

// Retry begins what failed of an ended run again; what went well stays.
func (s *Server) Retry(ctx context.Context, id string) error {
	num, live, err := s.number(ctx, id)
	if err != nil {
		return err
	}
	if live {
		return fmt.Errorf("%w: run %s has not ended: what failed can be retried then", ErrConflict, id)
	}
	r, err := s.read(ctx, num)
	if err != nil {
		return err
	}
	return s.do(ctx, func(c *commit) error {
		if s.runs[id] != nil { // somebody was faster
			return nil
		}
		if err := r.m.Fits(machine.Retried{}); err != nil {
			return conflict(err)
		}
		s.admit(r)
		c.writes = append(c.writes, func(tx *db.Tx) error {
			_, err := tx.Exec("UPDATE work_runs SET live = 1, gone = 0 WHERE num = ?", num)
			return err
		})
		return c.apply(r, machine.Retried{})
	})
}

// Resubmit begins a new run of the same documents and arguments.
func (s *Server) Resubmit(ctx context.Context, id, by string) (string, error) {
	num, _, err := s.number(ctx, id)
	if err != nil {
		return "", err
	}
	r, err := s.read(ctx, num)
	if err != nil {
		return "", err
	}
	args := r.m.Args()
	return s.Submit(ctx, r.graph, by, Options{Namespace: r.namespace, Name: r.graph.Name, Args: args, Pool: r.pool, Before: func(ctx context.Context, id string) error {
		ok, err := s.keepFiles(ctx, id, map[string]any(args))
		if err == nil && !ok {
			err = fmt.Errorf("%w: a file that run %s was given is gone: submit it anew", ErrConflict, r.id)
		}
		return err
	}})
}

// Delete forgets an ended run.
func (s *Server) Delete(ctx context.Context, id string) error {
	num, live, err := s.number(ctx, id)
	if err != nil {
		return err
	}
	if live {
		return fmt.Errorf("%w: run %s has not ended: cancel it before", ErrConflict, id)
	}
	return s.remove(ctx, num, id)
}

func deleteRun(tx *db.Tx, num int64) error {
	for _, q := range []string{"DELETE FROM work_log WHERE run = ?", "DELETE FROM work_snapshots WHERE run = ?", "DELETE FROM work_outputs WHERE run = ?"} {
		if _, err := tx.Exec(q, num); err != nil {
			return err
		}
	}
	var documents int64
	if ok, err := tx.Row(context.Background(), "SELECT documents FROM work_runs WHERE num = ?", []any{num}, &documents); err != nil || !ok {
		return err
	}
	if _, err := tx.Exec("DELETE FROM work_runs WHERE num = ?", num); err != nil {
		return err
	}
	return dropDocuments(tx, documents)
}

// dropDocuments forgets documents that nobody has any more.
func dropDocuments(tx *db.Tx, id int64) error {
	_, err := tx.Exec(`DELETE FROM work_documents WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM work_runs WHERE documents = ?1)
		AND NOT EXISTS (SELECT 1 FROM work_schedules WHERE documents = ?1)`, id)
	return err
}

// number is a run's place, and whether it has not ended.
func (s *Server) number(ctx context.Context, id string) (num int64, live bool, err error) {
	err = s.d.DB.ReadOne(ctx, func(q db.Query) error {
		ok, err := q.Row(ctx, "SELECT num, live FROM work_runs WHERE id = ?", []any{id}, &num, &live)
		if err == nil && !ok {
			err = fmt.Errorf("%w: run %q", ErrNotFound, id)
		}
		return err
	})
	return num, live, err
}
