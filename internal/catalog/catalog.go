// Package catalog is what is known of the images in registries: which tags a
// repository has, since when, and what they are.
//
// It owns the questions to registries (ours without a request, others through
// upstream), their cache, when each digest was first seen (a time that no
// publisher can forge), the signatures on images, and the words in which
// registries tell of pushes. It promises that a list of tags is whole or an
// error, that what a registry says of a digest is believed only if it has that
// digest, that a registry that wants to be left alone is, and that its cost
// follows what changed and not what there is. It does not choose.
package catalog

import (
	"context"
	"errors"
	"time"

	"cairn.dev/cairn/internal/image"
)

// ErrNotFound means that a registry does not have what was asked for, or does
// not show it to us: registries do not tell these apart to strangers.
var ErrNotFound = errors.New("not found")

// A Tag of a repository.
type Tag struct {
	Name string
	// Digest, where the listing tells it without another request; else "".
	Digest image.Digest
	// Since is when it was pushed to our registry, or first seen by us in
	// another: not before our first look at the repository, and anew if it was
	// gone meanwhile. A tag that code names already has no need of it.
	Since time.Time
	// Pushed: Since is the time of a push, told by the registry itself, and not
	// of a first look.
	Pushed bool
}

// An Image is what is known of one digest.
type Image struct {
	Digest image.Digest `json:"digest"`
	// Platforms that its index has, or its own, sorted. None of what does not
	// run, such as a chart.
	Platforms []image.Platform `json:"platforms,omitempty"`
	// Size of everything a node fetches, in bytes: of linux/amd64 if there is
	// that, else of the first platform.
	Size int64 `json:"size"`
	// Created is what the publisher says; anybody can forge it.
	Created time.Time `json:"created,omitzero"`
	// Since is when this digest was pushed to our registry, or first asked for
	// in another, by whatever tag. A tag that is moved to a new digest so begins
	// anew, and who waits for a cooldown asks when the tag appears and not when
	// it is due.
	Since time.Time `json:"-"`
	// Source and Revision are the image's own labels or annotations
	// org.opencontainers.image.source and .revision; "" when there are none.
	// They are the publisher's words, on one line: quote them.
	Source   string `json:"source,omitempty"`
	Revision string `json:"revision,omitempty"`
	// Version is org.opencontainers.image.version.
	Version string `json:"version,omitempty"`
	// Signed says that a cosign signature made by one of the configured keys
	// was verified; Signer names the key.
	Signed bool   `json:"-"`
	Signer string `json:"-"`
}

// Catalog answers about repositories, named as code names them, with the host
// (docker.io/library/nginx for nginx). It is safe for concurrent use. What a
// registry does not have is [ErrNotFound]; that it does not answer, or wants to
// be left alone, is an [*upstream.Error].
type Catalog interface {
	// Tags returns all tags, in no order; never a part of them. The slice is
	// shared: do not change it.
	Tags(ctx context.Context, repository string) ([]Tag, error)
	// Lookup returns the digest that a tag names now.
	Lookup(ctx context.Context, repository, tag string) (image.Digest, error)
	// Image describes a digest.
	Image(ctx context.Context, repository string, digest image.Digest) (Image, error)
}
