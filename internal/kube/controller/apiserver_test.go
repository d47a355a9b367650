package controller

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"cairn.dev/cairn/internal/kube/crd"
)

// apiServer plays as much of an API server as the controller asks for. It can
// be told to answer late, wrongly or not at all.
type apiServer struct {
	t *testing.T
	*httptest.Server
	// odd, if it is not nil, answers in place of the rest when it says so.
	odd func(w http.ResponseWriter, r *http.Request) bool

	mu      sync.Mutex
	version int
	objects map[string]map[string]any // by path
	watches map[chan event]string     // and the path of the resource
	patches int
}

// event is one of a watch.
type event struct {
	Type   string         `json:"type"`
	Object map[string]any `json:"object"`
}

const definitionsPath = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

func newAPIServer(t *testing.T) *apiServer {
	s := &apiServer{t: t, objects: map[string]map[string]any{}, watches: map[chan event]string{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.CloseClientConnections)
	return s
}

// define adds the definitions of kinds, with these labels.
func (s *apiServer) define(group string, labels map[string]any, resources ...string) {
	for _, r := range resources {
		s.put(definitionsPath+"/"+r+"."+group, map[string]any{"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": map[string]any{"name": r + "." + group, "labels": labels}})
	}
}

// asked is the path of one, and what it is.
func asked(group, name, uid string, labels map[string]any) (path string, u map[string]any) {
	spec := map[string]any{"tasks": []any{map[string]any{"name": "a", "image": "i", "command": []any{"x"}}}}
	if group == crd.ArgoGroup {
		spec = map[string]any{"entrypoint": "a", "templates": []any{map[string]any{"name": "a", "container": map[string]any{"image": "i", "command": []any{"x"}}}}}
	}
	return "/apis/" + group + "/v1alpha1/workflows/data/" + name, map[string]any{"apiVersion": group + "/v1alpha1", "kind": "Workflow",
		"metadata": map[string]any{"name": name, "namespace": "data", "uid": uid, "generation": int64(1), "labels": labels}, "spec": spec}
}

func copied(m map[string]any) map[string]any {
	b, err := json.Marshal(m)
	if err == nil {
		m = nil
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		panic(err)
	}
	return m
}

// put has an object be what it is from now on.
func (s *apiServer) put(path string, o map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set(path, o)
}

func (s *apiServer) set(path string, o map[string]any) {
	kind := "ADDED"
	if s.objects[path] != nil {
		kind = "MODIFIED"
	}
	o = copied(o)
	s.version++
	o["metadata"].(map[string]any)["resourceVersion"] = strconv.Itoa(s.version)
	old := s.objects[path]
	s.objects[path] = o
	s.send(path, kind, old, o)
}

// drop deletes an object, and tells those who watch.
func (s *apiServer) drop(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	o := copied(s.objects[path])
	o["metadata"].(map[string]any)["resourceVersion"] = strconv.Itoa(s.version)
	delete(s.objects, path)
	s.send(path, "DELETED", o, o)
}

// edit changes an object.
func (s *apiServer) edit(path string, f func(o map[string]any)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := copied(s.objects[path])
	f(o)
	s.set(path, o)
}

// get is an object, and one of its fields.
func (s *apiServer) get(path string, field ...string) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	var at any = s.objects[path]
	for _, f := range field {
		m, _ := at.(map[string]any)
		at = m[f]
	}
	return at
}

// send tells those who watch; the lock is held. Who selects by labels sees an
// object come and go with them.
func (s *apiServer) send(path, kind string, old, o map[string]any) {
	for c, at := range s.watches {
		resource, selector, _ := strings.Cut(at, "?")
		if !strings.HasPrefix(path, resource+"/") {
			continue
		}
		k, was, is := kind, old != nil && selected(old, selector), selected(o, selector)
		switch {
		case kind == "DELETED" && !was, !was && !is:
			continue
		case kind != "DELETED" && !was:
			k = "ADDED"
		case kind != "DELETED" && !is:
			k = "DELETED"
		}
		c <- event{k, copied(o)}
	}
}

