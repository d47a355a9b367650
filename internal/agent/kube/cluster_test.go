package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/usage"
)

// apiServer answers list and watch of what tests put into it, as JSON.
type apiServer struct {
	*httptest.Server
	t         *testing.T
	streaming bool // knows lists by watch

	mu       sync.Mutex
	changed  *sync.Cond
	version  int
	objects  map[string]map[string]any // by resource, then name
	log      []event
	down     bool
	denied   string // resource
	requests map[string]int
}

type event struct {
	resource, kind string
	version        int
	object         any
}

func newAPIServer(t *testing.T, streaming bool) *apiServer {
	s := &apiServer{t: t, streaming: streaming, version: 1, objects: map[string]map[string]any{}, requests: map[string]int{}}
	s.changed = sync.NewCond(&s.mu)
	s.Server = httptest.NewServer(s)
	t.Cleanup(func() {
		s.cut(true)
		s.Close()
	})
	return s
}

// put adds or replaces an object; drop removes it.
func (s *apiServer) put(resource string, o metav1.Object)  { s.change(resource, "", o) }
func (s *apiServer) drop(resource string, o metav1.Object) { s.change(resource, "DELETED", o) }

func (s *apiServer) change(resource, kind string, o metav1.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	o.SetResourceVersion(fmt.Sprint(s.version))
	all := s.objects[resource]
	if all == nil {
		all = map[string]any{}
		s.objects[resource] = all
	}
	key := o.GetNamespace() + "/" + o.GetName()
	if kind == "" {
		kind = "ADDED"
		if all[key] != nil {
			kind = "MODIFIED"
		}
		all[key] = o
	} else {
		delete(all, key)
	}
	s.log = append(s.log, event{resource, kind, s.version, o})
	s.changed.Broadcast()
}

// cut ends all watches and refuses new requests, or takes them again.
func (s *apiServer) cut(down bool) {
	s.mu.Lock()
	s.down = down
	s.changed.Broadcast()
	s.mu.Unlock()
}

// forget makes old versions expired, as compaction does.
func (s *apiServer) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = nil
}

func (s *apiServer) count(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[what]
}

var kindsOf = map[string][2]string{"pods": {"v1", "Pod"}, "nodes": {"v1", "Node"}, "deployments": {"apps/v1", "Deployment"}, "replicasets": {"apps/v1", "ReplicaSet"},
	"statefulsets": {"apps/v1", "StatefulSet"}, "daemonsets": {"apps/v1", "DaemonSet"}, "controllerrevisions": {"apps/v1", "ControllerRevision"},
	"cronjobs": {"batch/v1", "CronJob"}, "jobs": {"batch/v1", "Job"}, "podtemplates": {"v1", "PodTemplate"}, "replicationcontrollers": {"v1", "ReplicationController"}}

func typed(resource string, o any) map[string]any {
	b, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	m := map[string]any{}
	if err := json.Unmarshal(b, &m); err != nil {
		panic(err)
	}
	m["apiVersion"], m["kind"] = kindsOf[resource][0], kindsOf[resource][1]
	return m
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	resource := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	q := r.URL.Query()
	fail := func(code int, reason metav1.StatusReason) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: reason, Code: int32(code), Message: resource + " is forbidden: or else"})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case r.Method != "GET" || kindsOf[resource][0] == "":
		s.t.Errorf("request %s %s", r.Method, r.URL)
		fail(404, metav1.StatusReasonNotFound)
	case s.down:
		fail(503, metav1.StatusReasonServiceUnavailable)
	case resource == s.denied:
		fail(403, metav1.StatusReasonForbidden)
	case q.Get("watch") == "true" || q.Get("watch") == "1":
		if q.Get("sendInitialEvents") == "true" && !s.streaming {
			fail(422, metav1.StatusReasonInvalid)
			return
		}
		s.requests["watch "+resource]++
		s.watch(w, r, resource)
	default:
		s.requests["list "+resource]++
		s.list(w, r, resource)
	}
}

// list answers in pages of the size asked for.
func (s *apiServer) list(w http.ResponseWriter, r *http.Request, resource string) {
	q := r.URL.Query()
	var keys []string
	for k := range s.objects[resource] {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	from, limit := 0, len(keys)
	fmt.Sscan(q.Get("continue"), &from)
	if fmt.Sscan(q.Get("limit"), &limit); limit == 0 || limit > pageSize {
		s.t.Errorf("list %s asks for pages of %q", resource, q.Get("limit"))
	}
	to := min(from+limit, len(keys))
	items := []any{}
	for _, k := range keys[from:to] {
		items = append(items, typed(resource, s.objects[resource][k]))
	}
	m := map[string]any{"resourceVersion": fmt.Sprint(s.version)}
	if to < len(keys) {
		m["continue"] = fmt.Sprint(to)
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"apiVersion": kindsOf[resource][0], "kind": kindsOf[resource][1] + "List", "metadata": m, "items": items})
}

func (s *apiServer) watch(w http.ResponseWriter, r *http.Request, resource string) {
	defer context.AfterFunc(r.Context(), s.changed.Broadcast)()
	w.Header().Set("Content-Type", "application/json")
	send := func(kind string, o any) {
		json.NewEncoder(w).Encode(map[string]any{"type": kind, "object": o})
	}
	from := 0
	fmt.Sscan(r.URL.Query().Get("resourceVersion"), &from)
	if r.URL.Query().Get("sendInitialEvents") == "true" {
		for _, o := range s.objects[resource] {
			send("ADDED", typed(resource, o))
		}
		from = s.version
		send("BOOKMARK", typed(resource, map[string]any{"metadata": map[string]any{"resourceVersion": fmt.Sprint(from), "annotations": map[string]any{metav1.InitialEventsAnnotationKey: "true"}}}))
	} else if len(s.log) == 0 && from < s.version || len(s.log) > 0 && from < s.log[0].version-1 {
		send("ERROR", metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: metav1.StatusReasonExpired, Code: 410})
		return
	}
	w.(http.Flusher).Flush()
	for !s.down && r.Context().Err() == nil {
		for _, e := range s.log {
			if e.version > from && e.resource == resource {
				send(e.kind, typed(resource, e.object))
			}
		}
		from = s.version
		w.(http.Flusher).Flush()
		s.changed.Wait()
	}
}

