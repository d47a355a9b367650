package pool

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/worker/files"
	"cairn.dev/cairn/internal/worker/isolate"
	"cairn.dev/cairn/internal/worker/keep"
)

// The folders of a pool's own folder. Their names are short because the kernel
// takes all layers of an image in one page of text.
const (
	layersDir = "l"
	tasksDir  = "t"
	claimsDir = "claims"
	emptyDir  = "l/none" // below the lowest layer
	// machineDir holds what is on top of all layers.
	machineDir = "m"
	mountDir   = "r" // on which each keeper, in namespaces of its own, puts its root together
	factsFile  = "layer.json"
	treeDir    = "fs"

	tellEvery = 10 * time.Second // while something is unpacked
)

// layer is one that is unpacked, on those below it.
type layer struct {
	name  string        // of its folder
	facts facts         // as they are on disk
	uses  int           // of images that run or are about to
	last  time.Duration // monotonic, of its last use
	above int           // layers that stand on it
}

// facts are in the folder of a layer. Without them the folder is no layer.
type facts struct {
	Chain  digest.Digest `json:"chain"`
	Parent digest.Digest `json:"parent,omitempty"`
	Bytes  int64         `json:"bytes"`
	Files  int           `json:"files"`
}

// size is what a layer costs, near enough.
func (f facts) size() int64 { return f.Bytes + int64(f.Files)*4096 }

// layers are the unpacked layers of images. They are unpacked by a keeper in
// the namespaces that tasks have: what an image brings is written by somebody
// who is nobody on this machine, into a root that has nothing of the machine.
// Each is unpacked onto those below it, through an overlay, so that the kernel
// says what is gone, and folders that a layer does not name stay as they were.
type layers struct {
	users  *users
	dir    string
	max    int64
	limits files.Limits
	clock  clock.Clock
	log    *slog.Logger
	ctx    context.Context // ends with the pool

	mu      sync.Mutex
	n       int // names so far
	known   map[digest.Digest]*layer
	flights map[digest.Digest]*flight
	total   int64
}

// flight is a layer that is being unpacked; everybody who wants it waits.
type flight struct {
	done chan struct{}
	err  error
}

// openLayers takes in what an earlier process unpacked, and removes what it did
// not finish.
func openLayers(ctx context.Context, cfg Config, u *users, c clock.Clock, log *slog.Logger) (*layers, error) {
	l := &layers{users: u, dir: cfg.Dir, max: cfg.MaxBytes, limits: cfg.MaxImage, clock: c, log: log, ctx: ctx,
		known: map[digest.Digest]*layer{}, flights: map[digest.Digest]*flight{}}
	if err := u.makeDir(filepath.Join(cfg.Dir, emptyDir)); err != nil {
		return nil, err
	}
	dirs, err := os.ReadDir(filepath.Join(cfg.Dir, layersDir))
	if err != nil {
		return nil, fmt.Errorf("look at unpacked images: %w", err)
	}
	for _, d := range dirs {
		if filepath.Join(layersDir, d.Name()) == emptyDir {
			continue
		}
		if n, err := strconv.ParseInt(d.Name(), 36, 32); err == nil {
			l.n = max(l.n, int(n))
		}
		f, err := readFacts(filepath.Join(cfg.Dir, layersDir, d.Name()), u)
		if err != nil || l.known[f.Chain] != nil {
			log.Debug("remove a layer that is not whole", "folder", d.Name(), "err", err)
			if err := u.remove(filepath.Join(layersDir, d.Name())); err != nil {
				return nil, err
			}
			continue
		}
		l.known[f.Chain] = &layer{name: d.Name(), facts: f}
		l.total += f.size()
	}
	return l, l.adopt()
}

// adopt counts who stands on whom, and removes what stands on nothing.
func (l *layers) adopt() error {
	for again := true; again; {
		again = false
		for chain, y := range l.known {
			if y.facts.Parent != "" && l.known[y.facts.Parent] == nil {
				l.forget(chain, y)
				if err := l.drop(y); err != nil {
					return err
				}
				again = true
			}
		}
	}
	for _, y := range l.known {
		if y.facts.Parent != "" {
			l.known[y.facts.Parent].above++
		}
	}
	return nil
}

