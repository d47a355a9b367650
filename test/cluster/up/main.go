// Command up leaves a cluster running for a person, with Cairn, built from
// this tree, as the registry of its nodes, and the images of package images in
// it: what "make cluster" runs.
//
// It owns the process in the background that keeps the two, one on a computer,
// and nothing else; see package cluster. "up -stop" ends it, and all of it.
//
//	go run ./test/cluster/up [-nodes 1] [-fake 0] [-listen 127.0.0.1:5080] | -stop
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"cairn.dev/cairn/test/cluster"
	"cairn.dev/cairn/test/images"
	"cairn.dev/cairn/test/parts"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// settings are the command line.
type settings struct {
	nodes, fake  int
	listen       string
	stop, inside bool
}

func run(ctx context.Context, args []string) error {
	var s settings
	flags := flag.NewFlagSet("up", flag.ContinueOnError)
	flags.IntVar(&s.nodes, "nodes", 1, "real nodes, at most 4")
	flags.IntVar(&s.fake, "fake", 0, "nodes that only pretend")
	flags.StringVar(&s.listen, "listen", "127.0.0.1:5080", "address of Cairn")
	flags.BoolVar(&s.stop, "stop", false, "end the cluster that runs")
	flags.BoolVar(&s.inside, "inside", false, "be the process in the background")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if why := cluster.Unable(); why != "" {
		return errors.New(why)
	}
	dir := filepath.Join(cluster.Folder, "up")
	switch {
	case s.stop:
		return end(ctx, dir)
	case s.inside:
		return hold(ctx, dir, s)
	}
	return begin(ctx, dir, args)
}

// begin starts the process in the background and shows what it says, until it
// is ready.
func begin(ctx context.Context, dir string, args []string) error {
	if pid := running(dir); pid != 0 {
		return fmt.Errorf("a cluster runs already, kept by process %d; end it with: make cluster-stop", pid)
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("/proc/self/exe", append(args, "-inside")...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "pid"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o644); err != nil {
		return errors.Join(err, cmd.Process.Signal(syscall.SIGTERM))
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	shown := 0
	for {
		b, err := os.ReadFile(log.Name())
		if err != nil {
			return err
		}
		_, _ = os.Stdout.Write(b[shown:])
		shown = len(b)
		if bytes.Contains(b, []byte(ready)) {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(errors.New("interrupted"), cmd.Process.Signal(syscall.SIGTERM))
		case err := <-ended:
			b, _ := os.ReadFile(log.Name())
			_, _ = os.Stdout.Write(b[shown:])
			return fmt.Errorf("the cluster did not start: %w", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// ready is the last line that the process in the background says.
const ready = "Stop it:     make cluster-stop\n"

// hold keeps Cairn and the cluster until it is told to end.
func hold(ctx context.Context, dir string, s settings) error {
	program, err := parts.Compile(ctx, "cairn", dir)
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, "cairn.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	// The kernel ends it with us, if nobody else does.
	cairn := exec.CommandContext(ctx, program, "serve", "--open", "--listen", s.listen, "--data", filepath.Join(dir, "data"))
	cairn.Stdout, cairn.Stderr = log, log
	cairn.Cancel = func() error { return cairn.Process.Signal(syscall.SIGTERM) }
	cairn.WaitDelay = 20 * time.Second
	stay(cairn)
	if err := cairn.Start(); err != nil {
		return err
	}
	dead := make(chan error, 1)
	go func() { dead <- cairn.Wait() }()
	for !answers("http://" + s.listen + "/readyz") {
		select {
		case err := <-dead:
			b, _ := os.ReadFile(log.Name())
			return fmt.Errorf("cairn serve ended: %w\n%s", err, b)
		case <-time.After(50 * time.Millisecond):
		}
	}
	all, err := images.Build(ctx, os.Stdout)
	if err != nil {
		return err
	}
	var names []string
	for _, i := range all {
		if err := i.Push(ctx, s.listen); err != nil {
			return err
		}
		names = append(names, strings.TrimPrefix(i.Refs[0], "library/"))
	}
	start := time.Now()
	c, err := cluster.New(ctx, cluster.Options{Nodes: s.nodes, FakeNodes: s.fake, Registry: s.listen, Progress: os.Stdout})
	if err != nil {
		return err
	}
	fmt.Printf(`The cluster is ready, %s after its programs were.
Images:      %s; any other: push to %s/NAME:TAG, run as %s/NAME:TAG
Cairn:       export CAIRN_SERVER=http://%s
kubectl:     export PATH=%s:$PATH
Cluster:     export KUBECONFIG=%s
%s`, time.Since(start).Round(100*time.Millisecond), strings.Join(names, ", "), s.listen, cluster.NodeRegistry, s.listen, filepath.Join(c.Dir, "bin"), c.Kubeconfig, ready)
	select {
	case <-ctx.Done():
	case err = <-dead:
		err = fmt.Errorf("cairn serve ended: %w; see %s", err, log.Name())
	}
	return errors.Join(err, c.Close())
}

func answers(url string) bool {
	client := http.Client{Timeout: time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode == http.StatusOK
}

// running is the process that keeps the cluster; 0 when there is none.
func running(dir string) int {
	b, err := os.ReadFile(filepath.Join(dir, "pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(string(b))
	if err != nil {
		return 0
	}
	// Numbers come again: it must be ours.
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !bytes.HasSuffix(line, []byte("\x00-inside\x00")) {
		return 0
	}
	return pid
}

// end ends the process in the background and waits until all is gone.
func end(ctx context.Context, dir string) error {
	pid := running(dir)
	if pid == 0 {
		fmt.Println("no cluster runs")
		return os.RemoveAll(dir)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("end process %d: %w", pid, err)
	}
	for running(dir) != 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	fmt.Println("the cluster is gone")
	return os.RemoveAll(dir)
}
