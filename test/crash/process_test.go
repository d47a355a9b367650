package crash_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cairn.dev/cairn/test/program"
)

// A process is one life of `cairn serve`.
type process struct {
	life   *program.Process
	url    string
	http   *http.Client
	killed atomic.Bool // set before the kill: requests that fail from now on may
}

// begin starts the program and does not wait for it.
func begin(t *testing.T, bin, config, data string) *process {
	t.Helper()
	cmd := exec.Command(bin, "serve", "--open", "--config", config, "--data", data, "--listen", "127.0.0.1:0", "--log-format", "json")
	return &process{life: program.Start(t, cmd, nil), http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: time.Minute}}
}

// start starts the program and waits until it is ready.
func start(t *testing.T, bin, config, data string) *process {
	t.Helper()
	p := begin(t, bin, config, data)
	address, err := p.life.Address()
	if err != nil {
		t.Fatal(err)
	}
	p.url = "http://" + address
	if err := p.life.Until(program.Answers(p.url + "/readyz")); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *process) kill() {
	p.killed.Store(true)
	p.life.Kill()
	p.http.CloseIdleConnections()
}

func (p *process) stop(t *testing.T) {
	t.Helper()
	p.killed.Store(true)
	if err := p.life.Stop(); err != nil {
		t.Error(err)
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
