package code

import (
	"fmt"
	"strings"

	"cairn.dev/cairn/internal/image"
)

// A Reference is an image as code writes it, [host[:port]/]path[:tag][@digest],
// with nothing added and nothing left out.
type Reference struct {
	Name   string // host and path as written: nginx, ghcr.io/a/b, localhost:5000/c
	Tag    string
	Digest image.Digest
}

// ParseReference takes a reference apart. It fails on anything that no runtime
// would take: spaces, templates that were left in, URLs.
func ParseReference(s string) (Reference, error) {
	var r Reference
	name, dig, pinned := strings.Cut(s, "@")
	if pinned {
		d, err := image.ParseDigest(dig)
		if err != nil {
			return Reference{}, fmt.Errorf("image %.200q: %w", s, err)
		}
		r.Digest = d
	}
	if i := strings.LastIndexByte(name, ':'); i >= 0 && !strings.Contains(name[i:], "/") {
		r.Tag = name[i+1:]
		name = name[:i]
		if err := image.CheckTag(r.Tag); err != nil {
			return Reference{}, fmt.Errorf("image %.200q: %w", s, err)
		}
	}
	host, path := splitHost(name)
	if err := checkHost(host); err != nil {
		return Reference{}, fmt.Errorf("image %.200q: %w", s, err)
	}
	if err := image.CheckRepository(path); err != nil {
		return Reference{}, fmt.Errorf("image %.200q: %w", s, err)
	}
	r.Name = name
	return r, nil
}

// splitHost cuts the host off a name, by the rule that all clients share: the
// first part is a host when it has a dot, a colon, or is localhost.
func splitHost(name string) (host, path string) {
	first, rest, ok := strings.Cut(name, "/")
	if ok && (strings.ContainsAny(first, ".:") || first == "localhost") {
		return first, rest
	}
	return "", name
}

func checkHost(host string) error {
	for _, c := range []byte(host) {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && !strings.ContainsRune(".-_:[]", rune(c)) {
			return fmt.Errorf("the host %q has a %q in it", host, c)
		}
	}
	return nil
}

// Repository is the full name, by which two spellings of one repository are
// equal: docker.io/library/nginx for nginx, docker.io/nginx and index.docker.io/library/nginx.
func (r Reference) Repository() string {
	host, path := splitHost(r.Name)
	switch host {
	case "", "docker.io", "index.docker.io", "registry-1.docker.io":
		host = "docker.io"
		if !strings.Contains(path, "/") {
			path = "library/" + path
		}
	}
	return host + "/" + path
}

func (r Reference) String() string {
	s := r.Name
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + string(r.Digest)
	}
	return s
}
