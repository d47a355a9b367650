package docker

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/usage"
)

var day0 = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func dg(s string) string { return "sha256:" + fmt.Sprintf("%x", s) + strings.Repeat("0", 64-2*len(s)) }

type state struct {
	listed
	began, ended time.Time
}

// daemon is a fake of what listens at the socket.
type daemon struct {
	t          *testing.T
	mu         sync.Mutex
	containers map[string]state
	images     map[string]map[string]any
	events     chan any
	down       bool
}

func (d *daemon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != "GET" {
		d.t.Errorf("%s %s", r.Method, r.URL)
	}
	if r.URL.Path == "/events" {
		if !strings.Contains(r.URL.Query().Get("filters"), `"start"`) {
			d.t.Errorf("events of what? %s", r.URL)
		}
		w.(http.Flusher).Flush()
		for {
			select {
			case <-r.Context().Done():
				return
			case e := <-d.events:
				if e == nil {
					return
				}
				json.NewEncoder(w).Encode(e)
				w.(http.Flusher).Flush()
			}
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.down {
		http.Error(w, "the daemon is starting", http.StatusServiceUnavailable)
		return
	}
	if r.URL.Path == "/containers/json" {
		if r.URL.Query().Get("all") != "true" {
			d.t.Error("those that ended are not asked for")
		}
		out := []listed{}
		for _, c := range d.containers {
			out = append(out, c.listed)
		}
		json.NewEncoder(w).Encode(out)
		return
	}
	name := strings.TrimSuffix(r.URL.Path, "/json")
	if id, ok := strings.CutPrefix(name, "/containers/"); ok {
		if c, ok := d.containers[id]; ok {
			json.NewEncoder(w).Encode(map[string]any{"Image": c.ImageID, "State": map[string]any{"StartedAt": c.began, "FinishedAt": c.ended}})
			return
		}
	} else if id, ok := strings.CutPrefix(name, "/images/"); ok && d.images[id] != nil {
		json.NewEncoder(w).Encode(d.images[id])
		return
	}
	http.Error(w, `{"message":"no such thing"}`, http.StatusNotFound)
}

// put sets a container that runs image; it began and ended at these seconds.
func (d *daemon) put(id, name, image, stateName string, began, ended int, labels map[string]string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := state{listed: listed{ID: id, Names: []string{"/" + name}, Image: image + ":1", ImageID: dg(image), State: stateName, Labels: labels}}
	if began > 0 {
		c.began = day0.Add(time.Duration(began) * time.Second)
	}
	if ended > 0 {
		c.ended = day0.Add(time.Duration(ended) * time.Second)
	}
	d.containers[id] = c
}

func (d *daemon) send(action, id, name, image string, at int) {
	d.events <- map[string]any{"Type": "container", "Action": action, "timeNano": day0.Add(time.Duration(at) * time.Second).UnixNano(),
		"Actor": map[string]any{"ID": id, "Attributes": map[string]string{"name": name, "image": image}}}
}

type host struct {
	*Host
	t     *testing.T
	clock *clock.Fake
	mu    sync.Mutex
	told  []usage.Use
}

func start(t *testing.T) (*host, *daemon) {
	t.Helper()
	d := &daemon{t: t, containers: map[string]state{}, events: make(chan any), images: map[string]map[string]any{}}
	for _, i := range []string{"a", "b", "w"} {
		// Known by its ID and by name; pulled by another digest.
		info := map[string]any{"Id": dg(i), "RepoDigests": []string{"x/" + i + "@" + dg(i+"m")}}
		d.images[dg(i)], d.images["x/"+i+":1"] = info, info
	}
	socket := filepath.Join(t.TempDir(), "d.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(d)
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	h := &host{t: t, clock: clock.NewFake(day0)}
	if h.Host, err = New(Config{Socket: "unix://" + socket, Name: "host"}, Deps{Clock: h.clock}); err != nil {
		t.Fatal(err)
	}
	return h, d
}

func (h *host) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- h.Run(ctx, func(uses ...usage.Use) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.told = append(h.told, uses...)
		})
	}()
	h.t.Cleanup(func() {
		cancel()
		<-done
	})
}

