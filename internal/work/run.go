package work

import (
	"context"
	"fmt"
	"slices"
	"time"

	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/internal/workflow"
)

// run is a run that has not ended, in memory.
type run struct {
	num       int64
	id        string
	namespace string
	name      string
	key       string // it was submitted with
	schedule  string
	pool      string // of the workers that run its tasks
	graph     *workflow.Graph
	m         *machine.Machine

	fresh    bool   // its row is in the commit that is being made
	seq      int64  // of the newest group of events
	pending  []byte // events of the commit that is being made
	logged   int    // bytes in the log since the snapshot
	snapshot int    // bytes of the snapshot
	dirty    bool   // its row tells of an older state
	said     machine.Phase
	finished bool
	in       *pool  // once it is admitted
	queued   *space // where it waits its turn; nil: nowhere
}

// A log is replaced by a snapshot when it has grown by snapshotAfter bytes and
// by the length of the snapshot itself: so both cost at most twice what the
// events take, and a start reads little.
const snapshotAfter = 64 << 10

// write puts into the transaction what happened to the run. The machine does
// not change meanwhile: the loop waits.
func (r *run) write(tx *db.Tx, s *Server) error {
	ended := r.finished
	if ended || r.logged > snapshotAfter+r.snapshot {
		state := r.m.Snapshot()
		if _, err := tx.Exec("INSERT OR REPLACE INTO work_snapshots(run, seq, state) VALUES (?, ?, ?)", r.num, r.seq, state); err != nil {
			return err
		}
		if _, err := tx.Exec("DELETE FROM work_log WHERE run = ?", r.num); err != nil {
			return err
		}
		r.snapshot, r.logged = len(state), 0
	} else if _, err := tx.Exec("INSERT INTO work_log(run, seq, events) VALUES (?, ?, ?)", r.num, r.seq, r.pending); err != nil {
		return err
	}
	sum := r.m.Summary()
	if r.logged > 0 && sum.Phase == r.said { // how far it is is in memory as long as it lives
		return nil
	}
	r.said = sum.Phase
	live, end, gone := 1, int64(0), int64(0)
	if ended {
		keep := r.graph.Keep
		if sum.Phase != machine.Succeeded && r.graph.KeepFailed > 0 {
			keep = r.graph.KeepFailed
		}
		if keep == 0 {
			keep = s.cfg.Keep
		}
		live, end, gone = 0, sum.Ended.UnixMilli(), sum.Ended.Add(keep).UnixMilli()
	}
	_, err := tx.Exec(`UPDATE work_runs SET live = ?, phase = ?, message = ?, ended = ?, gone = ?, total = ?, succeeded = ?, failed = ?, skipped = ?, canceled = ?, retries = ? WHERE num = ?`,
		live, sum.Phase.String(), sum.Message, end, gone, sum.Counts.Total, sum.Counts.Succeeded, sum.Counts.Failed, sum.Counts.Skipped, sum.Counts.Canceled, sum.Counts.Retries, r.num)
	return err
}

// restore reads all runs that have not ended, and the schedules.
func (s *Server) restore(ctx context.Context) error {
	var nums []int64
	if err := s.d.DB.Read(ctx, func(q db.Query) error {
		if _, err := q.Row(ctx, "SELECT seq FROM sqlite_sequence WHERE name = 'work_runs'", nil, &s.last); err != nil {
			return err
		}
		rows, err := q.Query(ctx, "SELECT num FROM work_runs WHERE live = 1 ORDER BY num")
		if err != nil {
			return err
		}
		for rows.Next() {
			var n int64
			if err := rows.Scan(&n); err != nil {
				return err
			}
			nums = append(nums, n)
		}
		return rows.Err()
	}); err != nil {
		return err
	}
	for _, num := range nums {
		r, err := s.read(ctx, num)
		if err != nil {
			// One run that cannot be read must not keep the others from running.
			s.log.Error("a run cannot be brought back; it stays as it is until a Cairn can read it, or it is deleted", "run", num, "error", err)
			continue
		}
		s.admit(r)
	}
	s.hold()
	return s.readSchedules(ctx)
}

