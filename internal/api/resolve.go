package api

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"cairn.dev/cairn/internal/access"
	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
)

// maxReferences in one request for their digests.
const maxReferences = 1000

// resolve is for who reports what templates name. Who may neither report for a
// repository nor read it learns nothing about it.
func (a *API) resolve(ctx context.Context, in *input[wire.ResolveRequest]) (*output[wire.Resolved], error) {
	c := callerOf(ctx)
	if c == nil || len(c.Scope(access.Report)) == 0 && len(c.Scope(access.Pull)) == 0 {
		return nil, a.may(ctx, access.Report, "")
	}
	if n := len(in.Body.References); n > maxReferences {
		return nil, refuse(http.StatusBadRequest, "ask in several requests", "resolve %d references: the limit is %d", n, maxReferences)
	}
	host := c.r.Host
	out := wire.Resolved{Digests: map[string][]image.Digest{}}
	for _, ref := range in.Body.References {
		names, tag, digest := places(ref, host, hostOf(a.ExternalURL))
		for _, name := range names {
			if !c.Can(access.Report, name) && !c.Can(access.Pull, name) {
				continue
			}
			what := tag
			if digest != "" {
				what = string(digest)
			}
			i, err := a.Content.Peek(ctx, name, what)
			switch {
			case errors.Is(err, content.ErrManifestUnknown), errors.Is(err, content.ErrRepositoryUnknown):
				continue
			case err != nil:
				return nil, a.problem(err, "resolve %.200q", ref)
			}
			if !slices.Contains(out.Digests[ref], i.Digest) {
				out.Digests[ref] = append(out.Digests[ref], i.Digest)
			}
		}
	}
	return &output[wire.Resolved]{out}, nil
}

// places are the repositories of this server from which a node may get what a
// workload calls reference, and the tag or digest there. hosts are the server's
// own names: after one of them stands the repository. Any other host may be
// mirrored here under its name, or be sent here by the settings of the node's
// runtime, which leaves the name away. Docker's short names are of docker.io.
func places(reference string, hosts ...string) (names []string, tag string, digest image.Digest) {
	name, dig, fixed := strings.Cut(reference, "@")
	if fixed {
		d, err := image.ParseDigest(dig)
		if err != nil {
			return nil, "", ""
		}
		digest = d
	}
	tag = "latest"
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name, tag = name[:i], name[i+1:]
	}
	if image.CheckTag(tag) != nil {
		return nil, "", ""
	}
	add := func(n string) {
		if image.CheckRepository(n) == nil && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	host, path, ok := strings.Cut(name, "/")
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" {
		host, path = "docker.io", name
	}
	if slices.Contains(hosts, host) {
		add(path)
		return names, tag, digest
	}
	if host == "index.docker.io" {
		host = "docker.io"
	}
	if h, _, err := net.SplitHostPort(host); err == nil {
		add(h + "/" + path)
	}
	full := path
	if host == "docker.io" && !strings.Contains(path, "/") {
		full = "library/" + path
	}
	add(host + "/" + full)
	add(full)
	add(path)
	return names, tag, digest
}

// hostOf is the host of the address clients reach the server at.
func hostOf(external string) string {
	u, err := url.Parse(external)
	if err != nil {
		return ""
	}
	return u.Host
}