func lines(uses []usage.Use) []string {
	var out []string
	for _, u := range uses {
		l := fmt.Sprintf("%s %s", strings.TrimRight(string(u.Digest[7:]), "0"), u.Subject)
		if !u.At.IsZero() {
			l += fmt.Sprintf(" @%d", int(u.At.Sub(day0).Seconds()))
		}
		out = append(out, l)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (h *host) heard() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return lines(h.told)
}

func (h *host) until(what string, ok func() bool) {
	h.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("never came: %s; told %v", what, h.heard())
		}
	}
}

func (h *host) want(what string, want ...string) {
	h.t.Helper()
	slices.Sort(want)
	h.until(fmt.Sprintf("%s: %v", what, want), func() bool { return slices.Equal(h.heard(), want) })
}

func TestSnapshot(t *testing.T) {
	h, d := start(t)
	d.put("1", "web", "a", "running", 1, 0, nil)
	d.put("2", "created", "b", "created", 0, 0, nil)
	d.put("3", "paused", "w", "paused", 1, 0, map[string]string{"com.docker.compose.project": "shop", "com.docker.compose.service": "api"})
	d.put("4", "ended", "b", "exited", 1, 2, nil)
	d.put("5", "untagged", "z", "running", 1, 0, nil) // its image was removed
	for range 2 {
		s, err := h.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"61 host/web", "616d host/web", "77 host/shop/api", "776d host/shop/api", "7a host/untagged"}
		if got := lines(s.Uses); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	d.mu.Lock()
	d.down = true
	d.mu.Unlock()
	if _, err := h.Snapshot(t.Context()); err == nil || !strings.Contains(err.Error(), "the daemon is starting") {
		t.Errorf("without a daemon: %v", err)
	}
}

func TestEvents(t *testing.T) {
	h, d := start(t)
	d.put("0", "old", "b", "exited", 1, 2, nil)
	h.run()
	h.want("what ended before", "62 host/old @2", "626d host/old @2")
	d.put("1", "web", "a", "running", 10, 0, nil)
	d.send("start", "1", "web", "x/a:1", 10)
	h.want("a start", "61 host/web @10", "616d host/web @10", "62 host/old @2", "626d host/old @2")
	d.send("attach", "1", "web", "x/a:1", 11)
	d.send("start", "9", "eager_lovelace", "x/w:1", 20) // gone when we look
	h.want("one that was removed at once", "61 host/web @10", "616d host/web @10", "62 host/old @2", "626d host/old @2", "77 host/w @20", "776d host/w @20")
	d.send("die", "1", "web", "x/a:1", 30)
	h.until("its end", func() bool { return slices.Contains(h.heard(), "61 host/web @30") })
	// The stream breaks.
	d.events <- nil
	d.put("2", "later", "b", "exited", 40, 41, nil)
	h.until("what came and went meanwhile", func() bool {
		h.clock.Advance(time.Second)
		return slices.Contains(h.heard(), "62 host/later @41")
	})
	before := h.heard()
	if _, err := h.Snapshot(t.Context()); err != nil || !slices.Equal(h.heard(), before) {
		t.Errorf("told twice: %v, %v", h.heard(), err)
	}
}

func TestSubject(t *testing.T) {
	h, _ := start(t)
	for _, tt := range []struct{ name, image, labels, want string }{
		{"web", "x:1", "", "host/web"},
		{"web-7d4b9c8f6d-x2x4z", "x:1", "", "host/web"},
		{"eager_lovelace", "registry.example.org:5000/app/web:1.0", "", "host/web"},
		{"eager_lovelace7", "web@sha256:00", "", "host/web"},
		{"eager_lovelace", "sha256:0123", "", "host/container"},
		{"", "", "", "host/container"},
		{"shop_api_1", "x", "com.docker.compose.project=shop com.docker.compose.service=api", "host/shop/api"},
		{"x", "x", "com.docker.swarm.service.name=stack_api", "host/stack_api"},
		{"k8s_x", "x", "io.kubernetes.pod.name=db-0 io.kubernetes.pod.namespace=shop", "host/shop/db"},
	} {
		labels := map[string]string{}
		for l := range strings.FieldsSeq(tt.labels) {
			k, v, _ := strings.Cut(l, "=")
			labels[k] = v
		}
		if got := h.subject(tt.name, tt.image, labels); got != tt.want {
			t.Errorf("%s of %s: %q, want %q", tt.name, tt.image, got, tt.want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []Config{{}, {Name: "x", Socket: "tcp://127.0.0.1:1"}} {
		if _, err := New(c, Deps{}); err == nil {
			t.Errorf("New(%+v) succeeded", c)
		}
	}
}
