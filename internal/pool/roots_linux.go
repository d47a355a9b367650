package pool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/worker/isolate"
	"cairn.dev/cairn/internal/worker/keep"
)

// maxText bounds resolv.conf and hosts.
const maxText = 64 << 10

// place is a root that is for one task, and who keeps it.
type place struct {
	keeper *keep.Keeper
	dir    string // of the task's files, relative to the pool's
	leave  func() // the layers
	group  *group // nil for none
	since  time.Duration
}

// roots makes places, some of them ahead of need: for an image that a task was
// just run of there will mostly be another one.
type roots struct {
	users  *users
	layers *layers
	dir    string
	clock  clock.Clock
	log    *slog.Logger
	ctx    context.Context
	shared machine

	mu     sync.Mutex
	n      int
	warm   map[image.Digest][]*place
	making map[image.Digest]int
	inUse  map[image.Digest]int
	work   sync.WaitGroup // places being made or removed
	closed bool
}

// get is a place for a task of an image.
func (r *roots) get(ctx context.Context, name string, d description, volumes []task.Volume) (*place, error) {
	r.mu.Lock()
	r.inUse[d.digest]++
	var p *place
	if ready := r.warm[d.digest]; len(ready) > 0 && len(volumes) == 0 {
		p = ready[len(ready)-1]
		r.warm[d.digest] = ready[:len(ready)-1]
	}
	// One is made for each that is taken, so that there are as many as tasks
	// at a time.
	more := !r.closed && len(r.warm[d.digest])+r.making[d.digest] < r.inUse[d.digest]
	if more {
		r.making[d.digest]++
		r.work.Add(1)
	}
	r.mu.Unlock()
	var err error
	if p == nil {
		p, err = r.make(ctx, name, d, volumes)
	}
	if more {
		go r.ahead(name, d, err == nil)
	}
	return p, err
}

// ahead makes a place for the next task of an image.
func (r *roots) ahead(name string, d description, useful bool) {
	defer r.work.Done()
	var p *place
	if useful {
		var err error
		if p, err = r.make(r.ctx, name, d, nil); err != nil && r.ctx.Err() == nil {
			r.log.Warn("make a root ahead of need", "image", name, "err", err)
		}
	}
	r.mu.Lock()
	r.making[d.digest]--
	keep := p != nil && !r.closed
	if keep {
		p.since = r.clock.Mono()
		r.warm[d.digest] = append(r.warm[d.digest], p)
	}
	r.mu.Unlock()
	if p != nil && !keep {
		r.remove(p)
	}
}

// put ends a place; it is removed in the background, for nobody will see it.
func (r *roots) put(d image.Digest, p *place) {
	r.mu.Lock()
	if r.inUse[d]--; r.inUse[d] == 0 {
		delete(r.inUse, d)
	}
	if p != nil {
		r.work.Add(1)
	}
	r.mu.Unlock()
	if p != nil {
		go func() {
			defer r.work.Done()
			r.remove(p)
		}()
	}
}

// cool removes places that waited for too long.
func (r *roots) cool() {
	var old []*place
	r.mu.Lock()
	for d, ready := range r.warm {
		n := 0
		for n < len(ready) && r.clock.Mono()-ready[n].since >= warmFor {
			n++
		}
		old = append(old, ready[:n]...)
		if r.warm[d] = ready[n:]; n == len(ready) {
			delete(r.warm, d)
		}
		if r.making[d] == 0 {
			delete(r.making, d)
		}
	}
	r.mu.Unlock()
	for _, p := range old {
		r.remove(p)
	}
}

// close removes all that wait, and returns when all are gone.
func (r *roots) close() {
	r.mu.Lock()
	r.closed = true
	var all []*place
	for _, ready := range r.warm {
		all = append(all, ready...)
	}
	clear(r.warm)
	r.mu.Unlock()
	for _, p := range all {
		r.remove(p)
	}
	r.work.Wait()
}

func (r *roots) remove(p *place) {
	p.keeper.Close()
	p.group.leave()
	p.leave()
	if err := r.users.remove(p.dir); err != nil {
		r.log.Error("remove what a task left", "folder", p.dir, "err", err)
	}
}

