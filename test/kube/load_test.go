package kube_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"cairn.dev/cairn/internal/kube/controller"
	"cairn.dev/cairn/internal/kube/crd"
	"cairn.dev/cairn/test/cluster"
)

// meter looks at every request of the controller, and spoils some.
type meter struct {
	mu       sync.Mutex
	next     http.RoundTripper
	requests int
	writes   map[string][]time.Time // by path
	spoil    func(n int, r *http.Request) (answer *http.Response, before, after error)
	n        int
}

func (m *meter) wrap(next http.RoundTripper) http.RoundTripper {
	m.next = next
	return m
}

func (m *meter) RoundTrip(r *http.Request) (*http.Response, error) {
	m.mu.Lock()
	m.requests++
	var after error
	if r.Method != http.MethodGet {
		m.writes[r.URL.Path] = append(m.writes[r.URL.Path], time.Now())
		if m.spoil != nil {
			m.n++
			answer, before, later := m.spoil(m.n, r)
			if before != nil || answer != nil {
				m.mu.Unlock()
				return answer, before
			}
			after = later
		}
	}
	m.mu.Unlock()
	resp, err := m.next.RoundTrip(r)
	if err == nil && after != nil {
		resp.Body.Close()
		return nil, after
	}
	return resp, err
}

// count is how many writes there were in all, and the most to one object.
func (m *meter) count() (all, most int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.writes {
		all += len(l)
		most = max(most, len(l))
	}
	return all, most
}

// hasty says which objects were written to more than once a second.
func (m *meter) hasty() (out []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for path, l := range m.writes {
		for i := 1; i < len(l); i++ {
			if d := l[i].Sub(l[i-1]); d < 900*time.Millisecond { // of the moment of sending
				out = append(out, fmt.Sprintf("%s: %s", path, d))
			}
		}
	}
	return out
}

func (m *meter) total() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.requests
}

func metered(t *testing.T) (*world, *meter) {
	t.Helper()
	m := &meter{writes: map[string][]time.Time{}}
	w := newWorld(t, cluster.Options{}, func(c *controller.Config) { c.REST.WrapTransport = m.wrap })
	return w, m
}

// api talks to the cluster as its administrator, without kubectl's costs.
func (w *world) api() dynamic.NamespaceableResourceInterface {
	w.t.Helper()
	api, err := dynamic.NewForConfig(&rest.Config{Host: w.cluster.Server, BearerToken: w.cluster.Token, TLSClientConfig: trust(w.t, w.cluster), QPS: -1})
	if err != nil {
		w.t.Fatal(err)
	}
	return api.Resource(schema.GroupVersionResource{Group: crd.Group, Version: crd.Version, Resource: "workflows"})
}

func (w *world) create(n int, name, words string) {
	w.t.Helper()
	api := w.api().Namespace("default")
	var wg sync.WaitGroup
	turns := make(chan struct{}, 16)
	for i := range n {
		turns <- struct{}{}
		wg.Go(func() {
			defer func() { <-turns }()
			u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "cairn.dev/v1alpha1", "kind": "Workflow",
				"metadata": map[string]any{"name": fmt.Sprintf("%s-%d", name, i)},
				"spec":     map[string]any{"tasks": []any{map[string]any{"name": "a", "image": "alpine", "command": []any{"echo", words}}}}}}
			if _, err := api.Create(w.t.Context(), u, metav1.CreateOptions{}); err != nil {
				w.t.Error(err)
			}
		})
	}
	wg.Wait()
}

// phases counts workflows by their phase, and takes its time: to list a thousand
// of them is work for the API server.
func (w *world) phases() map[string]int {
	w.t.Helper()
	time.Sleep(250 * time.Millisecond)
	l, err := w.api().List(w.t.Context(), metav1.ListOptions{})
	if err != nil {
		return map[string]int{err.Error(): 1}
	}
	out := map[string]int{}
	for _, u := range l.Items {
		phase, _, _ := unstructured.NestedString(u.Object, "status", "phase")
		out[phase]++
	}
	return out
}

// A thousand workflows at once all end, for at most three writes each.
func TestThousand(t *testing.T) {
	t.Parallel()
	w, m := metered(t)
	w.start()
	begin := time.Now()
	w.create(1000, "many", "hello")
	made := time.Since(begin)
	w.until("all have succeeded", func() (string, bool) {
		p := w.phases()
		return fmt.Sprint(p), p["Succeeded"] == 1000
	})
	all, most := m.count()
	t.Logf("1,000 workflows: made in %s, all told in %s; %d writes of the controller, at most %d to one object", made.Round(time.Millisecond), time.Since(begin).Round(time.Millisecond), all, most)
	if all > 3000 || most > 4 {
		t.Errorf("%d writes, at most 3,000 are allowed", all)
	}
	if h := m.hasty(); len(h) > 0 {
		t.Errorf("written to more than once a second: %v", h[:min(3, len(h))])
	}
	if err := w.api().Namespace("default").DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	runs, _, err := w.server.Runs(t.Context(), allRuns, "", 1000)
	if err != nil || len(runs) != 1000 {
		t.Errorf("%d runs, want 1,000: %v", len(runs), err)
	}
}

