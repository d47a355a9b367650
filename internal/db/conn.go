package db

import (
	"context"
	"database/sql"
	"fmt"
)

// maxStatements bounds the prepared statements of a connection: a caller who
// builds statements with a varying number of placeholders must not fill the
// memory.
const maxStatements = 256

// conn is one connection with its prepared statements; one goroutine at a time.
type conn struct {
	c     *sql.Conn
	stmts map[string]*stmt
	open  []*sql.Rows // given out and perhaps not closed
	extra []*sql.Stmt // second statements for the same query
}

// stmt is a prepared statement. It has one cursor: while rows of it are open,
// running it again would move them.
type stmt struct {
	s    *sql.Stmt
	rows *sql.Rows // last given out
}

func (s *stmt) busy() bool {
	if s.rows == nil {
		return false
	}
	if _, err := s.rows.Columns(); err != nil { // this is how rows tell that they are closed
		s.rows = nil
		return false
	}
	return true
}

func newConn(ctx context.Context, d *sql.DB) (*conn, error) {
	c, err := d.Conn(ctx)
	if err != nil {
		return nil, err
	}
	return &conn{c: c, stmts: map[string]*stmt{}}, nil
}

// prepare returns a statement that is not in use. All contexts stop here: what
// the driver does when one ends (interrupt from another goroutine, rows closed
// some time later) would outlive the caller's turn on this connection, and
// costs a goroutine for each statement.
func (c *conn) prepare(query string) (*stmt, error) {
	s, ok := c.stmts[query]
	if ok && !s.busy() {
		return s, nil
	}
	p, err := c.c.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", head(query), err)
	}
	s = &stmt{s: p}
	if ok {
		c.extra = append(c.extra, p)
	} else {
		c.stmts[query] = s
	}
	return s, nil
}

func (c *conn) run(query string, args []any) (sql.Result, error) {
	s, err := c.prepare(query)
	if err != nil {
		return nil, err
	}
	r, err := s.s.ExecContext(context.Background(), args...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", head(query), err)
	}
	return r, nil
}

func (c *conn) exec(query string) error {
	_, err := c.run(query, nil)
	return err
}

// Query implements [Query].
func (c *conn) Query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s, err := c.prepare(query)
	if err != nil {
		return nil, err
	}
	rows, err := s.s.QueryContext(context.Background(), args...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", head(query), err)
	}
	s.rows = rows
	c.open = append(c.open, rows)
	return rows, nil
}

// Row implements [Query].
func (c *conn) Row(ctx context.Context, query string, args []any, dest ...any) (bool, error) {
	rows, err := c.Query(ctx, query, args...)
	if err != nil {
		return false, err
	}
	defer func() {
		rows.Close()
		c.open = c.open[:len(c.open)-1]
	}()
	if !rows.Next() {
		if err := rows.Err(); err != nil {
			return false, fmt.Errorf("%s: %w", head(query), err)
		}
		return false, nil
	}
	if err := rows.Scan(dest...); err != nil {
		return false, fmt.Errorf("%s: %w", head(query), err)
	}
	return true, nil
}

// closeRows ends the turn of a caller: it closes what was left open.
func (c *conn) closeRows() {
	for i, r := range c.open {
		r.Close()
		c.open[i] = nil
	}
	c.open = c.open[:0]
	for i, s := range c.extra { // not before their rows
		s.Close()
		c.extra[i] = nil
	}
	c.extra = c.extra[:0]
}

// trim forgets the statements when there are too many. No rows may be open.
func (c *conn) trim() {
	if len(c.stmts) > maxStatements {
		c.forget()
	}
}

func (c *conn) forget() {
	for q, s := range c.stmts {
		s.s.Close()
		delete(c.stmts, q)
	}
}

// close closes the connection. The statements come first: the driver leaves
// those open, and with them the file.
func (c *conn) close() error {
	c.closeRows()
	c.forget()
	return c.c.Close()
}