// read brings a run back from its snapshot and its log.
func (s *Server) read(ctx context.Context, num int64) (*run, error) {
	r := &run{num: num}
	err := s.d.DB.Read(ctx, func(q db.Query) error {
		var documents, state []byte
		if ok, err := q.Row(ctx, `SELECT r.id, r.name, r.namespace, r.pool, r.schedule, d.body FROM work_runs r JOIN work_documents d ON d.id = r.documents WHERE r.num = ?`,
			[]any{num}, &r.id, &r.name, &r.namespace, &r.pool, &r.schedule, &documents); err != nil {
			return err
		} else if !ok {
			return fmt.Errorf("run %d: %w", num, ErrNotFound)
		}
		var err error
		if r.graph, err = s.d.Compile(documents); err != nil {
			return fmt.Errorf("run %s: compile its documents again: %w", r.id, err)
		}
		r.m = machine.New(r.graph)
		if ok, err := q.Row(ctx, "SELECT seq, state FROM work_snapshots WHERE run = ?", []any{num}, &r.seq, &state); err != nil {
			return err
		} else if ok {
			if r.m, err = machine.Restore(r.graph, state); err != nil {
				return fmt.Errorf("run %s: %w", r.id, err)
			}
			r.snapshot = len(state)
		}
		rows, err := q.Query(ctx, "SELECT seq, events FROM work_log WHERE run = ? AND seq > ? ORDER BY seq", num, r.seq)
		if err != nil {
			return err
		}
		for rows.Next() {
			var b []byte
			if err := rows.Scan(&r.seq, &b); err != nil {
				return err
			}
			at, events, err := machine.Decode(b)
			if err != nil {
				return fmt.Errorf("run %s: %w", r.id, err)
			}
			for _, e := range events {
				if _, err := r.m.Apply(at, e); err != nil {
					return fmt.Errorf("run %s: what happened to it does not fit its workflow: %w", r.id, err)
				}
			}
			r.logged += len(b)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, err
	}
	r.said = r.m.Summary().Phase
	return r, nil
}

// admit has a run take part.
func (s *Server) admit(r *run) {
	// The clock may have been set back while nobody looked: then time goes on
	// where the run saw it last, or what it waits for would not come.
	if ahead := r.m.Now().Sub(s.now()); ahead > 0 {
		s.base = s.base.Add(ahead)
	}
	s.runs[r.id] = r
	s.images.add(r.graph)
	at, _ := slices.BinarySearchFunc(s.order, r.num, func(a *run, num int64) int { return int(a.num - num) })
	s.order = slices.Insert(s.order, at, r)
	s.expect(r.m.Next())
	r.in = s.pool(r.pool)
	r.in.runs++
	r.in.queue.update(r)
}

// dismiss is the opposite of admit.
func (s *Server) dismiss(r *run) {
	delete(s.runs, r.id)
	s.images.remove(r.graph)
	s.order = slices.DeleteFunc(s.order, func(x *run) bool { return x == r })
	r.in.queue.remove(r)
	r.in.runs--
}

// forget takes out a run that has ended, or was never there.
func (s *Server) forget(r *run) {
	s.dismiss(r)
	s.locks.drop(r)
	if !r.finished {
		return
	}
	s.counts.ended[r.m.Summary().Phase]++
	if s.d.Ended != nil {
		s.d.Ended(r.id)
	}
}

// hold makes the leases and locks of all runs what their states say. Leases
// begin a full term: who holds one could not beat while nobody listened.
func (s *Server) hold() {
	now := s.d.Clock.Mono()
	s.active = 0
	clear(s.spaces)
	for _, w := range s.workers {
		clear(w.held)
	}
	s.locks = locks{}
	for _, r := range s.order {
		r.m.Leases(func(l machine.Lease, name string) {
			s.worker(name).held[key{r, l}] = now
			s.active++
			s.spaces[r.namespace]++
		})
		for _, l := range r.m.Held() {
			s.locks.held(r, l)
		}
	}
}

// resume asks again what runs wanted to know when the process ended.
func (s *Server) resume() {
	for _, r := range s.order {
		s.ask(r, true)
	}
}

// ask repeats the questions of a run: all, or those about locks only.
func (s *Server) ask(r *run, all bool) {
	for _, e := range r.m.Requests() {
		switch e := e.(type) {
		case machine.Lock:
			s.locks.want(r, e)
			s.post(func(c *commit) error { c.grantLocks(e.Namespace, e.Name); return nil })
		case machine.Stop: // the worker hears it with its next beat
		default:
			if all {
				s.answer(r, e)
			}
		}
	}
}

// reload undoes a commit that was not written, by reading its runs again.
func (s *Server) reload(ctx context.Context, c *commit) error {
	for _, r := range c.touched {
		s.dismiss(r)
		if r.fresh {
			continue
		}
		again, err := s.read(ctx, r.num)
		if err != nil {
			return err
		}
		if _, over := again.m.Ended(); !over {
			s.admit(again)
		}
	}
	for _, w := range c.served { // they wait on
		w.leases = nil
		if w.gone {
			w.got <- nil
		} else {
			s.wait(w)
		}
	}
	s.hold()
	for _, x := range s.schedules {
		s.images.remove(x.Graph)
	}
	clear(s.schedules)
	if err := s.readSchedules(ctx); err != nil {
		return err
	}
	for _, r := range s.order {
		// The wishes for locks of all are forgotten; other questions of those
		// that were not touched are still being answered.
		s.ask(r, slices.ContainsFunc(c.touched, func(x *run) bool { return x.id == r.id }))
	}
	return nil
}

// lookup is a run that has not ended.
func (s *Server) lookup(id string) (*run, error) {
	r := s.runs[id]
	if r == nil {
		return nil, fmt.Errorf("%w: run %q, among those that have not ended", ErrNotFound, id)
	}
	return r, nil
}

func millis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
