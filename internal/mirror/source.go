package mirror

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/upstream"
)

const (
	dockerHub = "docker.io"
	// backoff before a download that broke off goes on; it doubles.
	backoff = 250 * time.Millisecond
)

// A source is one registry that is mirrored, and its client.
type source struct {
	Upstream
	prefix string // first part of its names here
	client *upstream.Client
	stall  time.Duration
	bytes  atomic.Int64 // of blobs that came
}

func newSource(cfg Config, c Upstream) (*source, error) {
	c.Host = strings.ToLower(c.Host)
	if c.Host == "" || image.CheckRepository(Prefix(c.Host)) != nil || strings.Contains(c.Host, "/") {
		return nil, fmt.Errorf("%.80q is no host: write docker.io, ghcr.io or registry.example.org:5000", c.Host)
	}
	if c.TTL == 0 {
		c.TTL = DefaultTTL
	}
	if len(c.Allow) == 0 {
		c.Allow = []string{"**"}
	}
	if c.MaxBlob == 0 {
		c.MaxBlob = DefaultMaxBlob
	}
	client, err := upstream.New(upstream.Config{Host: c.Host, URL: c.URL, Username: c.Username, PasswordFile: c.PasswordFile, PasswordEnv: c.PasswordEnv,
		CAFile: c.CAFile, Getenv: cfg.Getenv, Clock: cfg.Clock, Agent: cfg.Agent, Timeout: cfg.Timeout})
	if err != nil {
		return nil, err
	}
	return &source{Upstream: c, prefix: Prefix(c.Host), client: client, stall: cfg.Stall}, nil
}
