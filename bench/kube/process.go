package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// serve starts a server of its own database, in place of the one before. Of its
// configuration it sets what follows from the cluster.
func (w *world) serve(ctx context.Context, cfg serverConfig) error {
	w.end()
	w.n++
	w.config = cfg
	address, err := free()
	if err != nil {
		return err
	}
	outside, err := w.Expose(address)
	if err != nil {
		return err
	}
	data, err := os.MkdirTemp(w.dir, "server-")
	if err != nil {
		return err
	}
	cfg.Dir, cfg.Listen, cfg.Kubeconfig, cfg.URL, cfg.Worker = data, address, w.kubeconfig, "http://"+outside, workerImage
	text, err := json.Marshal(cfg)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	w.server = exec.Command("nice", "-n", strconv.Itoa(elsewhere), self, "-serve", string(text))
	w.server.Stderr = os.Stderr
	if w.stdin, err = w.server.StdinPipe(); err != nil {
		return err
	}
	if err := w.server.Start(); err != nil {
		return err
	}
	w.address = address
	if err := until(ctx, "the server answers", time.Minute, func() (bool, error) { return answers(ctx, "http://"+address+"/ready"), nil }); err != nil {
		return err
	}
	// So that images are there, and known.
	if err := w.fan(ctx, plain, 1); err != nil {
		return err
	}
	return w.gone(ctx, plain)
}

// end ends the server.
func (w *world) end() {
	if w.server != nil {
		w.stdin.Close()
		_ = w.server.Wait()
		w.server = nil
	}
}

func (w *world) close() {
	w.end()
	if err := w.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "bench/kube: end the cluster:", err)
	}
}

// told is of how many ends of runs the server has told the API server.
func (w *world) told(ctx context.Context) (n int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+w.address+"/told", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = fmt.Fscan(resp.Body, &n)
	return n, err
}

// memory is the largest resident set of the server so far, in bytes.
func (w *world) memory() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.server.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
			return kb << 10, err
		}
	}
	return 0, errors.New("the kernel tells no VmHWM")
}