// readFacts reads those of a layer that these users can use.
func readFacts(dir string, u *users) (facts, error) {
	var f facts
	b, err := os.ReadFile(filepath.Join(dir, factsFile))
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return f, err
	}
	if err := f.Chain.Validate(); err != nil {
		return f, err
	}
	return f, u.check(filepath.Join(dir, treeDir))
}

// use has all layers of an image unpacked and keeps them until the caller calls
// leave. The folders are the topmost first, relative to the pool's.
func (l *layers) use(ctx context.Context, name string, d description) (lower []string, leave func(), err error) {
	held := make([]*layer, 0, len(d.chain))
	leave = sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, y := range held {
			y.uses--
			y.last = l.clock.Mono()
		}
	})
	for i := range d.chain {
		y, err := l.one(ctx, name, d, i, lower)
		if err != nil {
			leave()
			return nil, nil, err
		}
		held = append(held, y)
		lower = append([]string{filepath.Join(layersDir, y.name, treeDir)}, lower...)
	}
	return lower, leave, nil
}

// one has one layer unpacked, and counts the use.
func (l *layers) one(ctx context.Context, name string, d description, i int, lower []string) (*layer, error) {
	chain := d.chain[i]
	for {
		l.mu.Lock()
		if y := l.known[chain]; y != nil {
			y.uses++
			y.last = l.clock.Mono()
			l.mu.Unlock()
			return y, nil
		}
		f := l.flights[chain]
		if f == nil {
			f = &flight{done: make(chan struct{})}
			l.flights[chain] = f
			// What is below is in use by us for as long as this takes, even if
			// we leave.
			if i > 0 {
				l.known[d.chain[i-1]].uses++
			}
			go l.fly(f, name, d, i, lower)
		}
		l.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if f.err != nil {
			return nil, f.err
		}
	}
}

// fly unpacks a layer for all who wait for it.
func (l *layers) fly(f *flight, name string, d description, i int, lower []string) {
	y, err := l.unpack(name, d, i, lower)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		y.last = l.clock.Mono()
		l.known[d.chain[i]] = y
		l.total += y.facts.size()
	} else {
		f.err = fmt.Errorf("unpack layer %d of %d of %s: %w", i+1, len(d.chain), name, err)
	}
	if i > 0 {
		below := l.known[d.chain[i-1]]
		below.uses--
		if err == nil {
			below.above++
		}
	}
	delete(l.flights, d.chain[i])
	close(f.done)
}

// unpack makes one layer in a folder that becomes it when it is whole.
func (l *layers) unpack(name string, d description, i int, lower []string) (_ *layer, err error) {
	l.mu.Lock()
	l.n++
	at := strconv.FormatInt(int64(l.n), 36)
	l.mu.Unlock()
	dir := filepath.Join(layersDir, at)
	defer func() {
		if err != nil {
			err = errors.Join(err, l.users.remove(dir))
		}
	}()
	for _, sub := range []string{treeDir, "w"} {
		if err := l.users.makeDir(filepath.Join(l.dir, dir, sub)); err != nil {
			return nil, err
		}
	}
	if len(lower) == 0 {
		lower = []string{emptyDir}
	}
	if err := l.users.alike(filepath.Join(l.dir, lower[0]), filepath.Join(l.dir, dir, treeDir)); err != nil {
		return nil, err
	}
	k, err := l.users.keeper()
	if err != nil {
		return nil, err
	}
	defer k.Close()
	root := isolate.Root{At: mountDir, Bare: true,
		Layers: []isolate.Layer{{Path: "/", Lower: lower, Upper: filepath.Join(dir, treeDir), Work: filepath.Join(dir, "w")}}}
	if err := k.Enter(root); err != nil {
		return nil, err
	}
	applied, err := l.apply(k, name, d, i)
	if err != nil {
		return nil, err
	}
	k.Close()
	y := &layer{name: at, facts: facts{Chain: d.chain[i], Bytes: applied.Bytes, Files: applied.Entries}}
	if i > 0 {
		y.facts.Parent = d.chain[i-1]
	}
	return y, l.seal(dir, y.facts)
}

