package work

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/internal/workflow"
)

// Options of a submission.
type Options struct {
	// Key makes it happen once: who submits with the same key again gets the
	// run that is there already. "" for none.
	Key string
	// Name and Namespace in place of the graph's. A name that ends with "-" is
	// made up to the end.
	Name, Namespace string
	// Args are set over those of the graph.
	Args map[string]workflow.Value
	// Pool is whose workers run its tasks; [DefaultPool] when empty.
	Pool string
	// Before is called with the run's id while nothing of it is stored yet, for
	// what is to be kept for it elsewhere. Its error ends the submission; nil
	// does not mean that the run comes about. May be nil.
	Before func(ctx context.Context, id string) error

	schedule  string
	scheduled time.Time
}

// Bounds of what is submitted.
const (
	maxName      = 253
	maxDocuments = 64 << 20
)

// Submit stores a run, durably, and begins it.
func (s *Server) Submit(ctx context.Context, g *workflow.Graph, by string, o Options) (id string, err error) {
	r, insert, err := s.prepare(g, by, o)
	if err != nil {
		return "", err
	}
	if o.Before != nil {
		if err := o.Before(ctx, r.id); err != nil {
			return "", err
		}
	}
	err = s.do(ctx, func(c *commit) error {
		id, err = c.submit(ctx, r, insert)
		return err
	})
	return id, err
}

// newRun is what a submission puts into the database beside the events.
type newRun struct {
	by, key   string
	hash      [32]byte
	documents []byte
	args      map[string]workflow.Value
	scheduled time.Time
}

// prepare checks a submission and makes the run.
func (s *Server) prepare(g *workflow.Graph, by string, o Options) (*run, newRun, error) {
	name, namespace := o.Name, o.Namespace
	if name == "" {
		name = g.Name
	}
	if namespace == "" {
		namespace = g.Namespace
	}
	if namespace == "" {
		namespace = "default"
	}
	switch {
	case g.Templates[g.Entry] == nil:
		return nil, newRun{}, fmt.Errorf("%w: submit %q: it has no template %q to begin with", ErrInvalid, name, g.Entry)
	case len(g.Documents) > maxDocuments:
		return nil, newRun{}, fmt.Errorf("%w: submit %q: its documents have %d bytes, at most %d: hand long lists in as a file", ErrInvalid, name, len(g.Documents), maxDocuments)
	case len(name) > maxName-8 || len(namespace) > maxName || len(o.Key) > 2*maxName || strings.ContainsFunc(name+namespace, func(c rune) bool { return c < ' ' || c == '/' || c == 0x7f }):
		return nil, newRun{}, fmt.Errorf("%w: submit %.40q: name and namespace have at most %d characters, none of them a slash", ErrInvalid, name, maxName-8)
	}
	if name == "" {
		name = "run-"
	}
	pool, err := poolName(o.Pool)
	if err != nil {
		return nil, newRun{}, fmt.Errorf("submit %q: %w", name, err)
	}
	if g.Cluster != "" && !strings.HasPrefix(pool, ClusterPool) {
		return nil, newRun{}, fmt.Errorf("%w: submit %q: only a cluster can run it, because %s: name the pool of one (%sNAME), or hand it to the cluster as an object", ErrInvalid, name, g.Cluster, ClusterPool)
	}
	id := newID(s.d.Clock.Now())
	if strings.HasSuffix(name, "-") {
		name += id[len(id)-5:]
	}
	r := &run{id: id, name: name, namespace: namespace, pool: pool, graph: g, m: machine.New(g), fresh: true, schedule: o.schedule}
	return r, newRun{by: by, key: o.Key, hash: sha256.Sum256(g.Documents), documents: g.Documents, args: o.Args, scheduled: o.scheduled}, nil
}

// submit adds a run to the commit. Its row has to be there before its events.
func (c *commit) submit(ctx context.Context, r *run, n newRun) (string, error) {
	s := c.s
	if n.key != "" {
		id, err := s.byKey(ctx, n.key)
		if err != nil || id != "" {
			return id, err
		}
		for _, x := range c.touched { // or it comes with the same commit
			if x.fresh && x.key == n.key {
				return x.id, nil
			}
		}
	}
	if len(s.order) >= s.cfg.MaxRuns {
		return "", fmt.Errorf("%w: %d have not ended: wait for some, or cancel them", ErrBusy, len(s.order))
	}
	s.last++
	r.num, r.key = s.last, n.key
	c.writes = append(c.writes, func(tx *db.Tx) error { return r.insert(tx, n, c.at) })
	s.admit(r)
	c.after = append(c.after, func() { r.fresh = false })
	return r.id, c.apply(r, machine.Submitted{ID: r.id, Name: r.name, Namespace: r.namespace, By: n.by, Args: n.args, Scheduled: n.scheduled})
}

func (r *run) insert(tx *db.Tx, n newRun, at time.Time) error {
	documents, err := keepDocuments(tx, n.hash, n.documents)
	if err != nil {
		return err
	}
	var k any
	if n.key != "" {
		k = n.key
	}
	_, err = tx.Exec(`INSERT INTO work_runs(num, id, key, name, namespace, pool, by, documents, schedule, live, phase, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1, 'running', ?)`,
		r.num, r.id, k, r.name, r.namespace, r.pool, n.by, documents, r.schedule, at.UnixMilli())
	return err
}

// keepDocuments stores documents once, however many runs have them.
func keepDocuments(tx *db.Tx, hash [32]byte, body []byte) (id int64, err error) {
	ok, err := tx.Row(context.Background(), "SELECT id FROM work_documents WHERE hash = ?", []any{hash[:]}, &id)
	if err != nil || ok {
		return id, err
	}
	return tx.Insert("INSERT INTO work_documents(hash, body) VALUES (?, ?)", hash[:], body)
}

// byKey is the run that was submitted with the key, or "".
func (s *Server) byKey(ctx context.Context, key string) (id string, err error) {
	err = s.d.DB.ReadOne(ctx, func(q db.Query) error {
		_, err := q.Row(ctx, "SELECT id FROM work_runs WHERE key = ?", []any{key}, &id)
		return err
	})
	return id, err
}

// newID makes the name of a run: those made later sort behind those made
// earlier, and nobody guesses one.
func newID(at time.Time) string {
	var b [15]byte
	binary.BigEndian.PutUint64(b[:8], uint64(at.UnixMilli())<<16)
	_, _ = rand.Read(b[6:]) // it never fails
	return strings.ToLower(base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}
