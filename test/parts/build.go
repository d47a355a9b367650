package parts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func (p Part) String() string { return p.Name + " " + p.Version }

// file is where the built program lies in a cache.
func (p Part) file(cache string) string {
	return filepath.Join(cache, p.Name+"-"+p.Version, p.Name)
}

// build makes the program unless it is there. A crash or an interrupt leaves
// at most a temporary folder, which the next build of the part removes.
func (p Part) build(ctx context.Context, cache string, progress io.Writer) (string, error) {
	file := p.file(cache)
	if built(file) {
		return file, nil
	}
	err := keep(ctx, filepath.Dir(file), progress, fmt.Sprintf("building %s (about %s from an empty build cache)", p, p.Cold),
		func() bool { return built(file) },
		func(work string) error { return p.compile(ctx, work) })
	if err != nil {
		return "", err
	}
	return file, nil
}

// keep makes the folder dir by calling fill with a folder to fill, unless
// another process did so while we waited for our turn. The folder is there
// whole or not at all.
func keep(ctx context.Context, dir string, progress io.Writer, what string, there func() bool, fill func(work string) error) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("make the cache of parts: %w; set CAIRN_PARTS to a folder that can be written", err)
	}
	unlock, err := lock(ctx, dir+".lock")
	if err != nil {
		return err
	}
	defer unlock()
	if there() {
		return nil
	}
	work := dir + ".tmp"
	if err := os.RemoveAll(work); err != nil {
		return fmt.Errorf("clear the half-made %s: %w", dir, err)
	}
	if err := os.MkdirAll(work, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	defer os.RemoveAll(work)

	stop := tell(progress, "parts: "+what)
	err = fill(work)
	stop(err)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("replace %s: %w", dir, err)
	}
	if err := os.Rename(work, dir); err != nil {
		return fmt.Errorf("keep %s: %w", dir, err)
	}
	return nil
}

func built(file string) bool {
	i, err := os.Stat(file)
	return err == nil && i.Mode().IsRegular() && i.Mode()&0o100 != 0
}

// compile builds the program into the folder work. For a program from outside
// it makes a module of its own that requires exactly this version: unlike "go
// install", that also works for modules that contain replace directives. A
// program of this repository is built where it lies.
func (p Part) compile(ctx context.Context, work string) error {
	if len(p.Npm) > 0 {
		return p.npm(ctx, work)
	}
	proxy, err := proxyAlone(ctx)
	if err != nil {
		return err
	}
	link := "-s -w"
	for _, s := range p.Set {
		link += " -X " + s
	}
	dir, flags, cgo := p.Dir, "-buildvcs=false", "CGO_ENABLED=0"
	if p.Cgo {
		cgo = "CGO_ENABLED=1"
	}
	build := []string{"build", "-trimpath", "-tags", p.Tags, "-ldflags", link, "-o", filepath.Join(work, p.Name)}
	steps := [][]string{append(build, ".")}
	switch {
	case len(p.Folders) > 0:
		dir = filepath.Join(work, "module")
		if err := p.unpack(ctx, proxy, dir); err != nil {
			return fmt.Errorf("build %s: %w", p, err)
		}
		defer os.RemoveAll(dir)
		if below, ok := strings.CutPrefix(p.Package, p.module()+"/"); ok {
			steps = [][]string{append(build, "./"+below)}
		}
		flags += " -mod=mod" // its checked-in go.sum lacks what only its tools need
	case dir == "":
		mod := "module part\n\ngo 1.26\n"
		for _, r := range p.Replace {
			mod += "\nreplace " + r + "\n"
		}
		if err := os.WriteFile(filepath.Join(work, "go.mod"), []byte(mod), 0o644); err != nil {
			return fmt.Errorf("build %s: %w", p, err)
		}
		dir, flags = work, flags+" -mod=mod"
		steps = [][]string{{"get", p.Package + "@" + p.Version}, append(build, p.Package)}
	}
	for _, args := range steps {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = dir
		// No workspace, no vcs stamps, no cgo where it can be helped: the same
		// program comes out wherever and by whomever it is built.
		cmd.Env = append(os.Environ(), "GOPROXY="+proxy, "GOFLAGS="+flags, "GOWORK=off", cgo, "GOOS=", "GOARCH=")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: go %s: %w\n%s", p, strings.Join(args, " "), err, tail(out, 20))
		}
	}
	for _, f := range p.Folders {
		if err := os.Rename(filepath.Join(dir, f), filepath.Join(work, f)); err != nil {
			return fmt.Errorf("keep what %s reads: %w", p, err)
		}
	}
	return nil
}

// proxyAlone is the environment's module proxy without the fall-back to
// version control: where a proxy refuses a module, the fall-back only fails
// slowly.
func proxyAlone(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOPROXY").Output()
	if err != nil {
		return "", fmt.Errorf("ask go for its module proxy: %w; is the Go command in PATH?", err)
	}
	proxy := strings.TrimSpace(string(out))
	if cut := strings.TrimRight(strings.TrimSuffix(proxy, "direct"), ",|"); cut != "" {
		return cut, nil
	}
	return proxy, nil
}

// tell writes what is being done, again each half minute, and how it ended.
func tell(w io.Writer, what string) (stop func(error)) {
	start := time.Now()
	fmt.Fprintln(w, what)
	done, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		tick := time.NewTicker(30 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				fmt.Fprintf(w, "%s: %s so far\n", what, time.Since(start).Round(time.Second))
			case <-done:
				return
			}
		}
	}()
	return func(err error) {
		close(done)
		<-gone
		end := "done"
		if err != nil {
			end = "failed"
		}
		fmt.Fprintf(w, "%s: %s after %s\n", what, end, time.Since(start).Round(time.Second))
	}
}

// lock takes the lock file at path, waiting for its holder. The kernel lets go
// of it when the process ends, so a killed build blocks nobody.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("lock %s: %w; set CAIRN_PARTS to a folder that can be written", path, err)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("wait for the lock %s: %w", path, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// tail is the last n lines of out.
func tail(out []byte, n int) []byte {
	out = bytes.TrimSpace(out)
	lines := bytes.Split(out, []byte("\n"))
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return bytes.Join(lines, []byte("\n"))
}