// apply brings the bytes of a layer to the keeper, and compares both of their
// digests: that of what came, and that of what was in it.
func (l *layers) apply(k *keep.Keeper, name string, d description, i int) (files.Applied, error) {
	from, err := d.from.Blob(l.ctx, d.layers[i])
	if err != nil {
		return files.Applied{}, err
	}
	defer from.Close()
	came, inside := d.layers[i].Digest.Verifier(), d.diffs[i].Verifier()
	counted := &progress{r: from, log: l.log.With("image", name, "layer", i+1, "layers", len(d.chain), "bytes", d.layers[i].Size), clock: l.clock, next: l.clock.Mono() + tellEvery}
	raw := io.TeeReader(io.LimitReader(counted, d.layers[i].Size+1), came)
	plain, err := decompress(bufio.NewReaderSize(raw, 256<<10))
	if err != nil {
		return files.Applied{}, err
	}
	defer plain.Close()
	applied, err := k.Layer(io.TeeReader(plain, inside), l.limits, l.users.one)
	if err != nil {
		return applied, err
	}
	if _, err := io.Copy(io.Discard, raw); err != nil { // what is after the compressed part
		return applied, err
	}
	if !came.Verified() {
		return applied, fmt.Errorf("what came as %s does not have that digest", d.layers[i].Digest)
	}
	if !inside.Verified() {
		return applied, fmt.Errorf("%w: what is in %s is not what its config says (%s)", ErrNoImage, d.layers[i].Digest, d.diffs[i])
	}
	if applied.Skipped > 0 {
		l.log.Info("left out devices that an image brings", "image", name, "layer", d.layers[i].Digest, "entries", applied.Skipped)
	}
	return applied, nil
}

// seal makes a folder a layer: after a loss of power it is whole or none.
func (l *layers) seal(dir string, f facts) error {
	if err := l.users.remove(filepath.Join(dir, "w")); err != nil {
		return err
	}
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	d, err := os.Open(filepath.Join(l.dir, dir))
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("flush the layer to disk: %w", err)
	}
	draft := filepath.Join(l.dir, dir, "draft")
	if err := os.WriteFile(draft, b, 0o600); err != nil {
		return err
	}
	return os.Rename(draft, filepath.Join(l.dir, dir, factsFile))
}

// collect removes what was not used for the longest until the rest is within
// bounds. What is in use, or has something standing on it, stays.
func (l *layers) collect() {
	for {
		l.mu.Lock()
		chain, y := l.oldest()
		if y != nil {
			l.forget(chain, y)
		}
		l.mu.Unlock()
		if y == nil {
			return
		}
		if err := l.drop(y); err != nil {
			l.log.Error("remove an unpacked layer", "err", err)
			return
		}
	}
}

// oldest is the layer that goes next; nil for none. The lock is held.
func (l *layers) oldest() (chain digest.Digest, y *layer) {
	if l.total <= l.max {
		return "", nil
	}
	var free []digest.Digest
	for c, y := range l.known {
		if y.uses == 0 && y.above == 0 && l.flights[c] == nil {
			free = append(free, c)
		}
	}
	if len(free) == 0 {
		return "", nil
	}
	chain = slices.MinFunc(free, func(a, b digest.Digest) int {
		return cmp.Or(cmp.Compare(l.known[a].last, l.known[b].last), strings.Compare(string(a), string(b)))
	})
	return chain, l.known[chain]
}

// forget has nobody use a layer any more; the lock is held.
func (l *layers) forget(chain digest.Digest, y *layer) {
	delete(l.known, chain)
	l.total -= y.facts.size()
	if below := l.known[y.facts.Parent]; below != nil && below.above > 0 {
		below.above--
	}
}

// drop removes the folder of a layer that was forgotten.
func (l *layers) drop(y *layer) error {
	dir := filepath.Join(layersDir, y.name)
	// The facts first: half of a layer is none.
	if err := os.Remove(filepath.Join(l.dir, dir, factsFile)); err != nil {
		return err
	}
	return l.users.remove(dir)
}

// progress tells how a download goes, now and then.
type progress struct {
	r     io.Reader
	log   *slog.Logger
	clock clock.Clock
	n     int64
	next  time.Duration
}

func (p *progress) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.n += int64(n)
	if now := p.clock.Mono(); now >= p.next {
		p.next = now + tellEvery
		p.log.Info("an image is being unpacked", "done", p.n)
	}
	return n, err
}
