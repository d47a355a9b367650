package pool

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/worker/files"
)

// made is an image of a test's own, on top of busybox's layer.
type made struct {
	w      *world
	layers []image.Descriptor
	diffs  []digest.Digest
	config map[string]any
	arch   string
}

func (w *world) image() *made {
	w.t.Helper()
	base := w.busybox()
	m := &made{w: w, config: map[string]any{}, arch: "amd64"}
	layers, err := base.Image.Layers()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, l := range layers {
		r, err := l.Uncompressed()
		if err != nil {
			w.t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			w.t.Fatal(err)
		}
		m.add(b, b)
	}
	return m
}

// add appends a layer: what is stored, and what is in it.
func (m *made) add(stored, plain []byte) *made {
	d := sum(stored)
	m.w.shelf.mu.Lock()
	m.w.shelf.blobs[d] = stored
	m.w.shelf.mu.Unlock()
	m.layers = append(m.layers, image.Descriptor{MediaType: "application/vnd.oci.image.layer.v1.tar+gzip", Digest: d, Size: int64(len(stored))})
	m.diffs = append(m.diffs, sum(plain))
	return m
}

// layer appends one of entries.
func (m *made) layer(entries ...string) *made {
	b := entriesOf(m.w.t, entries...)
	return m.add(b, b)
}