// watched is a cluster that is looked at.
type watched struct {
	*Cluster
	t     *testing.T
	clock *clock.Fake
	mu    sync.Mutex
	told  []usage.Use
}

func look(t *testing.T, s *apiServer) *watched {
	t.Helper()
	w := &watched{t: t, clock: clock.NewFake(day0.Add(time.Hour))}
	var err error
	w.Cluster, err = New(Config{Name: "prod", REST: &rest.Config{Host: s.URL}}, Deps{Clock: w.clock})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- w.Run(ctx, func(uses ...usage.Use) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.told = append(w.told, uses...)
		})
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Error("Run does not end")
		}
	})
	return w
}

// until waits for what the network brings.
func (w *watched) until(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			_, err := w.Snapshot(w.t.Context())
			w.t.Fatalf("never came: %s; told %v; snapshot: %v", what, w.heard(), err)
		}
	}
}

func (w *watched) heard() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return lines(w.told)
}

func (w *watched) uses() []string {
	s, err := w.Snapshot(w.t.Context())
	if err != nil {
		return []string{err.Error()}
	}
	return lines(s.Uses)
}

func TestCluster(t *testing.T) {
	for _, streaming := range []bool{true, false} {
		t.Run(fmt.Sprintf("streaming=%v", streaming), func(t *testing.T) {
			s := newAPIServer(t, streaming)
			s.put("replicasets", &appsv1.ReplicaSet{ObjectMeta: objectMeta("shop", "web-5d9c7b8f6d", "Deployment/web")})
			s.put("deployments", &appsv1.Deployment{ObjectMeta: objectMeta("shop", "web")})
			for i := range 1203 {
				s.put("pods", pod(fmt.Sprint("web-5d9c7b8f6d-", i), "ReplicaSet/web-5d9c7b8f6d", corev1.PodRunning, runs("a", 5)))
			}
			w := look(t, s)
			want := []string{"container a prod/shop/Deployment/web"}
			w.until("the first list", func() bool { return slices.Equal(w.uses(), want) })
			if got := w.heard(); len(got) != 0 {
				t.Errorf("told %v of what ran before", got)
			}
			s.put("pods", pod("job", "", corev1.PodRunning, runs("b", 10)))
			s.put("pods", pod("job", "", corev1.PodSucceeded, ran("b", 10, 11)))
			s.drop("pods", pod("job", "", corev1.PodSucceeded, ran("b", 10, 11)))
			w.until("a container of one second", func() bool {
				return slices.Equal(w.heard(), []string{"container b prod/shop/Pod/job @10", "container b prod/shop/Pod/job @11"})
			})
			for _, k := range kinds() {
				if n := s.count("watch " + k.resource); n != 1 {
					t.Errorf("%d watches of %s, want one", n, k.resource)
				}
				if n := s.count("list " + k.resource); streaming && n != 0 {
					t.Errorf("%d lists of %s besides the watch", n, k.resource)
				}
			}
		})
	}
}

// While the API server is away, the last picture is not passed off as the
// present, and what happened meanwhile is told when it is back.
func TestOutage(t *testing.T) {
	for _, expired := range []bool{false, true} {
		t.Run(fmt.Sprintf("expired=%v", expired), func(t *testing.T) {
			s := newAPIServer(t, true)
			s.put("pods", pod("p", "", corev1.PodRunning, runs("a", 5)))
			w := look(t, s)
			want := []string{"container a prod/shop/Pod/p"}
			w.until("the first list", func() bool { return slices.Equal(w.uses(), want) })
			s.cut(true)
			w.until("the end of all watches", func() bool {
				w.Cluster.mu.Lock()
				defer w.Cluster.mu.Unlock()
				return !slices.ContainsFunc(w.kinds, func(k *kind) bool { return k.live })
			})
			if got := w.uses(); !slices.Equal(got, want) {
				t.Errorf("a moment later: %v", got)
			}
			w.clock.Advance(patience + time.Second)
			if _, err := w.Snapshot(t.Context()); err == nil || !strings.Contains(err.Error(), "no watch of") {
				t.Errorf("half a minute later: %v", err)
			}
			s.put("pods", pod("q", "", corev1.PodSucceeded, ran("b", 10, 11)))
			s.drop("pods", pod("p", "", corev1.PodRunning, runs("a", 5)))
			if expired {
				s.forget()
			}
			s.cut(false)
			w.until("what happened meanwhile", func() bool {
				return len(w.uses()) == 0 && slices.Equal(w.heard(), []string{"container a prod/shop/Pod/p @3631", "container b prod/shop/Pod/q @11"})
			})
		})
	}
}

func TestForbidden(t *testing.T) {
	s := newAPIServer(t, true)
	s.denied = "cronjobs"
	w := look(t, s)
	w.until("why it is not sure", func() bool {
		_, err := w.Snapshot(t.Context())
		return err != nil && strings.Contains(err.Error(), "list cronjobs") && strings.Contains(err.Error(), "forbidden")
	})
}

func TestNewNeedsAName(t *testing.T) {
	if _, err := New(Config{REST: &rest.Config{}}, Deps{}); err == nil {
		t.Error("New without a name succeeded")
	}
}
