// Package work_test breaks what runs are made of, for real: it kills the
// server and workers at every moment, cuts the network between them, fills the
// disk, and hands in programs and lists that behave as badly as they can.
//
// It owns the promises to those who hand in work: every run ends, and as it
// should; no task is lost, and no attempt of one begins twice; of each task one
// result counts, and what was told of it (values, files, lines) is there; no
// lock and no lease stays behind. It uses the real programs from outside: HTTP,
// the files that tasks write, /proc, the sizes of the data folder.
package work_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/test/parts"
	"cairn.dev/cairn/test/program"
)

// cairn builds what is under test, once.
var cairn = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "cairn-test-work-")
	if err != nil {
		return "", err
	}
	return parts.Compile(context.Background(), "cairn", dir)
})

func TestMain(m *testing.M) {
	code := m.Run()
	if bin, err := cairn(); err == nil {
		_ = os.RemoveAll(filepath.Dir(bin))
	}
	os.Exit(code)
}

// soak reports whether the long kind of test is wanted.
func soak() bool { return os.Getenv("CAIRN_SOAK") != "" }

// choices are the random ones of a test; CAIRN_SEED repeats them, but not the
// moments at which programs do what they do.
func choices(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("CAIRN_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed %d: CAIRN_SEED=%[1]d repeats it", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// begin starts the program; said is called with each line of its log.
func begin(t *testing.T, env []string, said func(line string), args ...string) *program.Process {
	t.Helper()
	bin, err := cairn()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, args...)
	cmd.Env = append(os.Environ(), env...)
	return program.Start(t, cmd, said)
}

// end ends a life in order.
func end(t *testing.T, p *program.Process) {
	t.Helper()
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
}

// A server is `cairn serve` through its lives, and the address at which clients
// reach the one there is.
type server struct {
	t            *testing.T
	data, config string
	door, desk   *wireTap // clients', and theirs when they hand in runs
	taps         []*wireTap
	life         *program.Process
	client       *client.Client
	hands        *client.Client // by the desk
	pool         chan bool      // whether tasks run on its machine, once for each life
}

// newServer starts one with the configuration.
func newServer(t *testing.T, data, configuration string) *server {
	t.Helper()
	s := &server{t: t, data: data, config: filepath.Join(t.TempDir(), "cairn.yaml")}
	if err := os.WriteFile(s.config, []byte(configuration), 0o600); err != nil {
		t.Fatal(err)
	}
	s.door, s.desk = s.tap(), s.tap()
	s.client, s.hands = newClient(t, s.door), newClient(t, s.desk)
	s.start()
	return s
}

func newClient(t *testing.T, w *wireTap) *client.Client {
	t.Helper()
	c, err := client.New(client.Config{Server: w.url(), HTTP: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// tap is another address of the server.
func (s *server) tap() *wireTap {
	w := newWireTap(s.t)
	s.taps = append(s.taps, w)
	return w
}

// begin starts a life and does not wait for it.
func (s *server) begin() {
	s.pool = make(chan bool, 1)
	pool := s.pool
	s.life = begin(s.t, nil, func(line string) {
		var l struct{ Msg string }
		if json.Unmarshal([]byte(line), &l) != nil {
			return
		}
		switch {
		case strings.HasPrefix(l.Msg, "tasks run on this machine"):
			pool <- true
		case strings.HasPrefix(l.Msg, "no tasks are run on this machine"):
			pool <- false
		}
	}, "serve", "--open", "--config", s.config, "--data", s.data, "--listen", "127.0.0.1:0", "--log-format", "json")
}

// start starts a life, waits until it serves, and leads those who ask to it.
func (s *server) start() {
	s.t.Helper()
	s.begin()
	address, err := s.life.Address()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, w := range s.taps {
		w.to(address)
	}
}

// registry is where images are pushed to and pulled from: past the taps.
func (s *server) registry() string { return strings.TrimPrefix(s.door.url(), "http://") }

// needPool ends the test where no tasks can be run on this machine.
func (s *server) needPool() {
	s.t.Helper()
	select {
	case ok := <-s.pool:
		if !ok {
			parts.Missing(s.t, "containers on this machine: "+s.life.Output())
		}
	case <-time.After(10 * time.Second):
		s.t.Fatalf("the server does not say whether tasks run on this machine:\n%s", s.life.Output())
	}
}

// hand hands in a run, once whatever happens meanwhile if it has a key.
func (s *server) hand(sub wire.Submission) (id string) {
	s.t.Helper()
	err := s.again(func(ctx context.Context) error {
		r, err := s.hands.Submit(ctx, sub)
		id = r.ID
		return err
	})
	if err != nil {
		s.t.Errorf("submit %s: %v", sub.Run.Name, err)
	}
	return id
}

// again does something until it was answered by a server that lives.
func (s *server) again(f func(context.Context) error) (err error) {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		err = f(ctx)
		cancel()
		p, answered := errors.AsType[*wire.Problem](err)
		if err == nil || answered && p.Status != http.StatusServiceUnavailable && p.Status != http.StatusInternalServerError {
			return err
		}
	}
	return fmt.Errorf("for a minute: %w", err)
}

// wait is the run when it has ended.
func (s *server) wait(id string, limit time.Duration) (r wire.Run) {
	s.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		err := s.again(func(ctx context.Context) (err error) { r, err = s.client.Run(ctx, id); return err })
		if err != nil {
			s.t.Fatalf("look at run %s: %v", id, err)
		}
		if r.Done() {
			return r
		}
		if time.Now().After(end) {
			s.t.Fatalf("%s (%s) has not ended within %v: %+v\n%s\nthe server said:\n%s", r.Name, id, limit, r, s.tree(id), s.life.Output())
		}
	}
}

// nodes are all of the run, at any depth, without what they left.
func (s *server) nodes(id string) (out []wire.RunNode) {
	s.t.Helper()
	if err := s.again(func(ctx context.Context) (err error) { out, err = below(ctx, s.client, id, ""); return err }); err != nil {
		s.t.Errorf("list the nodes of %s: %v", id, err)
	}
	return out
}

// below are the nodes below one.
func below(ctx context.Context, c *client.Client, id, parent string) (out []wire.RunNode, err error) {
	for q := (client.NodeQuery{Parent: parent}); ; {
		l, err := c.Nodes(ctx, id, q)
		if err != nil {
			return nil, err
		}
		for _, n := range l.Nodes {
			out = append(out, n)
			if n.Children {
				more, err := below(ctx, c, id, n.ID)
				if err != nil {
					return nil, err
				}
				out = append(out, more...)
			}
		}
		if q.After = l.Next; q.After == "" {
			return out, nil
		}
	}
}

// left are the values that a run leaves: those of the top of its graph.
func (s *server) left(id string) (values map[string]any) {
	s.t.Helper()
	err := s.again(func(ctx context.Context) error {
		n, err := s.client.Node(ctx, id, "1")
		values, _ = n.Outputs["parameters"].(map[string]any)
		return err
	})
	if err != nil {
		s.t.Errorf("look at the outputs of %s: %v", id, err)
	}
	return values
}

func (s *server) tree(id string) string {
	var b strings.Builder
	for _, n := range s.nodes(id) {
		fmt.Fprintf(&b, "%s %s %s %s attempt %d by %s: %s %s\n", n.ID, n.Name, n.Kind, n.Phase, n.Attempt, n.Worker, n.Message, n.Waits)
	}
	return b.String()
}

// lines are what the tasks of a run printed.
func (s *server) lines(id string, q client.LogQuery) (out []wire.LogLine) {
	s.t.Helper()
	err := s.again(func(ctx context.Context) error {
		out = nil
		return s.client.Logs(ctx, id, q, func(l wire.LogLine) error { out = append(out, l); return nil })
	})
	if err != nil {
		s.t.Fatalf("read the logs of %s: %v", id, err)
	}
	return out
}
