package work

import (
	"context"
	"fmt"
	"time"

	"cairn.dev/cairn/internal/db"
)

// maxTemplates bounds the templates that are stored, of all namespaces.
const maxTemplates = 10_000

// A Template is a document that workflows refer to by its name. Runs keep what
// they were begun with: a template that is changed or deleted changes none.
type Template struct {
	Kind      string // WorkflowTemplate or ClusterWorkflowTemplate
	Namespace string // "" of a ClusterWorkflowTemplate
	Name, By  string
	Changed   time.Time
	Document  []byte // not in lists
}

// PutTemplates stores templates in place of those of their names, all or none.
func (s *Server) PutTemplates(ctx context.Context, list []Template) error {
	now := s.d.Clock.Now().UnixMilli()
	return s.d.DB.Write(ctx, func(tx *db.Tx) error {
		for _, t := range list {
			if _, err := tx.Exec("INSERT OR REPLACE INTO work_templates(namespace, kind, name, by, changed, body) VALUES (?, ?, ?, ?, ?, ?)",
				t.Namespace, t.Kind, t.Name, t.By, now, t.Document); err != nil {
				return fmt.Errorf("store the template %s: %w", t.Name, err)
			}
		}
		var n int
		if _, err := tx.Row(ctx, "SELECT count(*) FROM work_templates", nil, &n); err != nil {
			return err
		}
		if n > maxTemplates {
			return fmt.Errorf("%w: there would be %d templates, at most %d: delete some", ErrInvalid, n, maxTemplates)
		}
		return nil
	})
}

// Template is one with its document; ErrNotFound when there is none.
func (s *Server) Template(ctx context.Context, kind, namespace, name string) (t Template, err error) {
	t = Template{Kind: kind, Namespace: namespace, Name: name}
	var changed int64
	err = s.d.DB.ReadOne(ctx, func(q db.Query) error {
		ok, err := q.Row(ctx, "SELECT by, changed, body FROM work_templates WHERE namespace = ? AND kind = ? AND name = ?", []any{namespace, kind, name}, &t.By, &changed, &t.Document)
		if err == nil && !ok {
			err = fmt.Errorf("%w: %s %q", ErrNotFound, kind, name)
		}
		return err
	})
	t.Changed = millis(changed)
	return t, err
}

// Templates are all templates, by namespace, kind and name, without documents.
func (s *Server) Templates(ctx context.Context) (out []Template, err error) {
	err = s.d.DB.ReadOne(ctx, func(q db.Query) error {
		rows, err := q.Query(ctx, "SELECT namespace, kind, name, by, changed FROM work_templates ORDER BY namespace, kind, name")
		if err != nil {
			return err
		}
		for rows.Next() {
			var t Template
			var changed int64
			if err := rows.Scan(&t.Namespace, &t.Kind, &t.Name, &t.By, &changed); err != nil {
				return err
			}
			t.Changed = millis(changed)
			out = append(out, t)
		}
		return rows.Err()
	})
	return out, err
}

// DeleteTemplate forgets one. Runs that were begun with it go on.
func (s *Server) DeleteTemplate(ctx context.Context, kind, namespace, name string) error {
	return s.d.DB.Write(ctx, func(tx *db.Tx) error {
		ok, err := tx.Row(ctx, "SELECT 1 FROM work_templates WHERE namespace = ? AND kind = ? AND name = ?", []any{namespace, kind, name}, new(int))
		if err == nil && !ok {
			err = fmt.Errorf("%w: %s %q", ErrNotFound, kind, name)
		}
		if err == nil {
			_, err = tx.Exec("DELETE FROM work_templates WHERE namespace = ? AND kind = ? AND name = ?", namespace, kind, name)
		}
		return err
	})
}
