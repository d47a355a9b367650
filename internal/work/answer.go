package work

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/internal/workflow"
)

// Bounds of what is kept in the state of a run rather than beside it.
const (
	inlineItems   = 256
	inlineBytes   = 32 << 10
	inlineOutputs = 4 << 20
)

// answer finds out what a run wants to know and tells it, as an event.
func (s *Server) answer(r *run, e machine.Effect) {
	s.asking++
	go func() {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go func() { // whoever asks is gone with the server
			select {
			case <-s.ended:
				cancel()
			case <-ctx.Done():
			}
		}()
		var event machine.Event
		for wait := time.Second; ; wait = min(2*wait, time.Minute) {
			var err error
			if event, err = s.find(ctx, r, e); err == nil {
				break
			}
			// A disk or a network that fails today; the run waits.
			s.log.Warn("a run waits for an answer", "run", r.id, "error", err)
			if s.pause(ctx, wait) != nil {
				return
			}
		}
		s.post(func(c *commit) error {
			s.asking--
			if s.runs[r.id] != r { // it was read again, and has asked again
				return nil
			}
			return c.apply(r, event)
		})
	}()
}

// errNever marks what is wrong with the question: asking again does not help.
type errNever struct{ error }

func (s *Server) find(ctx context.Context, r *run, e machine.Effect) (machine.Event, error) {
	switch e := e.(type) {
	case machine.List:
		ev, err := s.list(ctx, r, e)
		var never errNever
		if errors.As(err, &never) {
			return machine.Listed{Node: e.Node, Error: cut(err.Error(), maxMessage)}, nil
		}
		return ev, err
	case machine.Fetch:
		items, err := s.lists.span(ctx, e.Ref, e.From, e.Count)
		return machine.Fetched{Node: e.Node, From: e.From, Items: items}, err
	case machine.Gather:
		return s.gather(ctx, r, e)
	case machine.Recall:
		return s.recall(ctx, r, e)
	}
	return nil, fmt.Errorf("nobody answers %T", e)
}

// list finds the items of a fan-out.
func (s *Server) list(ctx context.Context, r *run, e machine.List) (machine.Listed, error) {
	out := machine.Listed{Node: e.Node}
	v := e.Value
	if e.Files != nil || e.S3 != nil {
		if s.d.Sources == nil {
			return out, errNever{errors.New("this server lists no folders")}
		}
		items, err := s.d.Sources.List(ctx, r.id, e.Files, e.S3, e.Match, machine.MaxItems)
		if err != nil {
			return out, errNever{err}
		}
		v = items
	}
	if m, ok := v.(map[string]any); ok && len(m) == 1 { // a file that a source wraps
		for _, x := range m {
			if f, is := x.(*workflow.File); is {
				v = f
			}
		}
	}
	switch v := v.(type) {
	case []any:
		return s.keepList(ctx, r, out, v)
	case []string:
		items := make([]any, len(v))
		for i := range v {
			items[i] = v[i]
		}
		return s.keepList(ctx, r, out, items)
	case string:
		return s.readList(ctx, r, out, v)
	case *workflow.File:
		if v.Digest == "" || v.Folder {
			return out, errNever{errors.New("items are in a file: a JSON array, or lines")}
		}
		form, err := s.form(ctx, v.Digest)
		if err != nil {
			return out, err
		}
		out.Ref = form + ":" + v.Digest
		return s.refList(ctx, out)
	}
	return out, errNever{fmt.Errorf("items are a list; this is %T", v)}
}

// readList reads a list that is written in a text: a JSON array, or lines.
func (s *Server) readList(ctx context.Context, r *run, out machine.Listed, text string) (machine.Listed, error) {
	if t := strings.TrimSpace(text); strings.HasPrefix(t, "[") || t == "null" {
		var items []any
		if err := json.Unmarshal([]byte(t), &items); err != nil {
			return out, errNever{fmt.Errorf("items are a JSON array: %w", err)}
		}
		return s.keepList(ctx, r, out, items)
	}
	return out, errNever{fmt.Errorf("items are a JSON array; this begins with %.20q", text)}
}

