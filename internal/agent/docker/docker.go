// Package docker looks at one host through the socket of Docker or Podman and
// says which images it uses, for hosts without Kubernetes.
//
// It owns the few calls of the Docker API that this takes (containers, images,
// events) and what a workload is called where there is none: a Compose
// service, a Swarm service, a container by the name somebody gave it. It
// promises to fail rather than to answer without the daemon, and to ask with
// GET only. It starts, stops and removes nothing.
package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"cairn.dev/cairn/internal/agent"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
)

// Where the daemons listen when they run as root.
const (
	DockerSocket = "unix:///var/run/docker.sock"
	PodmanSocket = "unix:///run/podman/podman.sock"
)

const (
	callTimeout = 10 * time.Second
	maxBody     = 64 << 20
	maxBackoff  = 30 * time.Second
)

// Config of a [Host].
type Config struct {
	Socket string // unix:///path; DockerSocket when empty
	Name   string // of the host: all subjects begin with it
}

// Deps of a [Host].
type Deps struct {
	Clock clock.Clock
	Log   *slog.Logger
}

// A Host is an [agent.Source]. It is safe for concurrent use.
type Host struct {
	cfg   Config
	clock clock.Clock
	log   *slog.Logger
	http  *http.Client

	mu     sync.Mutex
	seen   func(...usage.Use)
	images map[string][]image.Digest // by ID, of containers that are there
	told   map[string]time.Time      // until when an ended container was told
}

