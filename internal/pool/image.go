package pool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"cairn.dev/cairn/internal/image"
)

const (
	maxConfig   = 8 << 20
	maxIndexes  = 3   // that lead to each other
	maxLayers   = 400 // the kernel stacks 500
	maxDescribe = 1000
)

// description is what has to be known of an image to run it.
type description struct {
	digest image.Digest // of the manifest for this platform
	from   Repository
	config image.Descriptor
	layers []image.Descriptor
	// chain names what the layers make, each with those below it (image-spec,
	// config.md, "Layer ChainID").
	chain []digest.Digest
	diffs []digest.Digest // the layers, uncompressed

	entrypoint, command, env []string
	dir, user                string
}

// config is what is read of an image's config (image-spec, config.md).
type config struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant"`
	Config       struct {
		User       string   `json:"User"`
		Env        []string `json:"Env"`
		Entrypoint []string `json:"Entrypoint"`
		Cmd        []string `json:"Cmd"`
		WorkingDir string   `json:"WorkingDir"`
	} `json:"config"`
	RootFS struct {
		DiffIDs []digest.Digest `json:"diff_ids"`
	} `json:"rootfs"`
}

// library remembers what images are. That never changes, so that it only has to
// stay small: when it is full it begins anew.
type library struct {
	mu    sync.Mutex
	known map[image.Digest]description
}

// describe says what an image is for this machine.
func (l *library) describe(ctx context.Context, f Found) (description, error) {
	l.mu.Lock()
	d, ok := l.known[f.Digest]
	l.mu.Unlock()
	if ok {
		d.from = f.From
		return d, nil
	}
	d, err := describe(ctx, f, image.Platform{OS: "linux", Architecture: runtime.GOARCH})
	if err != nil {
		return description{}, fmt.Errorf("image %s@%s: %w", f.Name, f.Digest, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known == nil || len(l.known) >= maxDescribe {
		l.known = map[image.Digest]description{}
	}
	l.known[f.Digest] = d
	return d, nil
}

func describe(ctx context.Context, f Found, p image.Platform) (description, error) {
	d := description{digest: f.Digest, from: f.From}
	m := f.Manifest
	for depth := 0; m.Index; depth++ {
		if depth == maxIndexes {
			return d, fmt.Errorf("%w: more than %d indexes lead to each other", ErrNoImage, maxIndexes)
		}
		child, err := choose(m.Children, p)
		if err != nil {
			return d, err
		}
		d.digest = child.Digest
		if m, err = f.From.Manifest(ctx, child.Digest); err != nil {
			return d, fmt.Errorf("its part for %s: %w", p, err)
		}
	}
	if m.Config == nil || len(m.Layers) == 0 || len(m.Layers) > maxLayers {
		return d, fmt.Errorf("%w: it has %d layers, and is nothing that runs", ErrNoImage, len(m.Layers))
	}
	d.config, d.layers = *m.Config, m.Layers
	for _, l := range m.Layers {
		if len(l.URLs) > 0 {
			return d, fmt.Errorf("%w: its layer %s lies elsewhere, and such are not fetched", ErrNoImage, l.Digest)
		}
	}
	b, err := read(ctx, f.From, *m.Config)
	if err != nil {
		return d, fmt.Errorf("its config: %w", err)
	}
	return d, d.configure(b, p)
}

// configure takes in an image's config.
func (d *description) configure(b []byte, p image.Platform) error {
	var c config
	if err := json.Unmarshal(b, &c); err != nil {
		return fmt.Errorf("%w: its config: %w", ErrNoImage, err)
	}
	if c.OS != "" && c.OS != p.OS || c.Architecture != "" && c.Architecture != p.Architecture {
		return fmt.Errorf("%w: it is for %.40s/%.40s, and this machine runs %s", ErrNoImage, c.OS, c.Architecture, p)
	}
	if len(c.RootFS.DiffIDs) != len(d.layers) {
		return fmt.Errorf("%w: its config is of %d layers, and it has %d: it is nothing that runs", ErrNoImage, len(c.RootFS.DiffIDs), len(d.layers))
	}
	d.diffs = c.RootFS.DiffIDs
	for i, diff := range d.diffs {
		if err := diff.Validate(); err != nil {
			return fmt.Errorf("%w: its config: layer %.80q: %w", ErrNoImage, diff, err)
		}
		if i == 0 {
			d.chain = append(d.chain, diff)
			continue
		}
		d.chain = append(d.chain, digest.FromString(string(d.chain[i-1])+" "+string(diff)))
	}
	for _, e := range c.Config.Env {
		if strings.ContainsRune(e, 0) {
			return fmt.Errorf("%w: its config: a variable with a NUL", ErrNoImage)
		}
	}
	d.entrypoint, d.command, d.env = c.Config.Entrypoint, c.Config.Cmd, c.Config.Env
	d.dir, d.user = c.Config.WorkingDir, c.Config.User
	if d.dir == "" {
		d.dir = "/"
	}
	return nil
}

// choose finds the image for a platform in an index: the first that fits, and
// one without a variant before others.
func choose(children []image.Descriptor, p image.Platform) (image.Descriptor, error) {
	var found *image.Descriptor
	var others []string
	for i, c := range children {
		at := c.Platform
		switch {
		case at == nil || at.OS == "unknown": // attestations
		case at.OS != p.OS || at.Architecture != p.Architecture:
			others = append(others, at.String())
		case found == nil || at.Variant == "" && found.Platform.Variant != "":
			found = &children[i]
		}
	}
	if found == nil {
		return image.Descriptor{}, fmt.Errorf("%w: it is for %.400s, and this machine runs %s", ErrNoImage, strings.Join(others, ", "), p)
	}
	return *found, nil
}

// read reads a blob whole, and compares its digest.
func read(ctx context.Context, from Repository, d image.Descriptor) ([]byte, error) {
	body, err := from.Blob(ctx, d)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	b, err := io.ReadAll(io.LimitReader(body, maxConfig+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", d.Digest, err)
	}
	if len(b) > maxConfig {
		return nil, fmt.Errorf("%w: %s has more than %d bytes", ErrNoImage, d.Digest, maxConfig)
	}
	if d.Digest.Algorithm().FromBytes(b) != d.Digest {
		return nil, errors.New("what came as " + string(d.Digest) + " does not have that digest")
	}
	return b, nil
}