func selected(o map[string]any, selector string) bool {
	sel, err := labels.Parse(selector)
	if err != nil {
		panic(err)
	}
	set := labels.Set{}
	m, _ := o["metadata"].(map[string]any)
	l, _ := m["labels"].(map[string]any)
	for k, v := range l {
		set[k], _ = v.(string)
	}
	return sel.Matches(set)
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.odd != nil && s.odd(w, r) {
		return
	}
	path := strings.Replace(r.URL.Path, "/namespaces/data", "", 1)
	q := r.URL.Query()
	switch {
	case r.Method == http.MethodPatch:
		s.patch(w, r, strings.TrimSuffix(objectPath(path), "/status"))
	case q.Get("sendInitialEvents") != "":
		fail(w, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid)
	case q.Get("watch") != "":
		s.watch(w, r, path+"?"+q.Get("labelSelector"))
	default:
		s.list(w, path, q.Get("labelSelector"))
	}
}

// objectPath is where an object of a namespace is kept.
func objectPath(path string) string {
	parts := strings.Split(path, "/") // "", apis, group, version, resource, name
	return strings.Join(slices.Insert(parts, 5, "data"), "/")
}

func fail(w http.ResponseWriter, code int, reason metav1.StatusReason) {
	answer(w, code, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: reason, Code: int32(code), Message: string(reason)})
}

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v)
}

func (s *apiServer) list(w http.ResponseWriter, path, selector string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	items := []any{}
	for _, p := range slices.Sorted(maps.Keys(s.objects)) {
		if o := s.objects[p]; strings.HasPrefix(p, path+"/") && selected(o, selector) {
			items = append(items, o)
		}
	}
	kind, version := "List", "v1"
	if path == definitionsPath {
		kind, version = "PartialObjectMetadataList", "meta.k8s.io/v1"
	} else {
		parts := strings.Split(path, "/")
		kind, version = "AnyList", parts[2]+"/"+parts[3]
	}
	answer(w, http.StatusOK, map[string]any{"kind": kind, "apiVersion": version, "metadata": map[string]any{"resourceVersion": strconv.Itoa(s.version)}, "items": items})
}

func (s *apiServer) watch(w http.ResponseWriter, r *http.Request, at string) {
	c := make(chan event, 1000)
	s.mu.Lock()
	s.watches[c] = at
	// What happened since the list is told, as if it happened now.
	resource, selector, _ := strings.Cut(at, "?")
	since, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	for p, o := range s.objects {
		if v, _ := strconv.Atoi(o["metadata"].(map[string]any)["resourceVersion"].(string)); v > since && strings.HasPrefix(p, resource+"/") && selected(o, selector) {
			c <- event{"MODIFIED", copied(o)}
		}
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.watches, c)
		s.mu.Unlock()
	}()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	f, _ := w.(http.Flusher)
	f.Flush()
	for {
		select {
		case e := <-c:
			if json.NewEncoder(w).Encode(e) != nil {
				return
			}
			f.Flush()
		case <-r.Context().Done():
			return
		}
	}
}

// patch is a merge patch, which does nothing where nothing is new.
func (s *apiServer) patch(w http.ResponseWriter, r *http.Request, path string) {
	var p map[string]any
	if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
		fail(w, http.StatusBadRequest, metav1.StatusReasonBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.patches++
	o := s.objects[path]
	if o == nil {
		fail(w, http.StatusNotFound, metav1.StatusReasonNotFound)
		return
	}
	meta, _ := p["metadata"].(map[string]any)
	if uid := meta["uid"]; uid != nil && uid != o["metadata"].(map[string]any)["uid"] {
		fail(w, http.StatusConflict, metav1.StatusReasonConflict)
		return
	}
	n := merged(o, p)
	if fmt.Sprint(n) != fmt.Sprint(o) {
		s.set(path, n)
	}
	answer(w, http.StatusOK, s.objects[path])
}

func merged(o, p map[string]any) map[string]any {
	out := maps.Clone(o)
	if out == nil {
		out = map[string]any{}
	}
	for k, v := range p {
		was, _ := out[k].(map[string]any)
		switch v := v.(type) {
		case nil:
			delete(out, k)
		case map[string]any:
			out[k] = merged(was, v)
		default:
			out[k] = v
		}
	}
	return out
}
