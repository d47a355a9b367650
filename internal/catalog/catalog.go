// Package catalog is what is known of the images in registries: which tags a
// repository has, since when, and what they are.
//
// It owns the questions to registries (ours without a request, others through
// upstream), their cache, and when each digest was first seen: a time that no
// publisher can forge. It promises that a list of tags is whole or an error,
// that what a registry says of a digest is believed only if it has that
// digest, that a registry that wants to be left alone is, and that its cost
// follows what changed and not what there is. It does not choose.
package catalog

import (
	"context"
	"time"

	"cairn.dev/cairn/internal/image"
)

// A Tag of a repository.
type Tag struct {
	Name string
	// Digest, where the listing tells it without another request; else "".
	Digest image.Digest
	// Since is when it was pushed to our registry, or first seen by us in
	// another. Zero: never seen before this listing.
	Since time.Time
	// Pushed: Since is the time of a push to our registry, and not of a first look.
	Pushed bool
}

// An Image is what is known of one digest.
type Image struct {
	Digest image.Digest
	// Platforms that its index has, or its own, sorted.
	Platforms []image.Platform
	// Size of everything a node of the first platform fetches, in bytes.
	Size int64
	// Created is what the publisher says; anybody can forge it.
	Created time.Time
	// Since: as of Tag, of this digest.
	Since time.Time
	// Source and Revision are the image's own labels or annotations
	// org.opencontainers.image.source and .revision; "" when there are none.
	Source, Revision string
	// Version is org.opencontainers.image.version.
	Version string
	// Signed says that a cosign signature made by one of the configured keys
	// was verified; Signer names the key.
	Signed bool
	Signer string
}

// Catalog answers about repositories, named as code names them, with the host
// (docker.io/library/nginx for nginx). It is safe for concurrent use.
type Catalog interface {
	// Tags returns all tags, in no order; never a part of them.
	Tags(ctx context.Context, repository string) ([]Tag, error)
	// Lookup returns the digest that a tag names now.
	Lookup(ctx context.Context, repository, tag string) (image.Digest, error)
	// Image describes a digest.
	Image(ctx context.Context, repository string, digest image.Digest) (Image, error)
}