// make makes a root over the layers of an image, and enters it.
func (r *roots) make(ctx context.Context, name string, d description, volumes []task.Volume) (_ *place, err error) {
	lower, leave, err := r.layers.use(ctx, name, d)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.n++
	p := &place{dir: filepath.Join(tasksDir, strconv.FormatInt(int64(r.n), 36)), leave: leave}
	r.mu.Unlock()
	root, err := r.describe(p.dir, lower, volumes)
	if err == nil {
		p.keeper, err = r.users.keeper()
	}
	if err != nil {
		leave()
		return nil, errors.Join(err, r.users.remove(p.dir))
	}
	if err := p.keeper.Enter(root); err != nil {
		r.remove(p)
		return nil, err
	}
	return p, nil
}

// describe makes the folders of a root and says what is mounted where. All
// paths are relative to the pool's folder, in which a keeper starts: it could
// not go to it itself.
func (r *roots) describe(dir string, lower []string, volumes []task.Volume) (isolate.Root, error) {
	top, err := r.shared.get(r.users)
	if err != nil {
		return isolate.Root{}, err
	}
	root := isolate.Root{At: mountDir, Image: true, Host: hostName,
		Layers: []isolate.Layer{{Path: "/", Lower: append([]string{top}, lower...), Upper: filepath.Join(dir, "u"), Work: filepath.Join(dir, "w")}}}
	for _, sub := range []string{"u", "w"} {
		if err := r.users.makeDir(filepath.Join(r.dir, dir, sub)); err != nil {
			return root, err
		}
	}
	if err := r.users.alike(filepath.Join(r.dir, lower[0]), filepath.Join(r.dir, dir, "u")); err != nil {
		return root, err
	}
	for i, v := range volumes {
		at := filepath.Join(dir, "v"+strconv.Itoa(i))
		if v.Claim != "" {
			at = filepath.Join(claimsDir, claimOf(v))
		}
		_, err := os.Stat(filepath.Join(r.dir, at))
		if errors.Is(err, fs.ErrNotExist) {
			if err = r.users.makeDir(filepath.Join(r.dir, at)); err == nil {
				err = os.Chmod(filepath.Join(r.dir, at), 0o777) // for users other than root in there
			}
		}
		if err != nil {
			return root, fmt.Errorf("make the volume %s: %w", v.Name, err)
		}
		root.Binds = append(root.Binds, isolate.Bind{Path: v.Path, Source: at, ReadOnly: v.ReadOnly})
	}
	return root, nil
}

// machine is a layer on top of an image's: what images need not bring, and what
// every container has of its machine, because tasks use its network. There is
// one for all roots, and a new one when that changes. It spares each task the
// making and removing of some twenty files.
type machine struct {
	mu    sync.Mutex
	text  string // that the layer was made of
	layer string // relative to the pool's folder
	n     int
}

// get is the layer as it has to be now.
func (m *machine) get(u *users) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	hosts := "127.0.0.1\tlocalhost " + hostName + "\n::1\tlocalhost\n"
	for line := range strings.Lines(text("/etc/hosts")) {
		hosts += strings.TrimRight(line, "\n") + "\n"
	}
	etc := map[string]string{"hosts": hosts, "resolv.conf": text("/etc/resolv.conf"), "hostname": hostName + "\n"}
	if all := etc["hosts"] + "\x00" + etc["resolv.conf"]; m.layer == "" || m.text != all {
		m.n++
		layer := filepath.Join(machineDir, strconv.Itoa(m.n))
		if err := build(filepath.Join(u.dir, layer), u, etc); err != nil {
			return "", fmt.Errorf("make what containers have of their machine: %w", err)
		}
		m.text, m.layer = all, layer
	}
	return m.layer, nil
}

func build(dir string, u *users, etc map[string]string) error {
	for _, d := range []struct {
		path string
		mode fs.FileMode
	}{{"", 0o755}, {"proc", 0o555}, {"sys", 0o555}, {"dev", 0o755}, {"etc", 0o755}, {"tmp", 0o777 | fs.ModeSticky}} {
		at := filepath.Join(dir, d.path)
		if err := u.makeDir(at); err != nil {
			return err
		}
		if err := os.Chmod(at, d.mode); err != nil {
			return err
		}
	}
	for name, content := range etc {
		at := filepath.Join(dir, "etc", name)
		if err := os.WriteFile(at, []byte(content), 0o644); err != nil {
			return err
		}
		if err := os.Chmod(at, 0o644); err != nil { // whatever the umask
			return err
		}
		if err := u.own(at); err != nil {
			return err
		}
	}
	return nil
}

// text of a small file; none when it cannot be read.
func text(file string) string {
	b, err := os.ReadFile(file)
	if err != nil || len(b) > maxText {
		return ""
	}
	return string(b)
}