// Whatever the size of a fan-out, an object is small and seldom written to.
func TestLargeFan(t *testing.T) {
	t.Parallel()
	w, m := metered(t)
	definitions(t, w.cluster, crd.Argo()...)
	w.start()
	begin := time.Now()
	w.cluster.Apply("apiVersion: cairn.dev/v1alpha1\nkind: Workflow\nmetadata: {name: fan}\nspec: {tasks: [{name: a, image: alpine, command: [echo, hello], forEach: {count: 100000}}, {name: b, image: alpine, command: [echo, fail], forEach: {count: 1000}}]}\n")
	w.cluster.Apply(`
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {name: fan}
spec:
  entrypoint: main
  templates:
  - name: main
    dag:
      tasks:
      - {name: a, template: say, withSequence: {count: "100000"}}
  - name: say
    container: {image: alpine, command: [echo, "{{workflow.name}}"]}
`)
	w.reads("wf/fan", ".status.phase", "Failed")
	w.reads("wf/fan", ".status.counts.succeeded", "100000") // and after the first failures no more of b was begun
	w.reads("workflows.argoproj.io/fan", ".status.progress", "100000/100000")
	w.reads("workflows.argoproj.io/fan", ".status.phase", "Succeeded")
	took := time.Since(begin)
	for _, o := range []string{"wf/fan", "workflows.argoproj.io/fan"} {
		var u struct{ Status json.RawMessage }
		if err := json.Unmarshal([]byte(w.cluster.Kubectl("get", o, "-o", "json")), &u); err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if err := json.NewEncoder(&b).Encode(u.Status); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: a status of %d bytes", o, b.Len())
		if b.Len() > controller.MaxStatus {
			t.Errorf("the status of %s has %d bytes, at most %d", o, b.Len(), controller.MaxStatus)
		}
	}
	all, most := m.count()
	t.Logf("201,000 tasks in %s: %d writes of the controller, at most %d to one object", took.Round(time.Millisecond), all, most)
	if limit := int(took/time.Second) + 3; most > limit {
		t.Errorf("%d writes to one object in %s", most, took)
	}
	if h := m.hasty(); len(h) > 0 {
		t.Errorf("written to more than once a second: %v", h[:min(3, len(h))])
	}
}

// An API server that has too much to do, that fails, and whose answers get
// lost: every object ends with the truth, and is one run.
func TestSpoiled(t *testing.T) {
	t.Parallel()
	w, m := metered(t)
	m.spoil = func(n int, r *http.Request) (answer *http.Response, before, after error) {
		reply := func(code int, reason, more string) *http.Response {
			body := fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":%q,"code":%d%s}`, reason, code, more)
			h := http.Header{"Content-Type": {"application/json"}}
			if code == http.StatusTooManyRequests {
				h.Set("Retry-After", "1")
			}
			return &http.Response{StatusCode: code, Status: http.StatusText(code), Header: h, Body: io.NopCloser(strings.NewReader(body)), Request: r, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
		}
		switch n % 7 {
		case 0:
			return reply(http.StatusTooManyRequests, "TooManyRequests", `,"details":{"retryAfterSeconds":1}`), nil, nil
		case 2:
			return reply(http.StatusInternalServerError, "InternalError", ""), nil, nil
		case 4:
			return nil, errors.New("the connection was cut"), nil
		case 6:
			return nil, nil, errors.New("the answer was lost")
		}
		return nil, nil, nil
	}
	w.start()
	w.create(100, "some", "hello")
	w.create(20, "bad", "fail")
	w.until("all have ended", func() (string, bool) {
		p := w.phases()
		return fmt.Sprint(p), p["Succeeded"] == 100 && p["Failed"] == 20
	})
	runs, _, err := w.server.Runs(t.Context(), allRuns, "", 1000)
	if err != nil || len(runs) != 120 {
		t.Errorf("%d runs, want 120: %v", len(runs), err)
	}
	all, _ := m.count()
	t.Logf("120 workflows: %d writes, four of seven spoiled", all)
}

// While the API server is away runs go on, and it is asked with patience; when
// it is back, objects tell what happened, and what was wanted meanwhile is done.
func TestAway(t *testing.T) {
	t.Parallel()
	w, m := metered(t)
	w.start()
	c := w.cluster
	c.Apply(workflow("ends", "hang") + "---\n" + workflow("goes", "hang"))
	c.Kubectl("wait", "--for=condition=Running", "--timeout=30s", "wf/ends", "wf/goes")
	ends, goes := w.run("wf/ends").ID, w.run("wf/goes").ID
	ctx := context.Background()
	if err := c.Stop(ctx, 0, "kube-apiserver"); err != nil {
		t.Fatal(err)
	}
	before := m.total()
	if err := w.server.Cancel(ctx, ends, "ann", true); err != nil {
		t.Fatal(err)
	}
	w.runPhase(ends, "canceled")
	time.Sleep(10 * time.Second) // what is measured is how often it is asked in this time
	asked := m.total() - before
	t.Logf("asked %d times in 10 s without an API server", asked)
	if asked > 150 {
		t.Errorf("asked %d times in 10 s", asked)
	}
	if err := c.Run(ctx, 0, "kube-apiserver"); err != nil {
		t.Fatal(err)
	}
	if err := c.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	c.Kubectl("delete", "wf/goes", "--wait=false")
	c.Apply(workflow("comes", "hello"))
	w.reads("wf/ends", ".status.phase", "Canceled")
	c.Kubectl("wait", "--for=condition=Succeeded", "--timeout=60s", "wf/comes")
	w.runPhase(goes, "canceled")
}
