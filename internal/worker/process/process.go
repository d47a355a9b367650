// Package process is a worker as a process of its own: what "cairn worker" and
// cairn-worker are.
//
// It owns how a worker is put together from settings, and what of the
// environment tasks get: nothing that is ours. It promises to read no file but
// the one of the secret, and those of the pod's account if it makes requests for
// tasks. It does not know flags; whoever has them ends the worker by the context.
package process

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"cairn.dev/cairn/internal/worker"
)

// Config of a worker. Zero values take the defaults that are named.
type Config struct {
	Server    string // its address; required
	CA        string // certificates (PEM) that it is known by; "" for those that the machine trusts
	Direct    bool   // it is asked without proxies
	Token     string // its secret, unless TokenFile says where that is
	TokenFile string // read anew for each request, because files of pods change
	Pool      string // "default"
	Name      string // unique among workers; made of host name and PID
	Slots     int    // tasks at a time; 1
	// Scratch is a folder of its own, not on an overlay; /tmp/cairn-worker.
	Scratch string
	// Fresh are folders that are new for each task, Keep those that tasks share.
	Fresh, Keep []string
	// Single: the container is for one task only. Address is where others find it,
	// if that task is a daemon.
	Single  bool
	Address string
	// Bare: all its tasks ask for no namespaces. They share those of the worker,
	// which hides its secret from them then.
	Bare bool
	// Meet is a folder that the containers of its pod have in common, where they
	// are one task.
	Meet string
	// Entrypoint and Command are those of the image.
	Entrypoint, Command []string
	// Resources: it makes requests of tasks to the cluster that it is in, with the
	// account of its pod, and runs no programs.
	Resources bool
	// Env is the process's own environment.
	Env []string
	Log *slog.Logger
}

// errNoServer says what is missing.
var errNoServer = fmt.Errorf("no work server: say --server http://HOST:PORT, or set CAIRN_SERVER")

func (c *Config) complete() error {
	if c.Server == "" {
		return errNoServer
	}
	c.Pool, c.Slots, c.Scratch = cmp.Or(c.Pool, "default"), max(c.Slots, 1), cmp.Or(c.Scratch, "/tmp/cairn-worker")
	if host, err := os.Hostname(); c.Name == "" && err == nil {
		c.Name = fmt.Sprintf("%s-%d", host, os.Getpid())
	}
	for _, dir := range c.Keep {
		if err := shared(dir); err != nil {
			return fmt.Errorf("tasks cannot share the folder %s (--keep): %w", dir, err)
		}
	}
	return nil
}

// shared checks a folder that tasks are to share: one that is not there would
// be looked for in vain by each of them.
func shared(dir string) error {
	if !filepath.IsAbs(dir) {
		return errors.New("name its whole path, such as /data")
	}
	i, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("it is not there: make it, or mount what it is for, before the worker starts")
	}
	if err == nil && !i.IsDir() {
		return errors.New("it is no folder")
	}
	return err
}

func (c *Config) api() (*worker.HTTP, error) {
	api, err := worker.NewHTTP(c.Server, func() (string, error) {
		if c.TokenFile == "" {
			return c.Token, nil
		}
		b, err := os.ReadFile(c.TokenFile)
		if err != nil {
			return "", fmt.Errorf("read the worker's secret: %w", err)
		}
		return strings.TrimSpace(string(b)), nil
	})
	if err != nil {
		return nil, err
	}
	if c.Direct {
		api.Direct()
	}
	if c.CA != "" {
		err = api.Trust(c.CA)
	}
	return api, err
}

// inherited is what tasks get of our environment.
func inherited(env []string) []string {
	var out []string
	for _, e := range env {
		if !strings.HasPrefix(e, "CAIRN_") {
			out = append(out, e)
		}
	}
	return out
}
