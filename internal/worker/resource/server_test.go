package resource

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
)

// cluster is an API server with a few kinds.
type cluster struct {
	url string

	mu      sync.Mutex
	objects map[string]object // by path
	version int
	asked   []string            // METHOD PATH?QUERY
	forms   map[string]string   // media types of what was sent, by method
	wakes   map[chan event]bool // of watches
	// first answers a request in place of the server, if it returns true.
	first func(w http.ResponseWriter, r *http.Request) bool
	// lost closes the connection of a request after it was carried out.
	lost func(r *http.Request) bool
}

type event struct {
	Type   string `json:"type"`
	Object object `json:"object"`
}

func serve(t *testing.T) *cluster {
	c := &cluster{objects: map[string]object{}, forms: map[string]string{}, wakes: map[chan event]bool{}}
	s := httptest.NewServer(c)
	t.Cleanup(s.Close)
	t.Cleanup(s.CloseClientConnections)
	c.url = s.URL
	return c
}

// serveTLS is one that is spoken to by TLS; its certificate is written to a
// folder, as that of an account.
func serveTLS(t *testing.T, dir string) string {
	t.Helper()
	c := &cluster{objects: map[string]object{}, forms: map[string]string{}, wakes: map[chan event]bool{}}
	s := httptest.NewTLSServer(c)
	t.Cleanup(s.Close)
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	return s.URL
}

func (c *cluster) account() *Account {
	return &Account{URL: c.url, Namespace: "mine", Token: func() (string, error) { return "secret", nil }, Client: &http.Client{Transport: &http.Transport{}}}
}

// quick is a clock on which nobody waits: what is waited for comes at once, but
// for what is further off than an hour.
type quick struct{ *clock.Fake }

func (q quick) After(d time.Duration) <-chan time.Time {
	if d >= time.Hour {
		return nil
	}
	q.Advance(max(d, 0))
	return q.Fake.After(0)
}

func quickly() clock.Clock { return quick{clock.NewFake(time.Unix(1_800_000_000, 0))} }

const (
	coreKinds = `{"resources": [{"name": "configmaps", "singularName": "configmap", "kind": "ConfigMap", "namespaced": true, "shortNames": ["cm"]},
		{"name": "pods/status", "kind": "Pod", "namespaced": true}, {"name": "namespaces", "singularName": "namespace", "kind": "Namespace", "shortNames": ["ns"]}]}`
	batchKinds = `{"resources": [{"name": "jobs", "singularName": "job", "kind": "Job", "namespaced": true}]}`
	groups     = `{"groups": [{"name": "apps", "preferredVersion": {"groupVersion": "apps/v1"}}, {"name": "batch", "preferredVersion": {"groupVersion": "batch/v1"}}]}`
)

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.asked = append(c.asked, r.Method+" "+r.URL.RequestURI())
	if f := r.Header.Get("Content-Type"); f != "" {
		c.forms[r.Method] = f
	}
	first := c.first
	c.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer secret" {
		refuse(w, 401, "Unauthorized", "who is that?")
		return
	}
	if first != nil && first(w, r) {
		return
	}
	if r.URL.Query().Get("watch") != "" {
		c.watch(w, r)
		return
	}
	code, answer := c.answer(r)
	if c.lost != nil && c.lost(r) {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, answer)
}

func refuse(w http.ResponseWriter, code int, reason, message string) {
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"kind": "Status", "reason": reason, "message": message, "code": code})
}

func status(code int, reason, message string) (int, string) {
	return code, fmt.Sprintf(`{"kind": "Status", "reason": %q, "message": %q}`, reason, message)
}

