package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// disk measures what the disk gives to writers who share syncs: each writes a
// file into dir and waits; one syncfs answers all that wait. No protocol, no
// hash, no metadata. The files stay: where some were just deleted, ext4 takes
// longer to make new ones.
func disk(ctx context.Context, dir string, writers, size int, warm, measure time.Duration) (float64, error) {
	dir, err := os.MkdirTemp(dir, "disk-")
	if err != nil {
		return 0, fmt.Errorf("measure the disk: %w", err)
	}
	root, err := os.Open(dir)
	if err != nil {
		return 0, fmt.Errorf("measure the disk: %w", err)
	}
	defer root.Close()
	ctx, cancel := context.WithTimeout(ctx, warm+measure)
	defer cancel()
	begin := time.Now().Add(warm)

	body := make([]byte, size)
	for i := range body {
		body[i] = byte(i * 7)
	}
	waiting := make(chan chan error, writers)
	var n atomic.Int64
	errs := make(chan error, writers+1)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			answer := make(chan error, 1)
			for i := 0; ctx.Err() == nil; i++ {
				name := filepath.Join(dir, strconv.Itoa(w)+"-"+strconv.Itoa(i))
				err := os.WriteFile(name, body, 0o644)
				if err == nil {
					waiting <- answer
					err = <-answer
				}
				if err != nil {
					errs <- err
					cancel()
					return
				}
				if time.Now().After(begin) {
					n.Add(1)
				}
			}
		})
	}
	go func() {
		wg.Wait()
		close(waiting)
	}()
	var group []chan error
	for first := range waiting {
		group = append(group[:0], first)
	more:
		for {
			select {
			case a, ok := <-waiting:
				if !ok {
					break more
				}
				group = append(group, a)
			default:
				break more
			}
		}
		err := unix.Syncfs(int(root.Fd()))
		for _, a := range group {
			a <- err
		}
	}
	elapsed := time.Since(begin)
	select {
	case err := <-errs:
		return 0, fmt.Errorf("measure the disk: %w", err)
	default:
	}
	return float64(n.Load()) / elapsed.Seconds(), nil
}
