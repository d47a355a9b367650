// Command agent measures the agent as a process of its own: what it costs on a
// node, how late a start of a container is in the ledger, and how long a large
// cluster takes until its first report.
//
// It owns the pretended runtime and API server, and the report. It does not
// measure them: what they cost is not the agent's, but runs on the same
// computer.
//
//	go run ./bench/agent -o bench/agent.md
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"cairn.dev/cairn/test/parts"
)

type settings struct {
	containers int           // that run all the time
	rate       int           // starts a second
	last       time.Duration // for so long
	pods       int
	row        int // containers of the real node
}

func main() {
	var s settings
	out := flag.String("o", "", "file to write the report to")
	flag.IntVar(&s.containers, "containers", 100, "containers that run on the node")
	flag.IntVar(&s.rate, "rate", 300, "containers that start each second")
	flag.DurationVar(&s.last, "for", 30*time.Second, "for how long they do")
	flag.IntVar(&s.row, "row", 500, "containers that start on a real node, one after the other")
	flag.IntVar(&s.pods, "pods", 100_000, "pods of the cluster")
	flag.Parse()
	if err := run(s, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench/agent:", err)
		os.Exit(1)
	}
}

func run(s settings, out string) error {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "cairn-bench-agent")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Fprintln(os.Stderr, "building cairn")
	cairn, err := parts.Compile(ctx, "cairn", dir)
	if err != nil {
		return err
	}
	ledger, err := newLedger(ctx, cairn, filepath.Join(dir, "data"))
	if err != nil {
		return err
	}
	defer ledger.close()
	var b strings.Builder
	fmt.Fprintf(&b, "# The agent, measured\n\n    make bench-agent\n\nOn %d processors (%s/%s), with the server and what pretends to be runtime and API server on the same computer.\n", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH)
	fmt.Fprintln(os.Stderr, "a node")
	if err := s.node(ctx, &b, cairn, dir, ledger); err != nil {
		return fmt.Errorf("node: %w", err)
	}
	fmt.Fprintln(os.Stderr, "a real node")
	if err := s.realNode(ctx, &b, cairn, ledger); err != nil {
		return fmt.Errorf("real node: %w", err)
	}
	fmt.Fprintln(os.Stderr, "a cluster")
	if err := s.cluster(ctx, &b, cairn, ledger); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	if out == "" {
		_, err := io.WriteString(os.Stdout, b.String())
		return err
	}
	return os.WriteFile(out, []byte(b.String()), 0o644)
}

// start runs cairn until stop is called.
func start(ctx context.Context, cairn string, args ...string) (*exec.Cmd, func(), error) {
	c := exec.CommandContext(ctx, cairn, args...)
	c.Stderr = os.Stderr
	c.Env = append(os.Environ(), "CAIRN_TOKEN=")
	if err := c.Start(); err != nil {
		return nil, nil, err
	}
	return c, func() {
		_ = c.Process.Signal(os.Interrupt)
		_ = c.Wait()
	}, nil
}

// wait polls until ok, for at most two minutes.
func wait(what string, ok func() bool) error {
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return nil
		}
	}
	return errors.New("never came: " + what)
}