// entriesOf is a tar of entries, each "kind name [text or target]".
func entriesOf(t testing.TB, entries ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		f := strings.SplitN(e+"  ", " ", 3)
		text := strings.TrimSpace(f[2])
		h := &tar.Header{Name: f[1], Mode: 0o755, Typeflag: map[string]byte{"dir": tar.TypeDir, "own": tar.TypeDir, "file": tar.TypeReg, "link": tar.TypeSymlink, "hard": tar.TypeLink, "char": tar.TypeChar}[f[0]]}
		if f[0] == "own" {
			h.Mode = 0o700
		}
		if f[0] == "file" {
			h.Size = int64(len(text))
		} else {
			h.Linkname = text
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if f[0] == "file" {
			if _, err := w.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// shelve puts the image on the shelf.
func (m *made) shelve(name string) {
	m.w.t.Helper()
	put := func(v any) image.Descriptor {
		b, err := json.Marshal(v)
		if err != nil {
			m.w.t.Fatal(err)
		}
		m.w.shelf.mu.Lock()
		defer m.w.shelf.mu.Unlock()
		m.w.shelf.blobs[sum(b)] = b
		return image.Descriptor{MediaType: "application/vnd.oci.image.config.v1+json", Digest: sum(b), Size: int64(len(b))}
	}
	config := put(map[string]any{"os": "linux", "architecture": m.arch, "config": m.config, "rootfs": map[string]any{"type": "layers", "diff_ids": m.diffs}})
	d := put(map[string]any{"schemaVersion": 2, "mediaType": image.MediaTypeManifest, "config": config, "layers": m.layers})
	m.w.shelf.mu.Lock()
	defer m.w.shelf.mu.Unlock()
	m.w.shelf.kinds[d.Digest], m.w.shelf.byName[name] = image.MediaTypeManifest, d.Digest
}

func (w *world) in(name, script string) ended {
	w.t.Helper()
	t := sh(script)
	t.Image = name
	return w.do(w.t.Context(), t)
}

func compressed(t testing.TB, b []byte, with func(io.Writer) io.WriteCloser) []byte {
	t.Helper()
	var out bytes.Buffer
	w := with(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestImages(t *testing.T) {
	w := newWorld(t, nil)
	w.image().layer("dir a", "own o", "file a/x 1", "file a/y 2", "dir t", "file t/f 1").layer("file a/.wh.x", "file a/z 3", "file t/.wh..wh..opq", "file t/g 2", "hard h a/y", "file o/f 1").shelve("layers")
	if e := w.in("layers", "ls a t; cat h; stat -c %a /o /tmp /a"); e.result() != "a:\ny\nz\n\nt:\ng\n2700\n1777\n755" {
		t.Errorf("layers make %q (%+v %s)", e.result(), e.Outcome, e.err)
	}
	plain := entriesOf(t, "file new 1")
	gz := compressed(t, plain, func(o io.Writer) io.WriteCloser { return gzip.NewWriter(o) })
	zs := compressed(t, plain, func(o io.Writer) io.WriteCloser {
		z, err := zstd.NewWriter(o)
		if err != nil {
			t.Fatal(err)
		}
		return z
	})
	for name, stored := range map[string][]byte{"gzip": gz, "zstd": zs, "plain": plain} {
		w2 := newWorld(t, nil)
		w2.image().add(stored, plain).shelve("image")
		if e := w2.in("image", "cat /new"); e.result() != "1" {
			t.Errorf("%s: %q (%+v)", name, e.result(), e.Outcome)
		}
		w2.Close()
	}
	configured := w.image()
	configured.config = map[string]any{"Entrypoint": []string{"/bin/sh", "-c"}, "Cmd": []string{"echo $A $PWD $0; id -u", "zero"}, "Env": []string{"A=b", "PATH=/bin"}, "WorkingDir": "/some/where", "User": "nobody"}
	configured.shelve("configured")
	if e := w.do(t.Context(), task.Task{Image: "configured", Outputs: sh("").Outputs}); e.result() != "b /some/where zero\n65534" {
		t.Errorf("as configured: %q (%+v %s)", e.result(), e.Outcome, e.err)
	}
	if e := w.do(t.Context(), task.Task{Image: "configured", Args: []string{"echo args"}, Outputs: sh("").Outputs}); e.result() != "args" {
		t.Errorf("with arguments: %q", e.result())
	}
	if e := w.do(t.Context(), task.Task{Image: "configured", Command: []string{"/bin/echo"}, Outputs: sh("").Outputs}); e.result() != "" || e.Phase != task.Succeeded {
		t.Errorf("with a command: %q", e.result())
	}
}

// What an image brings reaches neither this machine nor other images.
func TestBadImages(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("untouched"), 0o666); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(c *Config, _ *Deps) { c.MaxImage = files.Limits{Bytes: 8 << 20, Entries: 1000} })
	bomb := compressed(t, make([]byte, 100<<20), func(o io.Writer) io.WriteCloser { return gzip.NewWriter(o) })
	good := entriesOf(t, "file x "+strings.Repeat("1", 1000))
	for _, c := range []struct {
		name, message  string
		infrastructure bool
		image          func(m *made)
	}{
		{"dots", "outside", false, func(m *made) { m.layer("file ../../../../../../../../" + outside + " evil") }},
		{"too large", "too large", false, func(m *made) { m.layer("file f " + strings.Repeat("x", 9<<20)) }},
		{"a bomb", "", false, func(m *made) { m.add(bomb, make([]byte, 100<<20)) }},
		{"no tar", "", false, func(m *made) { m.add([]byte("this is no tar at all"), []byte("this is no tar at all")) }},
		{"cut short", "", false, func(m *made) { m.add(good[:700], good[:700]) }},
		{"not what the config says", "not what its config says", false, func(m *made) { m.add(good, []byte("other")) }},
		{"other architecture", "arm64", false, func(m *made) { m.arch = "arm64" }},
		{"fewer layers than it says", "it has 1", false, func(m *made) { m.diffs = append(m.diffs, sum(nil)) }},
		{"a layer that is not there", "no blob", false, func(m *made) {
			m.layers = append(m.layers, image.Descriptor{Digest: sum([]byte("x")), Size: 1})
			m.diffs = append(m.diffs, sum(nil))
		}},
		{"owners out of range", "70000", false, func(m *made) {
			var b bytes.Buffer
			tw := tar.NewWriter(&b)
			_ = tw.WriteHeader(&tar.Header{Name: "f", Typeflag: tar.TypeReg, Uid: 70000})
			_ = tw.Close()
			m.add(b.Bytes(), b.Bytes())
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := w.image()
			c.image(m)
			m.shelve(c.name)
			e := w.in(c.name, "true")
			if e.Phase != task.Errored || !has(e.Message, c.message) {
				t.Errorf("%+v", e.Outcome)
			}
		})
	}
	// A link to what is not there inside leads nowhere.
	w.image().layer("link out "+filepath.Dir(outside), "file out/outside evil").shelve("links")
	if e := w.in("links", "true"); e.Phase != task.Errored || !has(e.Message, "make the folder") {
		t.Errorf("%+v", e.Outcome)
	}
	w.image().layer("char dev/sda", "char d", "link proc2 /proc/1/root").shelve("devices")
	if e := w.in("devices", "ls /d /dev/sda 2>/dev/null; ls /proc2"+outside+" 2>/dev/null; echo end"); e.result() != "end" {
		t.Errorf("%+v %q", e.Outcome, e.result())
	}
	// What an image puts where the kernel's things go leads nowhere either.
	before, err := os.ReadFile("/etc/hosts")
	if err != nil {
		t.Fatal(err)
	}
	w.image().layer("file .wh.dev", "link dev /etc", "file .wh.proc", "link proc ../../../../proc").shelve("dev is a link")
	w.in("dev is a link", "echo evil > /etc/hosts; echo evil > /dev/hosts")
	if after, err := os.ReadFile("/etc/hosts"); err != nil || !bytes.Equal(before, after) {
		t.Errorf("it reached this machine's /etc: %v", err)
	}
	w.image().layer("file etc/resolv.conf image", "link etc/hosts "+outside).shelve("hosts")
	if e := w.in("hosts", "grep -c localhost /etc/hosts | xargs test 0 -lt && echo ours"); e.result() != "ours" {
		t.Errorf("%+v %q", e.Outcome, e.err)
	}
	if b, err := os.ReadFile(outside); err != nil || string(b) != "untouched" {
		t.Errorf("it reached out: %q, %v", b, err)
	}
	if left, err := filepath.Glob(filepath.Join(w.dir, layersDir, "*")); err != nil {
		t.Error(err)
	} else {
		for _, dir := range left {
			if _, err := os.Stat(filepath.Join(dir, factsFile)); err != nil && filepath.Base(dir) != filepath.Base(emptyDir) {
				t.Errorf("half of a layer is left: %v", err)
			}
		}
	}
}

// A thousand tasks of one image are one download.
func TestUnpackedOnce(t *testing.T) {
	w := newWorld(t, nil)
	w.image().layer("file one 1").shelve("one")
	w.image().layer("file two 2").shelve("two")
	var wait sync.WaitGroup
	for n := range 16 {
		wait.Go(func() {
			name := []string{"one", "two"}[n%2]
			if e := w.in(name, "cat /"+name); e.Phase != task.Succeeded {
				t.Errorf("%+v", e.Outcome)
			}
		})
	}
	wait.Wait()
	w.Close()
	w.open(nil)
	if e := w.in("one", "cat /one"); e.result() != "1" {
		t.Errorf("after a restart: %+v", e.Outcome)
	}
	for d, n := range w.shelf.opened {
		if n > 1 && len(w.shelf.blobs[d]) > 4096 {
			t.Errorf("%s was fetched %d times", d, n)
		}
	}
}

// What was not used for the longest goes, and nothing that is in use does.
func TestCollect(t *testing.T) {
	fake := clock.NewFake(time.Unix(1e9, 0))
	w := newWorld(t, func(c *Config, d *Deps) { d.Clock, c.MaxBytes = fake, 1 })
	w.image().layer("file one 1").shelve("one")
	w.image().layer("file two 2").shelve("two")
	dirs := func() (n int) {
		all, err := filepath.Glob(filepath.Join(w.dir, layersDir, "*", factsFile))
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	for _, name := range []string{"one", "two"} {
		if e := w.in(name, "cat /"+name); e.Phase != task.Succeeded {
			t.Fatalf("%+v", e.Outcome)
		}
	}
	w.layers.collect()
	if n := dirs(); n != 3 {
		t.Errorf("%d layers are left while roots of both images wait; want 3", n)
	}
	w.roots.work.Wait()
	fake.Advance(warmFor)
	w.roots.cool()
	w.layers.collect()
	if n := dirs(); n != 0 {
		t.Errorf("%d layers are left that nobody uses", n)
	}
	if e := w.in("two", "cat /two"); e.result() != "2" {
		t.Errorf("unpacked anew: %+v", e.Outcome)
	}
}

// What a process that was killed left is no layer, and no task's.
func TestLeftovers(t *testing.T) {
	w := newWorld(t, nil)
	w.image().layer("file one 1").shelve("one")
	if e := w.in("one", "true"); e.Phase != task.Succeeded {
		t.Fatalf("%+v", e.Outcome)
	}
	w.Close()
	for _, dir := range []string{"l/zz/fs", "l/zy/fs", "t/99/u"} {
		if err := os.MkdirAll(filepath.Join(w.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(w.dir, "l/zy", factsFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	// The layer of busybox is lost, and what stood on it goes.
	for _, y := range w.layers.known {
		if y.facts.Parent == "" {
			if err := os.Remove(filepath.Join(w.dir, layersDir, y.name, factsFile)); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.open(nil)
	if len(w.layers.known) != 0 {
		t.Errorf("%d layers were taken in", len(w.layers.known))
	}
	if left, err := filepath.Glob(filepath.Join(w.dir, "[lt]", "*")); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
	if e := w.in("one", "cat /one"); e.result() != "1" {
		t.Errorf("%+v", e.Outcome)
	}
}

func TestChoose(t *testing.T) {
	at := func(os, arch, variant string) image.Descriptor {
		return image.Descriptor{Digest: digest.FromString(os + arch + variant), Platform: &image.Platform{OS: os, Architecture: arch, Variant: variant}}
	}
	want := image.Platform{OS: "linux", Architecture: "amd64"}
	all := []image.Descriptor{{Digest: "none"}, at("unknown", "unknown", ""), at("linux", "arm64", "v8"), at("linux", "amd64", "v3"), at("linux", "amd64", "v2"), at("windows", "amd64", "")}
	if d, err := choose(all, want); err != nil || d.Platform.Variant != "v3" {
		t.Errorf("the first of variants: %+v, %v", d, err)
	}
	if d, err := choose(append(all, at("linux", "amd64", "")), want); err != nil || d.Platform.Variant != "" {
		t.Errorf("the one without: %+v, %v", d, err)
	}
	if _, err := choose(all[:3], want); !errors.Is(err, ErrNoImage) || !has(err.Error(), "linux/arm64") {
		t.Errorf("none: %v", err)
	}
}

func TestBudget(t *testing.T) {
	b := newBudget(amount{cpu: 2000, memory: 100})
	if b.refuse(amount{cpu: 2000, memory: 100}) != nil || b.refuse(amount{cpu: 2001}) == nil || b.refuse(amount{memory: 101}) == nil || b.refuse(amount{cpu: -1}) == nil {
		t.Error("what fits is refused, or what does not is not")
	}
	if err := b.take(t.Context(), amount{cpu: 1500}); err != nil {
		t.Fatal(err)
	}
	got := make(chan string)
	waits := func(n int) {
		for {
			b.mu.Lock()
			is := len(b.waiting)
			b.mu.Unlock()
			if is == n {
				return
			}
		}
	}
	for i, want := range []int64{1000, 100} { // the second would fit, and must not pass
		go func() {
			if err := b.take(t.Context(), amount{cpu: want}); err != nil {
				t.Error(err)
			}
			got <- fmt.Sprint(want)
		}()
		waits(i + 1)
	}
	b.put(amount{cpu: 1500})
	first, second := <-got, <-got
	if first+second != "1000100" && first+second != "1001000" {
		t.Errorf("given %s and %s", first, second)
	}
	b.put(amount{cpu: 1100})
	if b.left != b.all {
		t.Errorf("left %+v of %+v", b.left, b.all)
	}
}
