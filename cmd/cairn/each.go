package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/client"
)

// itemList is what --each names: a list that is read as it goes out, or files.
type itemList struct {
	name  string
	open  func() (io.ReadCloser, error)
	paths []string
}

// maxPaths is how many files the server takes with one run.
const maxPaths = 100_000

// items finds what --each names; nil when it was not given.
func (a *app) items(each string) (*itemList, error) {
	switch {
	case each == "":
		return nil, nil
	case each == "-":
		return &itemList{name: "standard input", open: func() (io.ReadCloser, error) { return io.NopCloser(a.stdin), nil }}, nil
	case !strings.ContainsAny(each, "*?["):
		return &itemList{name: each, open: func() (io.ReadCloser, error) { return os.Open(each) }}, nil
	}
	if f, err := os.Stat(each); err == nil && f.Mode().IsRegular() { // it is called so
		return &itemList{name: each, open: func() (io.ReadCloser, error) { return os.Open(each) }}, nil
	}
	all, err := filepath.Glob(each)
	if err != nil {
		return nil, usagef("--each %q: %w: wildcards are *, ? and [a-z]", each, err)
	}
	l := &itemList{name: each, paths: []string{}}
	for _, p := range all {
		f, err := os.Stat(p)
		if err != nil {
			return nil, err
		}
		if f.Mode().IsRegular() {
			l.paths = append(l.paths, p)
		}
	}
	switch n := len(l.paths); {
	case n == 0 && len(all) > 0:
		return nil, fmt.Errorf("--each %q matches folders only: write %s for the files in them", each, filepath.Join(each, "*"))
	case n == 0:
		return nil, fmt.Errorf("--each %q matches no file", each)
	case n > maxPaths:
		return nil, fmt.Errorf("--each %q matches %d files: the limit is %d; put them into an object store that a workflow lists (forEach: {s3: …})", each, n, maxPaths)
	}
	return l, nil
}

// handIn uploads the items and puts them into the submission.
func (a *app) handIn(ctx context.Context, cl *client.Client, l *itemList, s *wire.Submission) error {
	if l.paths == nil {
		r, err := l.open()
		if err != nil {
			return err
		}
		defer r.Close()
		body, err := checkedList(r)
		if err != nil {
			return fmt.Errorf("read the items of %s: %w", l.name, err)
		}
		u, err := cl.Upload(ctx, "", body)
		if err != nil {
			return fmt.Errorf("hand in the items of %s: %w", l.name, err)
		}
		s.Files = map[string]wire.Upload{items: u}
		return nil
	}
	ups, err := a.uploadAll(ctx, cl, l.paths)
	if err != nil {
		return err
	}
	s.FileLists = map[string][]wire.Upload{items: ups}
	return nil
}

// checkedList looks at the beginning of a list. Who hands in one JSON object of
// many lines has most likely forgotten the brackets around it, and would get an
// item for each line.
func checkedList(r io.Reader) (io.Reader, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	head, err := b.Peek(4096)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	const mark = "\ufeff" // some editors begin files with it
	if bytes.HasPrefix(head, []byte(mark)) {
		if _, err := b.Discard(len(mark)); err != nil {
			return nil, err
		}
		head = head[len(mark):]
	}
	head = bytes.TrimSpace(head)
	line, _, more := bytes.Cut(head, []byte("\n"))
	if bytes.HasPrefix(head, []byte("{")) && more && !json.Valid(line) {
		return nil, errors.New("it begins with a JSON object of several lines: a list is a JSON array, [ … ], or has one item a line")
	}
	return b, nil
}

// uploading is how many files go out at a time.
const uploading = 8

// uploadAll hands in files under one id, several at a time.
func (a *app) uploadAll(ctx context.Context, cl *client.Client, paths []string) ([]wire.Upload, error) {
	out := make([]wire.Upload, len(paths))
	one := func(ctx context.Context, id string, i int) error {
		f, err := os.Open(paths[i])
		if err != nil {
			return err
		}
		defer f.Close()
		if out[i], err = cl.Upload(ctx, id, f); err != nil {
			return fmt.Errorf("hand in %s: %w", paths[i], err)
		}
		out[i].Name = filepath.ToSlash(paths[i])
		return nil
	}
	if err := one(ctx, "", 0); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next, done atomic.Int64
	next.Store(1)
	var wg sync.WaitGroup
	for range uploading {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(paths)) && ctx.Err() == nil; i = next.Add(1) - 1 {
				if err := one(ctx, out[0].ID, int(i)); err != nil {
					cancel(err)
				}
				done.Add(1)
			}
		})
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		wg.Wait()
	}()
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-over:
			return out, context.Cause(ctx)
		case <-tick.C:
			fmt.Fprintf(a.stderr, "handed in %d of %d files\n", done.Load()+1, len(paths))
		}
	}
}
