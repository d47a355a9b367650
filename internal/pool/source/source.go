// Package source finds the images that a pool runs: in our own registry, among
// what that mirrors, and in other registries.
//
// It owns which of these a reference means. A name with a host is of that
// registry, unless the host is one of ours or is mirrored; of one without, what
// is here comes before Docker Hub's. It promises that a digest that is here is
// never fetched. It keeps nothing but clients and, for a moment, what a tag
// named, and compares no digests: whoever reads blobs does.
package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/mirror"
	"cairn.dev/cairn/internal/pool"
	"cairn.dev/cairn/internal/upstream"
)

const dockerHub = "docker.io"

// Content is what is in our registry. A *content.Store is one.
type Content interface {
	LiveManifest(ctx context.Context, repository, reference string) (*content.Manifest, error)
	OpenBlob(ctx context.Context, repository string, d image.Digest) (blob.Reader, error)
}

// Mirror brings images of other registries to ours. A *mirror.Mirror is one.
type Mirror interface {
	Mirrors(repository string) (mirrored, writable bool)
	Manifest(ctx context.Context, repository, reference string, wanted bool) (m *content.Manifest, warning string, err error)
	Blob(ctx context.Context, repository string, d image.Digest, whole bool) (blob.Reader, error)
}

// Config of Images.
type Config struct {
	Content Content
	Mirror  Mirror // optional
	// Own are the hosts by which our registry is called.
	Own []string
	// Remote asks other registries; nil: none is asked.
	Remote *Remote
}

// Images is a [pool.Images]. It is safe for concurrent use.
type Images struct{ cfg Config }

// New returns images of what is configured. It contacts nobody.
func New(c Config) (*Images, error) {
	if c.Content == nil {
		return nil, errors.New("images need the content of a registry")
	}
	return &Images{cfg: c}, nil
}

// Find implements [pool.Images].
func (i *Images) Find(ctx context.Context, reference string) (pool.Found, error) {
	host, ref, err := Parse(reference)
	if err != nil {
		return pool.Found{}, fmt.Errorf("%w: %w", pool.ErrNoImage, err)
	}
	for _, name := range i.here(host, ref.Repository) {
		f, err := i.find(ctx, name, ref)
		if err == nil || !absent(err) {
			return f, err
		}
	}
	if host == "" {
		host = dockerHub
	}
	if i.cfg.Remote == nil || i.own(host) {
		return pool.Found{}, fmt.Errorf("%w: it is not here, and no other registry is asked", pool.ErrNoImage)
	}
	f, err := i.cfg.Remote.Find(ctx, host, hub(host, ref))
	if err != nil {
		return f, fmt.Errorf("it is not here, and %w", err)
	}
	return f, nil
}

// here are the names that a repository may have in our registry.
func (i *Images) here(host, repository string) []string {
	if i.own(host) {
		return []string{repository}
	}
	var names []string
	ref := image.Reference{Repository: repository}
	if host == "" {
		names, host = append(names, repository), dockerHub
		if library := hub(host, ref).Repository; library != repository {
			names = append(names, library)
		}
	}
	return append(names, mirror.Prefix(host)+"/"+hub(host, ref).Repository)
}

func (i *Images) own(host string) bool { return slices.Contains(i.cfg.Own, host) }

// hub is a reference as Docker Hub knows it: its own images lie in library/.
func hub(host string, r image.Reference) image.Reference {
	if host == dockerHub && !strings.Contains(r.Repository, "/") {
		r.Repository = "library/" + r.Repository
	}
	return r
}

// find looks into one repository of our registry.
func (i *Images) find(ctx context.Context, name string, ref image.Reference) (pool.Found, error) {
	from := repository{i, name}
	what := ref.Tag
	if ref.Digest != "" {
		what = string(ref.Digest)
	}
	m, err := from.manifest(ctx, what)
	if err != nil {
		return pool.Found{}, err
	}
	parsed, err := image.ParseManifest(m.MediaType, m.Body)
	if err != nil {
		return pool.Found{}, fmt.Errorf("%w: %w", pool.ErrNoImage, err)
	}
	return pool.Found{Name: name, Digest: m.Digest, Manifest: parsed, From: from}, nil
}

// repository is one of our registry's.
type repository struct {
	*Images
	name string
}

func (r repository) mirrored() bool {
	if r.cfg.Mirror == nil {
		return false
	}
	is, _ := r.cfg.Mirror.Mirrors(r.name)
	return is
}

func (r repository) manifest(ctx context.Context, reference string) (m *content.Manifest, err error) {
	if r.mirrored() {
		m, _, err = r.cfg.Mirror.Manifest(ctx, r.name, reference, true)
	} else {
		m, err = r.cfg.Content.LiveManifest(ctx, r.name, reference)
	}
	return m, err
}

// Manifest implements [pool.Repository].
func (r repository) Manifest(ctx context.Context, d image.Digest) (*image.Manifest, error) {
	m, err := r.manifest(ctx, string(d))
	if err != nil {
		return nil, named(err)
	}
	return image.ParseManifest(m.MediaType, m.Body)
}

// Blob implements [pool.Repository].
func (r repository) Blob(ctx context.Context, d image.Descriptor) (io.ReadCloser, error) {
	b, err := r.cfg.Content.OpenBlob(ctx, r.name, d.Digest)
	if err != nil && absent(err) && r.mirrored() {
		b, err = r.cfg.Mirror.Blob(ctx, r.name, d.Digest, false)
	}
	if err != nil {
		return nil, named(err)
	}
	return b, nil
}

// absent reports whether an error says that something is not there.
func absent(err error) bool {
	var e *upstream.Error
	if errors.As(err, &e) {
		return e.Kind == upstream.NotFound || e.Kind == upstream.UnknownHost || e.Kind == upstream.NotAllowed
	}
	return errors.Is(err, content.ErrRepositoryUnknown) || errors.Is(err, content.ErrManifestUnknown) || errors.Is(err, content.ErrBlobUnknown)
}

// named gives what is not there the name that a pool knows.
func named(err error) error {
	if absent(err) {
		return fmt.Errorf("%w: %w", pool.ErrNoImage, err)
	}
	return err
}

// Parse reads a reference as people write it: the host is its first part if
// that could be no part of a name (it has a dot, a port, or is localhost).
func Parse(s string) (host string, r image.Reference, err error) {
	if first, rest, ok := strings.Cut(s, "/"); ok && (strings.ContainsAny(first, ".:") || first == "localhost") {
		host, s = strings.ToLower(first), rest
		if strings.HasPrefix(host, ".") {
			return "", r, fmt.Errorf("%.80q is no name of a registry", first)
		}
	}
	r, err = image.ParseReference(s)
	if host == "index.docker.io" || host == "registry-1.docker.io" {
		host = dockerHub
	}
	return host, r, err
}
