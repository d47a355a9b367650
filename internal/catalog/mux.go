package catalog

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"cairn.dev/cairn/internal/image"
)

// A Mux asks our registry about what is ours and others about the rest.
type Mux struct {
	own     Catalog
	others  Catalog
	hosts   map[string]bool
	first   string
	mirrors map[string]string
}

// MuxConfig of a [Mux].
type MuxConfig struct {
	// Own is our registry, [*Own]; nil where there is none, as on a laptop.
	Own Catalog
	// Hosts by which code may name our registry: those of external_url, of the
	// addresses it listens on, and aliases. What is pushed is told under the first.
	Hosts []string
	// Others answers for every other host.
	Others Catalog
	// Mirrors are the first parts of the names that our registry keeps copies
	// under, and the hosts those are of: docker.io for docker.io, and
	// registry.local_5000 for registry.local:5000. A copy has only the tags that
	// were pulled, so the host itself is asked.
	Mirrors map[string]string
}

// NewMux returns a catalog of everything. It contacts nobody.
func NewMux(c MuxConfig) (*Mux, error) {
	if c.Others == nil {
		return nil, errors.New("catalog: nobody to ask about other registries")
	}
	if c.Own != nil && len(c.Hosts) == 0 {
		return nil, errors.New("catalog: our registry has no name by which code could mean it: set external_url")
	}
	m := &Mux{own: c.Own, others: c.Others, hosts: map[string]bool{}, mirrors: c.Mirrors}
	for i, h := range c.Hosts {
		h = strings.ToLower(h)
		if err := checkHost(h); err != nil {
			return nil, fmt.Errorf("catalog: our registry's name: %w", err)
		}
		if i == 0 {
			m.first = h
		}
		m.hosts[h] = true
	}
	return m, nil
}

// Name is the one name of a repository, by which those that are the same are
// equal: what [Normal] says, with all hosts that are ours written as the first,
// and copies that our registry keeps written as what they are copies of.
func (m *Mux) Name(repository string) (string, error) {
	host, repo, _, err := m.place(repository)
	if err != nil {
		return "", err
	}
	return host + "/" + repo, nil
}

// Pushed is what to tell of a push to our registry, under [Mux.Name]. A copy
// that arrived counts as one of what it is a copy of.
func (m *Mux) Pushed(repository, tag string, d image.Digest) Pushed {
	name := m.first + "/" + repository
	if n, err := m.Name(name); err == nil {
		name = n
	}
	return Pushed{name, tag, d}
}

// place finds who answers for a repository, and what it is called there.
func (m *Mux) place(name string) (host, repository string, who Catalog, err error) {
	host, repository, err = split(name)
	if err != nil {
		return "", "", nil, err
	}
	if !m.hosts[host] || m.own == nil {
		return host, repository, m.others, nil
	}
	if prefix, rest, ok := strings.Cut(repository, "/"); ok {
		if of := m.mirrors[prefix]; of != "" {
			if host, rest, err = split(of + "/" + rest); err != nil {
				return "", "", nil, err
			}
			return host, rest, m.others, nil
		}
	}
	return m.first, repository, m.own, nil
}

// Tags implements [Catalog].
func (m *Mux) Tags(ctx context.Context, repository string) ([]Tag, error) {
	host, repo, who, err := m.place(repository)
	if err != nil {
		return nil, err
	}
	return who.Tags(ctx, host+"/"+repo)
}

// Lookup implements [Catalog].
func (m *Mux) Lookup(ctx context.Context, repository, tag string) (image.Digest, error) {
	host, repo, who, err := m.place(repository)
	if err != nil {
		return "", err
	}
	return who.Lookup(ctx, host+"/"+repo, tag)
}

// Image implements [Catalog].
func (m *Mux) Image(ctx context.Context, repository string, d image.Digest) (Image, error) {
	host, repo, who, err := m.place(repository)
	if err != nil {
		return Image{}, err
	}
	return who.Image(ctx, host+"/"+repo, d)
}
