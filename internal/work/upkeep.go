package work

import (
	"context"
	"fmt"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/db"
)

const (
	upkeepEvery = time.Minute
	upkeepStep  = 200                  // rows of one transaction
	memoKeep    = 365 * 24 * time.Hour // how long what is remembered stays, whatever its readers say
)

// Upkeep forgets what has been kept long enough, now and then, until ctx ends.
// It is apart from Run so that a test decides when.
func (s *Server) Upkeep(ctx context.Context) {
	for {
		if err := s.Tidy(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("old runs could not be forgotten", "error", err)
		}
		if clock.Sleep(ctx, s.d.Clock, upkeepEvery) != nil {
			return
		}
	}
}

// Tidy forgets ended runs that are due, those that their schedules do not keep,
// and old memories.
func (s *Server) Tidy(ctx context.Context) error {
	s.mu.RLock()
	now := s.now().UnixMilli()
	s.mu.RUnlock()
	if err := s.forgetAll(ctx, "SELECT num, id FROM work_runs WHERE gone > 0 AND gone <= ? AND live = 0 LIMIT ?", now, upkeepStep); err != nil {
		return err
	}
	s.mu.RLock()
	var keeps []schedule
	for _, x := range s.schedules {
		keeps = append(keeps, *x)
	}
	s.mu.RUnlock()
	for _, x := range keeps {
		k := scheduleKey(x.Namespace, x.Name)
		if x.KeepGood > 0 {
			if err := s.forgetAll(ctx, "SELECT num, id FROM work_runs WHERE schedule = ? AND live = 0 AND phase = 'succeeded' ORDER BY num DESC LIMIT ? OFFSET ?", k, upkeepStep, x.KeepGood); err != nil {
				return err
			}
		}
		if x.KeepBad > 0 {
			if err := s.forgetAll(ctx, "SELECT num, id FROM work_runs WHERE schedule = ? AND live = 0 AND phase <> 'succeeded' ORDER BY num DESC LIMIT ? OFFSET ?", k, upkeepStep, x.KeepBad); err != nil {
				return err
			}
		}
	}
	return s.d.DB.Write(ctx, func(tx *db.Tx) error {
		_, err := tx.Exec("DELETE FROM work_memo WHERE (namespace, cache, key) IN (SELECT namespace, cache, key FROM work_memo WHERE at < ? LIMIT ?)", now-memoKeep.Milliseconds(), upkeepStep)
		return err
	})
}

// forgetAll forgets the runs that a query names.
func (s *Server) forgetAll(ctx context.Context, query string, args ...any) error {
	ids := map[int64]string{}
	if err := s.d.DB.ReadOne(ctx, func(q db.Query) error {
		rows, err := q.Query(ctx, query, args...)
		if err != nil {
			return err
		}
		for rows.Next() {
			var num int64
			var id string
			if err := rows.Scan(&num, &id); err != nil {
				return err
			}
			ids[num] = id
		}
		return rows.Err()
	}); err != nil {
		return fmt.Errorf("find old runs: %w", err)
	}
	for num, id := range ids {
		if err := s.remove(ctx, num, id); err != nil {
			return fmt.Errorf("forget run %s: %w", id, err)
		}
	}
	return nil
}

// remove forgets an ended run. What it left is removed in steps, so that no
// transaction is long; its row goes last.
func (s *Server) remove(ctx context.Context, num int64, id string) error {
	for {
		var n int64
		if err := s.do(ctx, func(c *commit) error {
			if s.runs[id] != nil {
				return fmt.Errorf("%w: run %s goes on again", ErrConflict, id)
			}
			c.writes = append(c.writes, func(tx *db.Tx) (err error) {
				n, err = tx.Exec("DELETE FROM work_outputs WHERE run = ?1 AND (node, item) IN (SELECT node, item FROM work_outputs WHERE run = ?1 LIMIT ?2)", num, 10*upkeepStep)
				if err == nil && n == 0 {
					err = deleteRun(tx, num)
				}
				return err
			})
			return nil
		}); err != nil {
			return err
		}
		if n == 0 {
			if s.d.Forgotten != nil {
				s.d.Forgotten(id)
			}
			return nil
		}
	}
}
