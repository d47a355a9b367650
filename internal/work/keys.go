package work

import (
	"context"
	"fmt"

	"cairn.dev/cairn/internal/db"
)

// Keyed are the runs that have not ended and were submitted with a key that
// begins with prefix, by key: who hands them in for somebody else finds those
// again that nobody wants any more.
func (s *Server) Keyed(ctx context.Context, prefix string) (map[string]string, error) {
	out, after := map[string]string{}, int64(0)
	for {
		n := 0
		err := s.d.DB.ReadOne(ctx, func(q db.Query) error {
			rows, err := q.Query(ctx, "SELECT num, key, id FROM work_runs WHERE live = 1 AND num > ? AND key >= ? AND key < ? ORDER BY num LIMIT ?", after, prefix, prefix+maxKey, maxPage)
			if err != nil {
				return err
			}
			for rows.Next() {
				var key, id string
				if err := rows.Scan(&after, &key, &id); err != nil {
					return err
				}
				out[key] = id
				n++
			}
			return rows.Err()
		})
		if err != nil || n < maxPage {
			return out, err
		}
	}
}

// Find is the run that was submitted with the key, whether it has ended or not.
// The error is [ErrNotFound] when there is none, or none any more.
func (s *Server) Find(ctx context.Context, key string) (string, error) {
	id, err := s.byKey(ctx, key)
	if err == nil && (id == "" || key == "") {
		err = fmt.Errorf("%w: a run with the key %.80q", ErrNotFound, key)
	}
	return id, err
}

// maxKey sorts behind everything that keys go on with.
const maxKey = "\U0010FFFF"
