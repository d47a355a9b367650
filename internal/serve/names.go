package serve

import (
	"context"
	"errors"
	"slices"
	"strings"

	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/mirror"
	"cairn.dev/cairn/internal/pool/source"
	"cairn.dev/cairn/internal/work"
)

// hub is where names without a host come from, for those who have no registry
// of their own.
const hub = "docker.io"

// names say which images of ours a reference in a workflow may mean.
type names struct {
	hosts   []string          // ours
	copies  map[string]string // host -> what our copies of its images are called by
	content *content.Store
}

func (s *Server) names() names {
	n := names{hosts: s.hosts(), copies: map[string]string{}, content: s.content}
	for _, m := range s.cfg.Mirrors {
		n.copies[m.Host] = mirror.Prefix(m.Host)
	}
	return n
}

// Own are the references that may be meant, in our registry, the best one
// first. A name without a host is ours if we have it, else the hub's.
func (n names) Own(reference string) (out []image.Reference) {
	host, r, err := source.Parse(reference)
	if err != nil {
		return nil
	}
	add := func(prefix, repository string) {
		if prefix != "" {
			r.Repository = prefix + "/" + repository
			out = append(out, r)
		}
	}
	switch {
	case host == "":
		out = append(out, r)
		add(n.copies[hub], library(r.Repository))
	case slices.Contains(n.hosts, host):
		out = append(out, r)
	case host == hub:
		add(n.copies[hub], library(r.Repository))
	default:
		add(n.copies[host], r.Repository)
	}
	return out
}

// library is the whole name of an image of the hub.
func library(name string) string {
	if strings.Contains(name, "/") {
		return name
	}
	return "library/" + name
}

// Repositories is Own as work asks it.
func (n names) Repositories(reference string) (out []string) {
	for _, r := range n.Own(reference) {
		out = append(out, r.Repository)
	}
	return out
}

// Digest is what a reference names in a repository of ours.
func (n names) Digest(ctx context.Context, repository, reference string) (image.Digest, error) {
	for _, r := range n.Own(reference) {
		if r.Repository != repository {
			continue
		}
		what := r.Tag
		if r.Digest != "" {
			what = r.Digest.String()
		}
		im, err := n.content.Peek(ctx, repository, what)
		if errors.Is(err, content.ErrManifestUnknown) || errors.Is(err, content.ErrRepositoryUnknown) {
			return "", work.ErrNotFound
		}
		return im.Digest, err
	}
	return "", work.ErrNotFound
}