// keepList puts items into the event, or beside it when they are many.
func (s *Server) keepList(ctx context.Context, r *run, out machine.Listed, items []workflow.Value) (machine.Listed, error) {
	if len(items) > machine.MaxItems {
		return out, errNever{fmt.Errorf("there are %d, at most %d can be", len(items), machine.MaxItems)}
	}
	if len(items) <= inlineItems {
		if len(machine.EncodeValue(items)) <= inlineBytes || s.d.Blobs == nil {
			out.N, out.Items = uint32(len(items)), items
			return out, nil
		}
	}
	if s.d.Blobs == nil {
		return out, errNever{fmt.Errorf("there are %d, and %w", len(items), errNoBlobs)}
	}
	digest, _, err := s.putArray(ctx, r, items)
	if err != nil {
		return out, err
	}
	out.Ref = formFiles + ":" + digest
	return s.refList(ctx, out)
}

// putArray stores values as a JSON array.
func (s *Server) putArray(ctx context.Context, r *run, items []workflow.Value) (string, int64, error) {
	pr, pw := io.Pipe()
	go func() {
		w := bufio.NewWriterSize(pw, 64<<10)
		err := w.WriteByte('[')
		for i, v := range items {
			if err != nil {
				break
			}
			if i > 0 {
				_ = w.WriteByte(',') // its error comes again with the next write
			}
			var b []byte
			if b, err = json.Marshal(mark(v)); err == nil {
				_, err = w.Write(b)
			}
		}
		if err == nil {
			_ = w.WriteByte(']')
			err = w.Flush()
		}
		pw.CloseWithError(err)
	}()
	digest, size, err := s.d.Blobs.Put(ctx, r.id, pr)
	pr.CloseWithError(err)
	if err != nil {
		return "", 0, fmt.Errorf("store a list: %w", err)
	}
	return digest, size, nil
}

func (s *Server) refList(ctx context.Context, out machine.Listed) (machine.Listed, error) {
	t, err := s.lists.index(ctx, out.Ref)
	if err != nil {
		if ctx.Err() != nil {
			return out, err
		}
		return out, errNever{err}
	}
	if t.n > machine.MaxItems {
		return out, errNever{fmt.Errorf("there are %d, at most %d can be", t.n, machine.MaxItems)}
	}
	out.N = uint32(t.n)
	return out, nil
}

// form looks whether a file is a JSON array or lines.
func (s *Server) form(ctx context.Context, digest string) (string, error) {
	if s.d.Blobs == nil {
		return "", errNever{errNoBlobs}
	}
	f, err := s.d.Blobs.Open(ctx, digest)
	if err != nil {
		return "", errNever{fmt.Errorf("open the list: %w", err)}
	}
	defer f.Close()
	var b [512]byte
	n, err := io.ReadFull(f, b[:])
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return "", fmt.Errorf("read the list: %w", err)
	}
	if bytes.HasPrefix(bytes.TrimSpace(b[:n]), []byte("[")) {
		return formJSON, nil
	}
	return formLines, nil
}