func (c *cluster) answer(r *http.Request) (int, string) {
	switch r.URL.Path {
	case "/api/v1":
		return 200, coreKinds
	case "/apis/batch/v1":
		return 200, batchKinds
	case "/apis":
		return 200, groups
	}
	b, _ := io.ReadAll(r.Body)
	var body object
	_ = json.Unmarshal(b, &body) // a patch may be a list
	c.mu.Lock()
	defer c.mu.Unlock()
	where := r.URL.Path
	if r.Method == http.MethodPost {
		where += "/" + at(body, "metadata", "name")
	}
	there, ok := c.objects[where]
	switch {
	case r.Method == http.MethodPost && ok:
		return status(409, "AlreadyExists", path.Base(where)+" already exists")
	case r.Method == http.MethodPost:
		return 201, c.put(where, body)
	case r.Method == http.MethodPatch && r.Header.Get("Content-Type") == "application/apply-patch+yaml":
		return 200, c.put(where, merged(there, body))
	case r.Method == http.MethodGet && strings.HasSuffix(where, "/configmaps"):
		return 200, c.list(where, r.URL.Query())
	case !ok:
		return status(404, "NotFound", path.Base(where)+" not found")
	case r.Method == http.MethodPatch:
		return 200, c.put(where, merged(there, body))
	case r.Method == http.MethodPut:
		if v := at(body, "metadata", "resourceVersion"); v != at(there, "metadata", "resourceVersion") {
			return status(409, "Conflict", "the object has been modified")
		}
		return 200, c.put(where, body)
	case r.Method == http.MethodDelete:
		delete(c.objects, where)
		c.tell("DELETED", there)
		return 200, `{"kind": "Status", "details": {"uid": "u"}}`
	}
	out, _ := json.Marshal(there)
	return 200, string(out)
}

// list lists the objects of a collection, one on each page.
func (c *cluster) list(where string, q url.Values) string {
	var items []object
	for k, o := range c.objects {
		name, value, _ := strings.Cut(q.Get("labelSelector"), "=")
		if path.Dir(k) == where && (name == "" || at(o, "metadata", "labels", name) == value) {
			items = append(items, o)
		}
	}
	next := ""
	if len(items) > 1 {
		items, next = items[:1], "more"
	}
	b, _ := json.Marshal(map[string]any{"metadata": map[string]any{"continue": next}, "items": items})
	return string(b)
}

// put stores an object; the lock is held.
func (c *cluster) put(at string, o object) string {
	c.version++
	m, _ := o["metadata"].(map[string]any)
	if m == nil {
		m = map[string]any{}
	}
	m = maps.Clone(m)
	m["resourceVersion"], m["uid"], m["managedFields"] = strconv.Itoa(c.version), "u", []any{"long"}
	o = maps.Clone(o)
	o["metadata"] = m
	c.objects[at] = o
	c.tell("MODIFIED", o)
	b, _ := json.Marshal(o)
	return string(b)
}

func (c *cluster) tell(kind string, o object) {
	for w := range c.wakes {
		w <- event{kind, o}
	}
}

// set changes an object as a controller would.
func (c *cluster) set(at string, change object) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.put(at, merged(c.objects[at], change))
}

func (c *cluster) watch(w http.ResponseWriter, r *http.Request) {
	events := make(chan event, 100)
	c.mu.Lock()
	name, found := strings.CutPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name=")
	if o := c.objects[r.URL.Path+"/"+name]; found && o != nil && at(o, "metadata", "resourceVersion") != r.URL.Query().Get("resourceVersion") {
		events <- event{"MODIFIED", o}
	}
	c.wakes[events] = true
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.wakes, events)
		c.mu.Unlock()
	}()
	w.WriteHeader(200)
	w.(http.Flusher).Flush()
	for {
		select {
		case e := <-events:
			if at(e.Object, "metadata", "name") == name {
				_ = json.NewEncoder(w).Encode(e)
				w.(http.Flusher).Flush()
			}
		case <-r.Context().Done():
			return
		}
	}
}

// watched waits until somebody watches.
func (c *cluster) watched(t *testing.T) {
	t.Helper()
	eventually(t, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.wakes) > 0
	})
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for range 1000 {
		if ok() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("it does not come about")
}

// merged is a JSON merge patch.
func merged(base, patch object) object {
	out := maps.Clone(base)
	if out == nil {
		out = object{}
	}
	for k, v := range patch {
		if m, ok := v.(map[string]any); ok {
			old, _ := out[k].(map[string]any)
			v = merged(old, m)
		}
		out[k] = v
	}
	return out
}