// New returns a host that is not looked at until [Host.Run].
func New(cfg Config, d Deps) (*Host, error) {
	if cfg.Name == "" {
		return nil, errors.New("the host needs a name: it tells hosts apart in reports")
	}
	if cfg.Socket == "" {
		cfg.Socket = DockerSocket
	}
	path := strings.TrimPrefix(cfg.Socket, "unix://")
	if !strings.HasPrefix(path, "/") {
		return nil, fmt.Errorf("socket %q: write unix:///path/to/the.sock", cfg.Socket)
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	return &Host{cfg: cfg, clock: d.Clock, log: d.Log, http: &http.Client{Transport: &http.Transport{DialContext: dial}},
		seen: func(...usage.Use) {}, images: map[string][]image.Digest{}, told: map[string]time.Time{}}, nil
}

// Run implements [agent.Source]. It ends with ctx only: a daemon that is away
// may come back.
func (h *Host) Run(ctx context.Context, seen func(...usage.Use)) error {
	h.mu.Lock()
	h.seen = seen
	h.mu.Unlock()
	for wait := time.Second; ; {
		some, err := h.follow(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if some {
			wait = time.Second
		}
		h.log.Debug("the daemon's events ended; asking again", "err", err, "in", wait)
		if err := clock.Sleep(ctx, h.clock, wait); err != nil {
			return err
		}
		wait = min(2*wait, maxBackoff)
	}
}

// event is one line of the daemon's events.
type event struct {
	Action string `json:"Action"`
	Actor  struct {
		ID         string            `json:"ID"`
		Attributes map[string]string `json:"Attributes"` // image, name and the labels
	} `json:"Actor"`
	Time int64 `json:"timeNano"`
}

// follow reads events until they end, and reports whether there were any.
func (h *Host) follow(ctx context.Context) (some bool, err error) {
	body, err := h.open(ctx, "/events?filters="+url.QueryEscape(`{"type":["container"],"event":["start","die"]}`))
	if err != nil {
		return false, err
	}
	defer body.Close()
	if _, err := h.Snapshot(ctx); err != nil { // what happened before the stream began
		return false, err
	}
	for dec := json.NewDecoder(body); ; some = true {
		var e event
		if err := dec.Decode(&e); err != nil {
			return some, err
		}
		h.event(ctx, e)
	}
}

// event tells that a container started or ended.
func (h *Host) event(ctx context.Context, e event) {
	if e.Action != "start" && e.Action != "die" {
		return
	}
	at := time.Unix(0, e.Time).UTC()
	if e.Time == 0 {
		at = h.clock.Now()
	}
	var c struct {
		Image string `json:"Image"`
	}
	name := e.Actor.Attributes["image"]
	err := h.get(ctx, "/containers/"+url.PathEscape(e.Actor.ID)+"/json", &c)
	if err != nil || c.Image == "" {
		// It is gone already. A moment ago its name was of the image it ran.
		c.Image = name
	}
	all, err := h.digests(ctx, c.Image)
	if err != nil {
		h.log.Debug("the image of a container that started is not known", "image", c.Image, "err", err)
		return
	}
	if e.Action == "die" {
		h.mu.Lock()
		h.told[e.Actor.ID] = at
		h.mu.Unlock()
	}
	h.tell(h.uses(all, h.subject(e.Actor.Attributes["name"], name, e.Actor.Attributes), at))
}

func (h *Host) tell(uses []usage.Use) {
	if len(uses) == 0 {
		return
	}
	h.mu.Lock()
	seen := h.seen
	h.mu.Unlock()
	seen(uses...)
}

func (h *Host) uses(all []image.Digest, subject string, at time.Time) []usage.Use {
	var out []usage.Use
	for _, d := range all {
		out = append(out, usage.Use{Digest: d, Source: usage.Container, Subject: subject, At: at})
	}
	return out
}

// listed is a container as the list has it.
type listed struct {
	ID      string            `json:"Id"`
	Names   []string          `json:"Names"`
	Image   string            `json:"Image"` // its name
	ImageID string            `json:"ImageID"`
	State   string            `json:"State"`
	Labels  map[string]string `json:"Labels"`
}

// Snapshot implements [agent.Source]. Containers that ended and are kept are
// told once, by when they ended.
func (h *Host) Snapshot(ctx context.Context) (agent.Snapshot, error) {
	var list []listed
	if err := h.get(ctx, "/containers/json?all=true", &list); err != nil {
		return agent.Snapshot{}, fmt.Errorf("list containers at %s: %w", h.cfg.Socket, err)
	}
	var snap agent.Snapshot
	images, there := map[string]bool{}, map[string]bool{}
	for _, c := range list {
		images[c.ImageID], there[c.ID] = true, true
		if c.State == "created" {
			continue
		}
		name := ""
		if len(c.Names) > 0 {
			name = strings.TrimPrefix(c.Names[0], "/")
		}
		runs := c.State == "running" || c.State == "paused" || c.State == "restarting"
		if !runs && h.wasTold(c.ID) {
			continue
		}
		all, err := h.digests(ctx, c.ImageID)
		if err != nil {
			return agent.Snapshot{}, fmt.Errorf("look at the image of container %s at %s: %w", name, h.cfg.Socket, err)
		}
		subject := h.subject(name, c.Image, c.Labels)
		if runs {
			snap.Uses = append(snap.Uses, h.uses(all, subject, time.Time{})...)
			h.restarted(c.ID)
			continue
		}
		if at := h.ended(ctx, c.ID); !at.IsZero() {
			h.tell(h.uses(all, subject, at))
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for id := range h.images {
		if !images[id] {
			delete(h.images, id)
		}
	}
	for id := range h.told {
		if !there[id] {
			delete(h.told, id)
		}
	}
	return snap, nil
}

func (h *Host) wasTold(id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, ok := h.told[id]
	return ok
}

func (h *Host) restarted(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.told, id)
}

// ended is when a container ended; zero if it never ran or is gone.
func (h *Host) ended(ctx context.Context, id string) time.Time {
	var c struct {
		State struct {
			StartedAt, FinishedAt time.Time
		}
	}
	if err := h.get(ctx, "/containers/"+url.PathEscape(id)+"/json", &c); err != nil || c.State.StartedAt.Year() < 1970 {
		return time.Time{}
	}
	at := c.State.FinishedAt
	if at.Before(c.State.StartedAt) {
		at = c.State.StartedAt
	}
	h.mu.Lock()
	h.told[id] = at
	h.mu.Unlock()
	return at.UTC()
}

// digests are all by which an image may be known: of its config or, in newer
// stores, its manifest or index; and of what was pulled.
func (h *Host) digests(ctx context.Context, id string) ([]image.Digest, error) {
	h.mu.Lock()
	all, known := h.images[id]
	h.mu.Unlock()
	if known {
		return all, nil
	}
	var i struct {
		ID          string   `json:"Id"`
		RepoDigests []string `json:"RepoDigests"`
	}
	// Slashes of a name belong to the path.
	err := h.get(ctx, "/images/"+strings.ReplaceAll(url.PathEscape(id), "%2F", "/")+"/json", &i)
	var answered *statusError
	switch {
	case errors.As(err, &answered) && answered.code == http.StatusNotFound:
		// Removed while its container runs on: the ID is all there is.
		i.ID = id
	case err != nil:
		return nil, err
	}
	for _, s := range append([]string{id, i.ID}, i.RepoDigests...) {
		if d, ok := agent.ParseImageID(s); ok && !contains(all, d) {
			all = append(all, d)
		}
	}
	if _, fixed := agent.ParseImageID(id); fixed { // a name may move
		h.mu.Lock()
		h.images[id] = all
		h.mu.Unlock()
	}
	return all, nil
}

func contains(all []image.Digest, d image.Digest) bool {
	for _, o := range all {
		if o == d {
			return true
		}
	}
	return false
}

// invented matches names that Docker and Podman make up: adjective_surname.
var invented = regexp.MustCompile(`^[a-z]+_[a-z]+[0-9]?$`)

// subject names the workload of a container.
func (h *Host) subject(name, imageName string, labels map[string]string) string {
	first := func(keys ...string) string {
		for _, k := range keys {
			if v := labels[k]; v != "" {
				return v
			}
		}
		return ""
	}
	if s := first("com.docker.compose.service", "io.podman.compose.service"); s != "" {
		return agent.Subject(h.cfg.Name, first("com.docker.compose.project", "io.podman.compose.project"), s)
	}
	if s := first("com.docker.swarm.service.name"); s != "" {
		return agent.Subject(h.cfg.Name, s)
	}
	if s := first("io.kubernetes.pod.name"); s != "" {
		return agent.Subject(h.cfg.Name, first("io.kubernetes.pod.namespace"), agent.Stem(s))
	}
	if name == "" || invented.MatchString(name) {
		name, _, _ = strings.Cut(imageName[strings.LastIndexByte(imageName, '/')+1:], "@")
		name, _, _ = strings.Cut(name, ":")
		if name == "" || name == "sha256" {
			name = "container"
		}
	}
	return agent.Subject(h.cfg.Name, agent.Stem(name))
}

// statusError is an answer that is not 200.
type statusError struct {
	path string
	code int
	text string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("GET %s answered %d: %s", e.path, e.code, e.text)
}

// get reads one answer.
func (h *Host) get(ctx context.Context, path string, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	body, err := h.open(ctx, path)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(io.LimitReader(body, maxBody)).Decode(out); err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	return nil
}

func (h *Host) open(ctx context.Context, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := h.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return nil, &statusError{path, resp.StatusCode, strings.TrimSpace(string(b))}
	}
	return resp.Body, nil
}