// gather brings together what the items of a fan-out left: by name, a list of
// what those have that have it, in the order of the items.
func (s *Server) gather(ctx context.Context, r *run, e machine.Gather) (machine.Event, error) {
	var result []any
	params, files := map[string]any{}, map[string]any{}
	size := 0
	err := s.outputs(ctx, r.num, e.Node, func(body []byte) error {
		size += len(body)
		v, err := machine.DecodeValue(body)
		if err != nil {
			return err
		}
		m, _ := v.(map[string]any)
		if x, ok := m["result"]; ok {
			result = append(result, x)
		}
		for kind, to := range map[string]map[string]any{"parameters": params, "artifacts": files} {
			all, _ := m[kind].(map[string]any)
			for k, x := range all {
				list, _ := to[k].([]any)
				to[k] = append(list, x)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	pack := func(v []any) (any, error) {
		if size <= inlineOutputs || s.d.Blobs == nil {
			return v, nil
		}
		digest, n, err := s.putArray(ctx, r, v)
		return &workflow.File{Digest: digest, Size: n}, err
	}
	out := map[string]workflow.Value{}
	if result != nil {
		if out["result"], err = pack(result); err != nil {
			return nil, err
		}
	}
	for kind, from := range map[string]map[string]any{"parameters": params, "artifacts": files} {
		for k, v := range from {
			if from[k], err = pack(v.([]any)); err != nil {
				return nil, err
			}
		}
		if len(from) > 0 {
			out[kind] = from
		}
	}
	return machine.Gathered{Node: e.Node, Outputs: out}, nil
}

// outputs reads what items left, in their order, a page at a time: no view of
// the database stays open for long.
func (s *Server) outputs(ctx context.Context, run int64, node uint32, f func(body []byte) error) error {
	const page = 2000
	for after := int64(-1); ; {
		n := 0
		err := s.d.DB.ReadOne(ctx, func(q db.Query) error {
			rows, err := q.Query(ctx, "SELECT item, body FROM work_outputs WHERE run = ? AND node = ? AND item > ? ORDER BY item LIMIT ?", run, node, after, page)
			if err != nil {
				return err
			}
			for rows.Next() {
				var body []byte
				if err := rows.Scan(&after, &body); err != nil {
					return err
				}
				n++
				if err := f(body); err != nil {
					return err
				}
			}
			return rows.Err()
		})
		if err != nil || n < page {
			return err
		}
	}
}

// remember keeps outputs for later runs, in the transaction.
func (c *commit) remember(r *run, e machine.Remember) {
	body := machine.EncodeValue(map[string]any(e.Outputs))
	at := c.at.UnixMilli()
	c.writes = append(c.writes, func(tx *db.Tx) error {
		_, err := tx.Exec("INSERT OR REPLACE INTO work_memo(namespace, cache, key, at, body) VALUES (?, ?, ?, ?, ?)", r.namespace, e.Cache, e.Key, at, body)
		return err
	})
}

// recall looks for what was remembered.
func (s *Server) recall(ctx context.Context, r *run, e machine.Recall) (machine.Event, error) {
	out := machine.Remembered{Node: e.Node}
	oldest := int64(0)
	if e.MaxAgeMS > 0 {
		s.mu.RLock()
		oldest = s.now().UnixMilli() - e.MaxAgeMS
		s.mu.RUnlock()
	}
	var body []byte
	err := s.d.DB.ReadOne(ctx, func(q db.Query) (err error) {
		out.Found, err = q.Row(ctx, "SELECT body FROM work_memo WHERE namespace = ? AND cache = ? AND key = ? AND at >= ?", []any{r.namespace, e.Cache, e.Key, oldest}, &body)
		return err
	})
	if err != nil || !out.Found {
		return out, err
	}
	v, err := machine.DecodeValue(body)
	if err != nil { // a memory that cannot be read is none
		s.log.Warn("what was remembered cannot be read", "cache", e.Cache, "key", e.Key, "error", err)
		out.Found = false
		return out, nil
	}
	ok, err := s.keepFiles(ctx, r.id, v)
	if err != nil || !ok { // what is gone with its run is to be made again
		out.Found = false
		return out, err
	}
	out.Outputs, _ = v.(map[string]any)
	return out, nil
}

// keepFiles has the files in a value stay for a run that did not make them. It
// reports whether all are still there.
func (s *Server) keepFiles(ctx context.Context, run string, v workflow.Value) (bool, error) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			if ok, err := s.keepFiles(ctx, run, e); err != nil || !ok {
				return false, err
			}
		}
	case map[string]any:
		for _, e := range v {
			if ok, err := s.keepFiles(ctx, run, e); err != nil || !ok {
				return false, err
			}
		}
	case *workflow.File:
		digest := v.Digest
		if v.Source != nil && v.Source.Kind == "part" {
			digest = v.Source.URL
		}
		if digest == "" {
			return true, nil
		}
		if s.d.Blobs == nil {
			return false, nil
		}
		return s.d.Blobs.Keep(ctx, run, digest)
	}
	return true, nil
}

func (s *Server) pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.d.Clock.After(d):
		return nil
	}
}
