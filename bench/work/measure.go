package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work/machine"
)

// measured is what became of one run.
type measured struct {
	took, submit, page time.Duration
	p50, p99           time.Duration // of calls that bring results and take tasks
	memory, bytes      int64
}

// measure runs items tasks through a server of its own.
func measure(ctx context.Context, items, workers, batch int) (*measured, error) {
	dir, err := os.MkdirTemp("", "cairn-bench-work")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{"-serve", dir}
	if p := os.Getenv("BENCH_WORK_PROFILE"); p != "" {
		args = append(args, "-profile", p)
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := false
	defer func() {
		if !ended {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}()
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("start the server: %w", err)
	}
	addr = strings.TrimSpace(addr)

	var m measured
	list, err := call(http.MethodPost, "http://"+addr+"/list?n="+strconv.Itoa(items))
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	id, err := call(http.MethodPost, "http://"+addr+"/submit?list="+list)
	if err != nil {
		return nil, err
	}
	for known := 0; known != items; { // until the server knows all items, too
		var info struct{ Counts machine.Counts }
		body, err := call(http.MethodGet, "http://"+addr+"/run/"+id)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(body), &info); err != nil {
			return nil, err
		}
		known = info.Counts.Total
	}
	m.submit = time.Since(begin)

	var done atomic.Int64
	var mu sync.Mutex
	var took []time.Duration
	var first error
	var wg sync.WaitGroup
	begin = time.Now()
	for w := range workers {
		wg.Go(func() {
			mine, err := worker(addr, "w"+strconv.Itoa(w), batch, items, &done)
			mu.Lock()
			defer mu.Unlock()
			took = append(took, mine...)
			if err != nil && first == nil {
				first = err
			}
		})
	}
	finished := make(chan struct{})
	go func() { wg.Wait(); close(finished) }()
	look := time.NewTicker(200 * time.Millisecond)
	defer look.Stop()
	for waiting := true; waiting; {
		select {
		case <-finished:
			waiting = false
		case <-look.C:
			at := time.Now()
			if _, err := call(http.MethodGet, "http://"+addr+"/run/"+id); err != nil {
				return nil, err
			}
			m.page = max(m.page, time.Since(at))
			m.bytes = max(m.bytes, size(dir))
		}
	}
	m.took = time.Since(begin)
	if first != nil {
		return nil, first
	}
	body, err := call(http.MethodGet, "http://"+addr+"/run/"+id)
	if err != nil {
		return nil, err
	}
	var info struct {
		Phase  string
		Counts machine.Counts
	}
	if err := json.Unmarshal([]byte(body), &info); err != nil {
		return nil, err
	}
	if info.Phase != "succeeded" || info.Counts.Succeeded != items {
		return nil, fmt.Errorf("the run did not end well: %s", body)
	}
	slices.Sort(took)
	m.p50, m.p99 = took[len(took)/2], took[len(took)*99/100]
	ended = true
	in.Close()
	if err := cmd.Wait(); err != nil {
		return nil, err
	}
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		m.memory = u.Maxrss << 10
	}
	m.bytes = max(m.bytes, size(dir))
	return &m, nil
}

// size is that of the database, its write-ahead log included.
func size(dir string) (n int64) {
	for _, name := range []string{"work.db", "work.db-wal"} {
		if i, err := os.Stat(filepath.Join(dir, name)); err == nil {
			n += i.Size()
		}
	}
	return n
}

func call(method, url string) (string, error) {
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		return "", err
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	if err == nil && a.StatusCode != http.StatusOK {
		err = errors.New(a.Status + ": " + string(b))
	}
	return string(b), err
}

// worker asks, says that all went well, and asks again, until all is done. It
// speaks HTTP by hand, so that the processor is the server's.
func worker(addr, name string, batch, items int, done *atomic.Int64) (took []time.Duration, err error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	r := bufio.NewReaderSize(c, 64<<10)
	var outcomes, request, body []byte
	n := 0
	for done.Load() < int64(items) || n > 0 {
		wait := `,"wait":200000000`
		request = fmt.Appendf(request[:0], `{"worker":"%s","pool":"","want":%d%s,"outcomes":[`, name, batch, wait)
		request = append(append(request, outcomes...), "]}"...)
		head := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", task.PathWork, len(request))
		begin := time.Now()
		if _, err := c.Write(append(head, request...)); err != nil {
			return took, err
		}
		if body, err = answer(r, body); err != nil {
			return took, err
		}
		d := time.Since(begin)
		if bytes.Contains(body, []byte(`"refused":`)) {
			return took, fmt.Errorf("the server refused outcomes: %.300s", body)
		}
		done.Add(int64(n))
		outcomes, n = succeed(outcomes[:0], body)
		if n > 0 {
			took = append(took, d)
		}
	}
	return took, nil
}

// answer reads a response that says its length.
func answer(r *bufio.Reader, body []byte) ([]byte, error) {
	length := -1
	for line := 0; ; line++ {
		b, err := r.ReadSlice('\n')
		if err != nil {
			return body, err
		}
		if line == 0 && !bytes.Contains(b, []byte(" 200 ")) {
			return body, fmt.Errorf("the server answers %.100s", b)
		}
		if len(b) <= 2 {
			break
		}
		if v, ok := bytes.CutPrefix(b, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(v))); err != nil {
				return body, err
			}
		}
	}
	if length < 0 {
		return body, errors.New("the server does not say how long its answer is")
	}
	body = slices.Grow(body[:0], length)[:length]
	_, err := io.ReadFull(r, body)
	return body, err
}

// succeed makes outcomes of the leases of a grant: the beginning of each lease
// is that of its outcome.
func succeed(out, grant []byte) ([]byte, int) {
	n := 0
	for {
		i := bytes.Index(grant, []byte(`{"run":"`))
		if i < 0 {
			return out, n
		}
		grant = grant[i:]
		i = bytes.Index(grant, []byte(`"token":"`))
		end := i + 9 + bytes.IndexByte(grant[i+9:], '"') + 1
		if n > 0 {
			out = append(out, ',')
		}
		out = append(append(out, grant[:end]...), `,"phase":"succeeded","exit":0}`...)
		grant = grant[end:]
		n++
	}
}
