package catalog

import (
	"fmt"
	"net"
	"strings"

	"cairn.dev/cairn/internal/image"
)

const dockerHub = "docker.io"

// Normal is the one name of a repository, with its host: docker.io/library/nginx
// for nginx, docker.io/nginx and index.docker.io/library/nginx. The rules are those of
// all clients: the first part is a host when it has a dot or a colon, or is
// localhost.
func Normal(name string) (string, error) {
	host, repository, err := split(name)
	if err != nil {
		return "", err
	}
	return host + "/" + repository, nil
}

// split takes the name of a repository apart and makes both parts normal.
func split(name string) (host, repository string, err error) {
	host, repository, ok := strings.Cut(name, "/")
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" {
		host, repository = dockerHub, name
	}
	host = strings.ToLower(host)
	switch host {
	case "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com":
		host = dockerHub
	}
	if host == dockerHub && !strings.Contains(repository, "/") {
		repository = "library/" + repository
	}
	if err := checkHost(host); err != nil {
		return "", "", fmt.Errorf("repository %.200q: %w", name, err)
	}
	if err := image.CheckRepository(repository); err != nil {
		return "", "", err
	}
	return host, repository, nil
}

// checkHost reports whether s is a host with or without a port. It goes into a
// URL, and so may hold nothing that means something there.
func checkHost(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = strings.Trim(s, "[]"), "443"
	}
	ok := host != "" && len(s) <= 255 && port != ""
	for _, c := range []byte(port) {
		ok = ok && '0' <= c && c <= '9'
	}
	if net.ParseIP(host) == nil {
		for _, c := range []byte(host) {
			ok = ok && ('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '.' || c == '-' || c == '_')
		}
	}
	if !ok {
		return fmt.Errorf("%.100q is no host: write docker.io, ghcr.io or registry.example.org:5000", s)
	}
	return nil
}

// bare is a host without its port.
func bare(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return strings.Trim(host, "[]")
}

// loopback reports whether a host is this machine.
func loopback(host string) bool {
	h := bare(host)
	ip := net.ParseIP(h)
	return h == "localhost" || strings.HasSuffix(h, ".localhost") || ip != nil && ip.IsLoopback()
}

// named reports whether a host is a name that stands for a registry, and not
// an address or this machine.
func named(host string) bool {
	return net.ParseIP(bare(host)) == nil && !loopback(host) && strings.Contains(bare(host), ".")
}
