package crash_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// build compiles the program under test.
func build(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "cairn")
	if out, err := exec.Command("go", "build", "-o", bin, "cairn.dev/cairn/cmd/cairn").CombinedOutput(); err != nil {
		t.Fatalf("build cairn: %v\n%s", err, out)
	}
	return bin
}

// A process is one run of `cairn serve`.
type process struct {
	cmd     *exec.Cmd
	url     string
	http    *http.Client
	started time.Time
	killed  atomic.Bool // set before the kill: requests that fail from now on may
	exited  chan struct{}
	address chan string
	mu      sync.Mutex
	log     []string // the last lines it said
}

// begin starts the program and does not wait for it.
func begin(t *testing.T, bin, config, data string) *process {
	t.Helper()
	p := &process{
		cmd:     exec.Command(bin, "serve", "--open", "--config", config, "--data", data, "--listen", "127.0.0.1:0", "--log-format", "json"),
		http:    &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: time.Minute},
		started: time.Now(),
		exited:  make(chan struct{}),
		address: make(chan string, 1),
	}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			var l struct{ Msg, Address string }
			if json.Unmarshal(lines.Bytes(), &l) == nil && l.Msg == "cairn serves" {
				p.address <- l.Address
			}
			p.mu.Lock()
			if p.log = append(p.log, lines.Text()); len(p.log) > 50 {
				p.log = p.log[1:]
			}
			p.mu.Unlock()
		}
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(p.kill)
	return p
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.log, "\n")
}

// start starts the program and waits until it is ready.
func start(t *testing.T, bin, config, data string) *process {
	t.Helper()
	p := begin(t, bin, config, data)
	limit := time.After(time.Minute)
	select {
	case p.url = <-p.address:
	case <-p.exited:
		t.Fatalf("cairn did not start:\n%s", p.output())
	case <-limit:
		t.Fatalf("cairn did not say its address within a minute:\n%s", p.output())
	}
	for {
		res, err := p.http.Get(p.url + "/readyz")
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return p
			}
		}
		select {
		case <-p.exited:
			t.Fatalf("cairn ended before it was ready:\n%s", p.output())
		case <-limit:
			t.Fatalf("cairn is not ready within a minute: %v\n%s", err, p.output())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// kill ends it as the kernel or a pulled plug would, short of losing what the
// page cache holds.
func (p *process) kill() {
	p.killed.Store(true)
	_ = p.cmd.Process.Kill()
	<-p.exited
	p.http.CloseIdleConnections()
}

// stop ends it as a service manager would.
func (p *process) stop(t *testing.T) {
	t.Helper()
	p.killed.Store(true)
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.exited:
	case <-time.After(30 * time.Second):
		t.Fatalf("cairn did not end within 30 s of SIGTERM:\n%s", p.output())
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("cairn ended with %d after SIGTERM:\n%s", code, p.output())
	}
}

// errKilled: the request did not come to an answer because the process was
// killed. Whether it took effect is not known.
var errKilled = errors.New("killed")

type answer struct {
	status int
	header http.Header
	body   []byte
}

// do sends one request. An error other than errKilled is a failure of the
// program: it answers as long as it lives.
func (p *process) do(method, path string, body []byte, header ...string) (answer, error) {
	url := path
	if strings.HasPrefix(path, "/") {
		url = p.url + path
	}
	var rd io.Reader
	if body != nil {
		rd = strings.NewReader(string(body))
	}
	req, err := http.NewRequestWithContext(context.Background(), method, url, rd)
	if err != nil {
		return answer{}, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := p.http.Do(req)
	var a answer
	if err == nil {
		a.status, a.header = res.StatusCode, res.Header
		a.body, err = io.ReadAll(res.Body)
		res.Body.Close()
	}
	if err != nil {
		if p.killed.Load() {
			return answer{}, errKilled
		}
		return answer{}, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if a.status == http.StatusServiceUnavailable && p.killed.Load() {
		return answer{}, errKilled
	}
	return a, nil
}

// want is do for a request that has one or more right answers.
func (p *process) want(method, path string, body []byte, statuses []int, header ...string) (answer, error) {
	a, err := p.do(method, path, body, header...)
	if err != nil {
		return a, err
	}
	for _, s := range statuses {
		if a.status == s {
			return a, nil
		}
	}
	return a, fmt.Errorf("%s %s: got %d, want %v: %s", method, path, a.status, statuses, a.body)
}

// blobFiles are the digests and sizes of all blobs on disk, and the uploads.
func blobFiles(t *testing.T, data string) (blobs map[string]int64, uploads []string) {
	t.Helper()
	blobs = map[string]int64{}
	walk := func(dir string, f func(path string, size int64)) {
		err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
			if errors.Is(err, os.ErrNotExist) {
				return nil // removed while looking
			}
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			if info, err := e.Info(); err == nil {
				f(path, info.Size())
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	walk(filepath.Join(data, "blobs"), func(path string, size int64) {
		alg := filepath.Base(filepath.Dir(filepath.Dir(path)))
		blobs[alg+":"+filepath.Base(path)] = size
	})
	walk(filepath.Join(data, "uploads"), func(path string, _ int64) { uploads = append(uploads, path) })
	return blobs, uploads
}
