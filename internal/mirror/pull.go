package mirror

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
)

// Pulled says what a [Mirror.Pull] brought.
type Pulled struct {
	Repository string       // here
	Tag        string       // if the reference had one
	Digest     image.Digest // what it names
	Images     int          // those of an index that are here now, else 1
	Bytes      int64        // in their blobs, those that were here already included
	// Warning: the upstream did not help; this is what was here.
	Warning string
}

// ParseReference reads a reference as people write it, host first:
// docker.io/library/busybox:1, registry.local:5000/app@sha256:….
func ParseReference(s string) (image.Reference, error) {
	host, rest, ok := strings.Cut(s, "/")
	if !ok {
		return image.Reference{}, &image.NameError{Kind: "reference", Value: s, Why: "it has no host: write docker.io/library/busybox:1"}
	}
	return image.ParseReference(Prefix(host) + "/" + rest)
}

// Pull brings an image here in whole, before anybody needs it. Of an index it
// brings the platforms (linux/amd64, linux/arm/v7) that are named, or all. told
// hears of bytes that are here and bytes in all, and may be nil.
func (m *Mirror) Pull(ctx context.Context, reference string, platforms []string, told func(done, total int64)) (Pulled, error) {
	ref, err := ParseReference(reference)
	if err != nil {
		return Pulled{}, err
	}
	name, err := m.Name("", ref.Repository)
	if err != nil {
		return Pulled{}, err
	}
	out := Pulled{Repository: name, Tag: ref.Tag}
	what := ref.Tag
	if ref.Digest != "" {
		what, out.Tag = string(ref.Digest), ""
	}
	if mirrored, _ := m.Mirrors(name); !mirrored {
		host, _, _ := strings.Cut(reference, "/")
		return out, &Error{Kind: UnknownHost, Host: host, Why: fmt.Sprintf("%.80s is not mirrored here: add it to the key mirrors of cairn.yaml", host)}
	}
	c, warning, err := m.Manifest(ctx, name, what, false)
	if err != nil {
		return out, err
	}
	out.Digest, out.Warning = c.Digest, warning
	if told == nil {
		told = func(int64, int64) {}
	}
	images, err := m.chosen(ctx, c, platforms)
	if err != nil {
		return out, err
	}
	out.Images = len(images)
	for _, i := range images {
		for _, b := range i.manifest.Blobs() {
			out.Bytes += b.Size
		}
	}
	var done int64
	told(done, out.Bytes)
	for _, i := range images {
		if i.waiting != nil {
			if err := m.complete(ctx, i.waiting); err != nil {
				return out, fmt.Errorf("fetch %s@%s: %w", name, i.digest, err)
			}
		}
		for _, b := range i.manifest.Blobs() {
			done += b.Size
		}
		told(done, out.Bytes)
	}
	// An index whose images were all here already waits for nobody.
	if w := m.pending.get(name, c.Digest); w != nil {
		m.settleIndex(ctx, w)
		if m.pending.get(name, c.Digest) != nil {
			return out, errors.New("the image is here and its tag could not be moved: see the log")
		}
	}
	return out, nil
}

// One image that a pull is about. waiting is nil when it is here.
type one struct {
	digest   image.Digest
	manifest *image.Manifest
	waiting  *waiting
}

// chosen lists the images of c that match the platforms, and makes the indexes
// on the way wait for them.
func (m *Mirror) chosen(ctx context.Context, c *content.Manifest, platforms []string) ([]one, error) {
	parsed, err := image.ParseManifest(c.MediaType, c.Body)
	if err != nil {
		return nil, err
	}
	if !parsed.Index {
		return []one{{c.Digest, parsed, m.pending.get(c.Repository, c.Digest)}}, nil
	}
	var out []one
	var has []string
	for _, d := range parsed.Children {
		if d.Platform != nil {
			has = append(has, d.Platform.String())
		}
		if !matches(platforms, d.Platform) {
			continue
		}
		if w := m.pending.get(c.Repository, c.Digest); w != nil {
			m.pending.mu.Lock()
			w.wanted[d.Digest] = true
			m.pending.mu.Unlock()
		}
		child, _, err := m.Manifest(ctx, c.Repository, string(d.Digest), false)
		if err != nil {
			return nil, err
		}
		some, err := m.chosen(ctx, child, nil)
		if err != nil {
			return nil, err
		}
		out = append(out, some...)
	}
	if len(out) == 0 && len(parsed.Children) > 0 {
		return nil, &Error{Kind: NotFound, Why: fmt.Sprintf("it has no image for %s: it has %s", strings.Join(platforms, ", "), strings.Join(has, ", "))}
	}
	return out, nil
}

func matches(platforms []string, p *image.Platform) bool {
	if len(platforms) == 0 {
		return true
	}
	for _, want := range platforms {
		if p != nil && (want == p.String() || want == p.OS+"/"+p.Architecture) {
			return true
		}
	}
	return false
}
