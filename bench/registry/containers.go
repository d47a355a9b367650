package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cairn.dev/cairn/bench/load"
)

// measureContainers states a million running containers in full, over HTTP, by
// ten thousand reporters spread over a minute, and takes the processor time
// that costs the server as a share of that minute. What is
// written to disk falls due once in an hour: that share is taken from the
// ledger's own benchmark, which moves the clock.
func measureContainers(ctx context.Context, o options, _ *field) (result, error) {
	reporters, each, minute := 10_000, 100, time.Minute
	if o.small {
		reporters, minute = 200, 2*time.Second
	}
	addr, err := freeAddr()
	if err != nil {
		return result{}, err
	}
	s, err := start(ctx, o.dir, "containers", addr, "/v2/", nil, o.cairn, "serve", "--data", filepath.Join(o.dir, "containers-data"), "--listen", addr, "--open")
	if err != nil {
		return result{}, err
	}
	defer s.stop()
	bodies := make([][]byte, reporters)
	for r := range bodies {
		if bodies[r], err = statement(r, each); err != nil {
			return result{}, err
		}
	}
	var shares []float64
	for round := range 3 {
		before, err := s.cpu()
		if err != nil {
			return result{}, err
		}
		if err := postAll(ctx, s.addr, bodies, minute); err != nil {
			return result{}, err
		}
		after, err := s.cpu()
		if err != nil {
			return result{}, err
		}
		if round > 0 { // the first one enrols and stores everything
			shares = append(shares, (after-before).Seconds()/minute.Seconds())
		}
	}
	memory, err := s.peakRSS()
	if err != nil {
		return result{}, err
	}
	restate, write, note := median(shares), 0.0, "not measured"
	if !o.small {
		if write, err = writeShare(ctx); err != nil {
			return result{}, err
		}
		note = "all rows once in an hour, and what is written every few seconds (BenchmarkMillion)"
	}
	total := restate + write
	return result{
		name:  "Running containers",
		title: fmt.Sprintf("%s running containers, restated in full every 60 s by %s reporters, as gzip and JSON over HTTP", number(float64(reporters*each)), number(float64(reporters))),
		rows: []row{
			{"stating", restate, " cores", fmt.Sprintf("median of %d minutes of %s posts", len(shares), number(float64(reporters)))},
			{"writing", write, " cores", note},
			{"peak memory", float64(memory) / (1 << 20), " MiB", "of the whole server"},
		},
		verdicts: []verdict{{"≤ 0.25 cores and ≤ 512 MiB", fmt.Sprintf("%.2f cores, %s", total, bytesText(memory)), total <= 0.25 && memory <= 512<<20}},
	}, nil
}

// statement is what one reporter says: the containers of one host.
func statement(reporter, uses int) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"reporter":"host-%d","period":"60s","complete":true,"statement":"a","sources":["container"],"uses":[`, reporter)
	for u := range uses {
		if u > 0 {
			b.WriteByte(',')
		}
		image := (reporter*37 + u*101) % 50_000
		fmt.Fprintf(&b, `{"digest":"sha256:%x","repository":"team/app-%d","source":"container","subject":"host-%d/app-%d"}`, sha256.Sum256(strconv.AppendInt(nil, int64(image), 10)), image%1000, reporter, u)
	}
	b.WriteString("]}")
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	if _, err := w.Write(b.Bytes()); err != nil {
		return nil, err
	}
	err := w.Close()
	return z.Bytes(), err
}

// postAll posts each body once, over a few connections, evenly over the time.
func postAll(ctx context.Context, addr string, bodies [][]byte, over time.Duration) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	start := time.Now()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			c := load.NewConn(addr)
			defer c.Close()
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(bodies) {
					return
				}
				time.Sleep(time.Until(start.Add(over * time.Duration(i) / time.Duration(len(bodies)))))
				head := fmt.Sprintf("POST /api/v1/uses HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n", addr, len(bodies[i]))
				a, err := c.Do([]byte(head), bodies[i])
				if err == nil && a.Status/100 != 2 {
					err = fmt.Errorf("POST uses: status %d", a.Status)
				}
				if err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// writeShare runs the benchmark of the ledger and adds up the shares of a core
// that it says go into writing.
func writeShare(ctx context.Context) (float64, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkMillion$", "-benchtime", "1x", "./internal/usage")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("run the benchmark of the ledger: %w\n%s", err, out)
	}
	total := 0.0
	for _, unit := range []string{"cores/write", "cores/marks"} {
		m := regexp.MustCompile(`([0-9.e-]+) ` + unit).FindSubmatch(out)
		if m == nil {
			return 0, fmt.Errorf("the benchmark of the ledger does not print %s:\n%s", unit, out)
		}
		v, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			return 0, fmt.Errorf("read %s: %w", unit, err)
		}
		total += v
	}
	return total, nil
}

// cpu is the processor time the process has used.
func (s *server) cpu() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("read the processor time of %s: %w", s.name, err)
	}
	// The name in parentheses may hold anything; the rest is numbers, of which
	// utime and stime are the 12th and 13th.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("processor time of %s: %q", s.name, b)
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("processor time of %s: %w", s.name, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / 100), nil // the kernel counts in hundredths for everybody
}
