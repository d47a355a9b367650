package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/test/cluster"
	"cairn.dev/cairn/test/images"
)

// inRow is how many containers one pod of the real node starts, one when the
// other has ended.
const inRow = 50

// realNode starts containers on a kubelet and containerd, each of an image of
// its own, as init containers of pods: so one follows the other at once.
func (s settings) realNode(ctx context.Context, out io.Writer, cairn string, l *ledger) error {
	fmt.Fprintf(out, "\n## A real node\n\n")
	if why := cluster.Unable(); why != "" {
		fmt.Fprintf(out, "NOT RUN: %s\n", why)
		return nil
	}
	l.reset()
	c, err := cluster.New(ctx, cluster.Options{Nodes: 1, Registry: strings.TrimPrefix(l.URL, "http://")})
	if err != nil {
		return err
	}
	defer c.Close()
	want, err := s.rows(ctx, l)
	if err != nil {
		return err
	}
	_, stop, err := start(ctx, cairn, "agent", "--node", "node1", "--cri", "unix://"+c.CRI(0), "--server", l.URL, "--period", "10s", "--log-level", "error")
	if err != nil {
		return err
	}
	defer stop()
	if err := wait("the first report", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return !l.applied.IsZero()
	}); err != nil {
		return err
	}
	begun := time.Now()
	for i := 0; i < s.row; i += inRow {
		if err := pod(ctx, c, i, min(i+inRow, s.row)); err != nil {
			return err
		}
	}
	var late []time.Duration
	missing := func() bool {
		late = late[:0]
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, d := range want {
			if seen, ok := l.seen[d]; ok {
				late = append(late, seen.Sub(l.dated[d]))
			}
		}
		return len(late) < len(want)
	}
	end := time.Now().Add(10 * time.Minute)
	for missing() && time.Now().Before(end) {
		time.Sleep(100 * time.Millisecond)
	}
	at := quantiles(late)
	fmt.Fprintf(out, "containerd and a kubelet start %d containers, each of an image of its own that ends at once, %d pods side by side with %d in a row each.\n\n", s.row, (s.row+inRow-1)/inRow, inRow)
	fmt.Fprintf(out, "| | |\n|---|---|\n| starts in the ledger | %d of %d, within %.0f s |\n| from the start to the ledger, median, p99, at most | %s, %s, %s |\n", len(late), len(want), time.Since(begun).Seconds(), at(0.5), at(0.99), at(1))
	if len(late) != len(want) {
		return fmt.Errorf("%d of %d starts were lost", len(want)-len(late), len(want))
	}
	return nil
}

// rows pushes the images and returns their digests.
func (s settings) rows(ctx context.Context, l *ledger) ([]image.Digest, error) {
	base, err := images.Build(ctx, os.Stderr, "library/busybox:latest")
	if err != nil {
		return nil, err
	}
	var all []image.Digest
	for i := range s.row {
		img, err := base[0].Vary(fmt.Sprint("row ", i), fmt.Sprintf("row/c%d:1", i))
		if err != nil {
			return nil, err
		}
		if err := img.Push(ctx, strings.TrimPrefix(l.URL, "http://")); err != nil {
			return nil, err
		}
		d, err := img.Digest()
		if err != nil {
			return nil, err
		}
		all = append(all, image.Digest(d))
	}
	return all, nil
}

// pod runs the containers from one number to another in a row.
func pod(ctx context.Context, c *cluster.Cluster, from, to int) error {
	type object = map[string]any
	var all []object
	for i := from; i < to; i++ {
		all = append(all, object{"name": fmt.Sprint("c", i), "image": fmt.Sprintf("%s/row/c%d:1", cluster.NodeRegistry, i), "command": []string{"true"}})
	}
	last := len(all) - 1
	spec, err := json.Marshal(object{"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": fmt.Sprint("row", from)},
		"spec": object{"restartPolicy": "Never", "initContainers": all[:last], "containers": all[last:]}})
	if err != nil {
		return err
	}
	_, err = c.RunKubectl(ctx, string(spec), "apply", "-f", "-")
	return err
}
