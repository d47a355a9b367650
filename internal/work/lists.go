package work

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"cairn.dev/cairn/internal/workflow"
)

// Bounds of lists of items.
const (
	maxList  = 1 << 30 // bytes of one list
	maxItem  = 16 << 20
	pageSize = 256 // items that are read at once
	pages    = 64  // that are remembered, of all lists together
	tables   = 16  // lists whose pages are known
)

// The forms of lists.
const (
	formJSON  = "json"
	formLines = "lines"
	formFiles = "files" // JSON that this server wrote, in which files are marked
)

// lists reads items of long lists, which are blobs: a JSON array, or lines.
// Where every pageSize-th item begins is worked out once and remembered; a list
// is named FORM:DIGEST, so it never changes.
type lists struct {
	blobs Blobs

	mu     sync.Mutex
	tables []*table
	pages  []*page
}

type table struct {
	ref   string
	n     int
	marks []int64 // where items 0, pageSize, 2×pageSize … begin; and the end
	ready chan struct{}
	err   error
}

type page struct {
	ref   string
	n     int
	items []workflow.Value
	ready chan struct{}
	err   error
}

func newLists(b Blobs) *lists { return &lists{blobs: b} }

var errNoBlobs = errors.New("this server keeps no files: hand the list in as a value")

// index finds where the items of a list are, and how many there are.
func (l *lists) index(ctx context.Context, ref string) (*table, error) {
	if l.blobs == nil {
		return nil, errNoBlobs
	}
	l.mu.Lock()
	for i, t := range l.tables {
		if t.ref == ref {
			copy(l.tables[1:i+1], l.tables[:i])
			l.tables[0] = t
			l.mu.Unlock()
			select {
			case <-t.ready:
				return t, t.err
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}
	t := &table{ref: ref, ready: make(chan struct{})}
	l.tables = append([]*table{t}, l.tables[:min(len(l.tables), tables-1)]...)
	l.mu.Unlock()
	t.err = l.scan(context.WithoutCancel(ctx), t) // others wait for it
	close(t.ready)
	if t.err != nil {
		l.mu.Lock()
		for i, x := range l.tables {
			if x == t { // it may go better the next time
				l.tables = append(l.tables[:i:i], l.tables[i+1:]...)
				break
			}
		}
		l.mu.Unlock()
	}
	return t, t.err
}

func (l *lists) scan(ctx context.Context, t *table) error {
	form, digest, _ := strings.Cut(t.ref, ":")
	f, err := l.blobs.Open(ctx, digest)
	if err != nil {
		return fmt.Errorf("open the list: %w", err)
	}
	defer f.Close()
	r := bufio.NewReaderSize(io.LimitReader(f, maxList+1), 256<<10)
	if form == formLines {
		err = t.scanLines(r)
	} else {
		err = t.scanArray(r)
	}
	if err == nil && t.marks[len(t.marks)-1] > maxList {
		err = fmt.Errorf("the list has more than %d bytes", maxList)
	}
	return err
}

func (t *table) mark(at int64) {
	if t.n%pageSize == 0 {
		t.marks = append(t.marks, at)
	}
	t.n++
}

// scanLines finds lines that are not empty.
func (t *table) scanLines(r *bufio.Reader) error {
	at, size, blank := int64(0), 0, true
	begin := int64(0)
	for {
		b, err := r.ReadSlice('\n')
		if size == 0 {
			begin = at
		}
		at += int64(len(b))
		size += len(b)
		if blank = blank && len(bytes.TrimSpace(b)) == 0; size > maxItem {
			return fmt.Errorf("line %d has more than %d bytes", t.n+1, maxItem)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if !blank {
			t.mark(begin)
		}
		size, blank = 0, true
		if err == io.EOF {
			t.marks = append(t.marks, at)
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// scanArray finds the elements of a JSON array. It looks at strings and
// brackets only; whether an element is right is seen when it is read.
func (t *table) scanArray(r *bufio.Reader) error {
	at := int64(-1)
	depth, text, escaped, open := 0, false, false, false
	var begin int64
	for {
		b, err := r.ReadByte()
		if err == io.EOF {
			return errors.New("the JSON array has no end")
		}
		if err != nil {
			return err
		}
		at++
		switch {
		case text:
			switch {
			case escaped:
				escaped = false
			case b == '\\':
				escaped = true
			case b == '"':
				text = false
			}
		case b == ' ' || b == '\t' || b == '\n' || b == '\r':
		case depth == 0:
			if b != '[' {
				return fmt.Errorf("a list is a JSON array; this begins with %q", b)
			}
			depth = 1
		case depth == 1 && (b == ',' || b == ']'):
			if open {
				t.mark(begin)
				if at-begin > maxItem {
					return fmt.Errorf("item %d has more than %d bytes", t.n, maxItem)
				}
			} else if b == ',' || t.n > 0 {
				return fmt.Errorf("item %d of the JSON array is missing", t.n+1)
			}
			open = false
			if b == ']' {
				t.marks = append(t.marks, at)
				return nil
			}
		default:
			if !open {
				open, begin = true, at
			}
			switch b {
			case '"':
				text = true
			case '[', '{':
				depth++
			case ']', '}':
				depth--
			}
		}
	}
}

// item is one item of a list.
func (l *lists) item(ctx context.Context, ref string, i uint32) (workflow.Value, error) {
	p, err := l.page(ctx, ref, int(i)/pageSize)
	if err != nil {
		return nil, err
	}
	if k := int(i) % pageSize; k < len(p.items) {
		return p.items[k], nil
	}
	return nil, fmt.Errorf("the list has no item %d", i)
}

// span is some items of a list.
func (l *lists) span(ctx context.Context, ref string, from, count uint32) ([]workflow.Value, error) {
	var out []workflow.Value
	for i := from; i < from+count; i++ {
		v, err := l.item(ctx, ref, i)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// page finds a page, or reads it. Those who want the same one at the same time
// wait for who came first: workers that ask one by one reach the end of a page
// by the hundred.
func (l *lists) page(ctx context.Context, ref string, n int) (*page, error) {
	l.mu.Lock()
	if p := l.find(ref, n); p != nil {
		l.mu.Unlock()
		select {
		case <-p.ready:
			return p, p.err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	p := &page{ref: ref, n: n, ready: make(chan struct{})}
	l.pages = append([]*page{p}, l.pages[:min(len(l.pages), pages-1)]...)
	l.mu.Unlock()
	p.items, p.err = l.load(context.WithoutCancel(ctx), ref, n)
	close(p.ready)
	if p.err != nil { // it may go better the next time
		l.mu.Lock()
		l.pages = slices.DeleteFunc(l.pages, func(x *page) bool { return x == p })
		l.mu.Unlock()
	}
	return p, p.err
}

// find is a page that is here or being read, nil if there is none; under the
// lock. It is the last one to be forgotten.
func (l *lists) find(ref string, n int) *page {
	for i, p := range l.pages {
		if p.n == n && p.ref == ref {
			copy(l.pages[1:i+1], l.pages[:i])
			l.pages[0] = p
			return p
		}
	}
	return nil
}

func (l *lists) load(ctx context.Context, ref string, n int) ([]workflow.Value, error) {
	t, err := l.index(ctx, ref)
	if err != nil {
		return nil, err
	}
	if n+1 >= len(t.marks) {
		return nil, fmt.Errorf("the list has no item %d", n*pageSize)
	}
	return l.read(ctx, t, n)
}

func (l *lists) read(ctx context.Context, t *table, n int) ([]workflow.Value, error) {
	form, digest, _ := strings.Cut(t.ref, ":")
	f, err := l.blobs.Open(ctx, digest)
	if err != nil {
		return nil, fmt.Errorf("open the list: %w", err)
	}
	defer f.Close()
	if _, err := f.Seek(t.marks[n], io.SeekStart); err != nil {
		return nil, fmt.Errorf("read the list: %w", err)
	}
	b := make([]byte, t.marks[n+1]-t.marks[n])
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("read the list: %w", err)
	}
	if form != formLines {
		var items []any
		if err := json.Unmarshal(array(b), &items); err != nil {
			return nil, fmt.Errorf("items %d and following: %w", n*pageSize, err)
		}
		if form == formFiles {
			for i := range items {
				items[i] = unmark(items[i])
			}
		}
		return items, nil
	}
	var items []workflow.Value
	for line := range strings.Lines(string(b)) {
		if strings.TrimSpace(line) != "" {
			items = append(items, strings.TrimRight(line, "\r\n"))
		}
	}
	return items, nil
}

// array makes an array of elements that were cut out of one.
func array(b []byte) []byte {
	b = bytes.TrimRight(b, ", \t\r\n")
	return append(append([]byte{'['}, b...), ']')
}

// marker is the key of an object that stands for a file, in lists that this
// server wrote itself. What users wrote is never looked at for it.
const marker = "\x00file"

// mark makes a value that JSON can hold.
func mark(v workflow.Value) any {
	return workflow.Replace(v, func(v workflow.Value) workflow.Value {
		if f, ok := v.(*workflow.File); ok {
			return map[string]any{marker: f}
		}
		return v
	})
}

// unmark is the opposite. What it is given is its own to change.
func unmark(v any) workflow.Value {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = unmark(v[i])
		}
	case map[string]any:
		if x, ok := v[marker]; ok && len(v) == 1 {
			var f workflow.File
			if b, err := json.Marshal(x); err == nil && json.Unmarshal(b, &f) == nil {
				return &f
			}
		}
		for k := range v {
			v[k] = unmark(v[k])
		}
	}
	return v
}
