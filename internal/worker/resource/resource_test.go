package resource

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/worker"
)

const (
	maps1 = "/api/v1/namespaces/mine/configmaps/"
	jobs1 = "/apis/batch/v1/namespaces/mine/jobs/"
)

// job is the task of a request, and what it printed.
type job struct {
	worker.Job
	mu   sync.Mutex
	said strings.Builder
}

func (j *job) printed() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.said.String()
}

func jobOf(r task.Resource) *job {
	j := &job{}
	j.Job = worker.Job{Lease: task.Lease{Ref: task.Ref{Run: "r1", Task: "3", Attempt: 1}, Key: "r1/3"}, Task: task.Task{Resource: &r}}
	j.Print = func(_ byte, b []byte) {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.said.Write(b)
	}
	return j
}

func (c *cluster) run(t *testing.T, r task.Resource) (task.Outcome, string) {
	t.Helper()
	j := jobOf(r)
	o := New(c.account(), nil, quickly()).Run(t.Context(), 0, j.Job)
	return o, j.printed()
}

func configMap(name, more string) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": %q}%s}`, name, more))
}

// Each action does what it says to the API server, in the form that it takes.
func TestActions(t *testing.T) {
	c := serve(t)
	c.put(maps1+"there", object{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "there", "labels": map[string]any{"a": "b"}}, "data": map[string]any{"x": "1"}})
	for _, s := range []struct {
		name  string
		r     task.Resource
		says  string // what is printed or, where it fails, the message
		ok    bool
		asked string // a part of what was asked last but for gets
		form  string // of what was sent last
		check func() bool
	}{
		{"create", task.Resource{Action: "create", Manifest: configMap("new", `, "data": {"k": "v"}`)}, "configmaps new in namespace mine created", true,
			"POST /api/v1/namespaces/mine/configmaps?fieldManager=cairn&fieldValidation=Strict", "application/json",
			func() bool {
				return at(c.objects[maps1+"new"], "data", "k") == "v" && at(c.objects[maps1+"new"], "metadata", "annotations", Annotation) == "r1/3/0"
			}},
		{"create what is there", task.Resource{Action: "create", Manifest: configMap("there", "")}, "create configmaps there in namespace mine: there already exists (409)", false, "POST", "application/json", nil},
		{"create in another namespace", task.Resource{Action: "create", Namespace: "yours", Lenient: true, Manifest: configMap("new", "")}, "in namespace yours created", true, "POST /api/v1/namespaces/yours/configmaps?fieldManager=cairn&fieldValidation=Ignore", "", nil},
		{"create a namespace", task.Resource{Action: "create", Manifest: json.RawMessage(`{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}`)}, "namespaces n created", true, "POST /api/v1/namespaces?", "", nil},
		{"two namespaces", task.Resource{Action: "create", Namespace: "yours", Manifest: json.RawMessage(`{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "n", "namespace": "mine"}}`)}, "namespace mine, and namespace yours", false, "", "", nil},
		{"get", task.Resource{Action: "get", Manifest: configMap("there", "")}, "", true, "GET " + maps1 + "there", "", nil},
		{"get what is not there", task.Resource{Action: "get", Manifest: configMap("gone", "")}, "get configmaps gone in namespace mine: gone not found (404)", false, "GET", "", nil},
		{"get what may be there", task.Resource{Action: "get", Manifest: configMap("gone", ""), Missing: true}, "is not there", true, "GET", "", nil},
		{"get by words", task.Resource{Action: "get", Kind: "cm", Name: "there"}, "", true, "GET " + maps1 + "there", "", nil},
		{"get by a kind of a group", task.Resource{Action: "get", Kind: "Jobs.batch", Name: "x"}, "x not found", false, "GET " + jobs1 + "x", "", nil},
		{"get by a kind", task.Resource{Action: "get", Kind: "job", Name: "x"}, "x not found", false, "GET " + jobs1 + "x", "", nil},
		{"no such word", task.Resource{Action: "get", Kind: "widget", Name: "x"}, "the cluster has no kind widget", false, "", "", nil},
		{"no such kind", task.Resource{Action: "get", Manifest: json.RawMessage(`{"apiVersion": "example.org/v1", "kind": "Widget", "metadata": {"name": "x"}}`)}, "the cluster has no kind Widget of example.org/v1: is its CustomResourceDefinition there?", false, "", "", nil},
		{"apply", task.Resource{Action: "apply", Manifest: configMap("applied", `, "data": {"k": "v"}`)}, "configmaps applied in namespace mine applied", true,
			"PATCH " + maps1 + "applied?fieldManager=cairn&fieldValidation=Strict&force=true", "application/apply-patch+yaml", func() bool { return at(c.objects[maps1+"applied"], "data", "k") == "v" }},
		{"patch", task.Resource{Action: "patch", Manifest: configMap("there", `, "data": {"x": "2"}`)}, "configmaps there in namespace mine patched", true, "PATCH " + maps1 + "there?", "application/strategic-merge-patch+json",
			func() bool { return at(c.objects[maps1+"there"], "data", "x") == "2" }},
		{"merge patch", task.Resource{Action: "patch", Patch: "merge", Kind: "configmap", Name: "there", Manifest: json.RawMessage(`{"data": {"x": "3"}}`)}, "patched", true, "PATCH", "application/merge-patch+json",
			func() bool { return at(c.objects[maps1+"there"], "data", "x") == "3" }},
		{"json patch", task.Resource{Action: "patch", Patch: "json", Kind: "configmap", Name: "there", Manifest: json.RawMessage(`[{"op": "add", "path": "/data/y", "value": "1"}]`)}, "patched", true, "PATCH", "application/json-patch+json", nil},
		{"patch a part", task.Resource{Action: "patch", Subresource: "status", Manifest: configMap("there", "")}, "status not found", false, "PATCH " + maps1 + "there/status?", "", nil},
		{"patch of no type", task.Resource{Action: "patch", Patch: "odd", Manifest: configMap("there", "")}, "strategic, merge and json", false, "", "", nil},
		{"replace", task.Resource{Action: "replace", Manifest: configMap("there", `, "data": {"z": "1"}`)}, "configmaps there in namespace mine replaced", true, "PUT " + maps1 + "there?", "application/json",
			func() bool { return at(c.objects[maps1+"there"], "data", "x") == "" }},
		{"replace what is not there", task.Resource{Action: "replace", Manifest: configMap("gone", "")}, "gone not found", false, "GET", "", nil},
		{"delete", task.Resource{Action: "delete", Manifest: configMap("applied", "")}, "configmaps applied in namespace mine deleted", true, "DELETE " + maps1 + "applied", "application/json",
			func() bool { return c.objects[maps1+"applied"] == nil }},
		{"delete what is not there", task.Resource{Action: "delete", Manifest: configMap("gone", "")}, "is not there", true, "DELETE", "", nil},
		{"delete by a selector", task.Resource{Action: "delete", Kind: "configmap", Selector: "cleanup=true"}, "one in namespace mine deleted", true, "GET", "", func() bool {
			return c.objects[maps1+"one"] == nil && c.objects[maps1+"two"] == nil && c.objects[maps1+"there"] != nil
		}},
		{"delete oddly", task.Resource{Action: "delete", Propagation: "odd", Manifest: configMap("there", "")}, "background, foreground and orphan", false, "", "", nil},
		{"no action", task.Resource{Action: "frobnicate", Manifest: configMap("there", "")}, "there are get, create", false, "", "", nil},
		{"a list", task.Resource{Action: "create", Manifest: json.RawMessage(`{"apiVersion": "v1", "kind": "List", "items": []}`)}, "a task deals with one object", false, "", "", nil},
		{"no kind", task.Resource{Action: "create", Manifest: json.RawMessage(`{"metadata": {"name": "x"}}`)}, "apiVersion and kind", false, "", "", nil},
		{"no name", task.Resource{Action: "apply", Manifest: json.RawMessage(`{"apiVersion": "v1", "kind": "ConfigMap"}`)}, "write metadata.name", false, "", "", nil},
		{"a name that is a path", task.Resource{Action: "get", Manifest: configMap("../../secrets/x", "")}, "no name of an object", false, "", "", nil},
		{"a namespace that is a path", task.Resource{Action: "get", Namespace: "../x", Manifest: configMap("x", "")}, "no name of an object", false, "", "", nil},
		{"no object", task.Resource{Action: "create", Manifest: json.RawMessage(`"text"`)}, "no object", false, "", "", nil},
		{"a bad condition", task.Resource{Action: "get", Success: "a ~ b", Manifest: configMap("there", "")}, "condition", false, "", "", nil},
		{"too large", task.Resource{Action: "create", Manifest: configMap("big", `, "data": {"x": "`+strings.Repeat("x", task.MaxManifest)+`"}`)}, "at most 1048576", false, "", "", nil},
	} {
		t.Run(s.name, func(t *testing.T) {
			if s.r.Selector != "" {
				for _, n := range []string{"one", "two"} {
					c.set(maps1+n, object{"metadata": map[string]any{"name": n, "labels": map[string]any{"cleanup": "true"}}})
				}
			}
			c.asked = nil
			o, said := c.run(t, s.r)
			if (o.Phase == task.Succeeded) != s.ok || !strings.Contains(said, s.says) || !s.ok && !strings.Contains(o.Message, s.says) {
				t.Errorf("%+v, said %q; want %q", o, said, s.says)
			}
			if !s.ok && (o.Phase != task.Failed || o.Exit != 1 || o.Infrastructure) {
				t.Errorf("it failed as %+v", o)
			}
			if s.asked != "" && !slices.ContainsFunc(c.asked, func(a string) bool { return strings.HasPrefix(a, s.asked) }) {
				t.Errorf("asked %q, want %q", c.asked, s.asked)
			}
			if s.form != "" && c.forms[strings.Fields(s.asked)[0]] != s.form {
				t.Errorf("sent as %q, want %q", c.forms, s.form)
			}
			if s.check != nil && !s.check() {
				t.Errorf("the objects are %v", c.objects)
			}
		})
	}
}

// What may not be done is said with the right that is missing.
func TestForbidden(t *testing.T) {
	c := serve(t)
	words := `configmaps is forbidden: User "system:serviceaccount:mine:plain" cannot create resource "configmaps" in API group "" in the namespace "mine"`
	c.first = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost {
			return false
		}
		refuse(w, 403, "Forbidden", words)
		return true
	}
	o, _ := c.run(t, task.Resource{Action: "create", Manifest: configMap("x", "")})
	if o.Phase != task.Failed || !strings.Contains(o.Message, words) || !strings.Contains(o.Message, "RoleBinding") {
		t.Errorf("%+v", o)
	}
}

// Attempts of one try make one object, whatever became of the earlier ones; the
// next try makes another.
func TestOnce(t *testing.T) {
	c := serve(t)
	r := task.Resource{Action: "create", Manifest: json.RawMessage(`{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "made-"}}`)}
	lost := false
	c.lost = func(r *http.Request) bool { // the answer to the first one is lost
		was := lost
		lost = lost || r.Method == http.MethodPost
		return r.Method == http.MethodPost && !was
	}
	for range 3 {
		if o, said := c.run(t, r); o.Phase != task.Succeeded {
			t.Fatalf("%+v, said %s", o, said)
		}
	}
	if len(c.objects) != 1 {
		t.Errorf("%d objects were made: %v", len(c.objects), c.objects)
	}
	r.Try = 1
	if o, said := c.run(t, r); o.Phase != task.Succeeded || len(c.objects) != 2 {
		t.Errorf("%+v, said %s; %d objects", o, said, len(c.objects))
	}
	for at := range c.objects {
		if name := filepath.Base(at); !strings.HasPrefix(name, "made-") || len(name) != len("made-")+8 {
			t.Errorf("an object is called %s", name)
		}
	}
}

// An API server that is away or wants to be left alone is waited for, as long as
// it says, and not for ever.
func TestPatience(t *testing.T) {
	c := serve(t)
	c.put(maps1+"there", object{"metadata": map[string]any{"name": "there"}})
	fail := func(code, times int, after string) func(http.ResponseWriter, *http.Request) bool {
		var n atomic.Int64
		return func(w http.ResponseWriter, r *http.Request) bool {
			if n.Add(1) > int64(times) {
				return false
			}
			if code == 0 {
				panic(http.ErrAbortHandler)
			}
			w.Header().Set("Retry-After", after)
			refuse(w, code, "", "later")
			return true
		}
	}
	for _, s := range []struct {
		code, times int
		after       string
		ok          bool
	}{{429, 5, "7", true}, {503, 5, "", true}, {0, 5, "", true}, {500, 2, "", true}, {500, 1000, "", false}, {503, 1000, "30", false}, {0, 1000, "", false}} {
		t.Run(fmt.Sprint(s.code, s.times), func(t *testing.T) {
			c.first = fail(s.code, s.times, s.after)
			clk := quickly()
			begun := clk.Mono()
			j := jobOf(task.Resource{Action: "get", Manifest: configMap("there", "")})
			o := New(c.account(), nil, clk).Run(t.Context(), 0, j.Job)
			took := clk.Mono() - begun
			if (o.Phase == task.Succeeded) != s.ok {
				t.Errorf("%+v after %v", o, took)
			}
			if !s.ok && (!o.Infrastructure || o.Phase != task.Errored || took > patience) {
				t.Errorf("it is given up as %+v after %v", o, took)
			}
			if s.after == "7" && took < 35*time.Second {
				t.Errorf("it asked again after %v", took)
			}
		})
	}
}

// A condition ends the wait as soon as it is met, however that is learned.
func TestConditions(t *testing.T) {
	manifest := json.RawMessage(`{"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}}`)
	at := jobs1 + "j"
	// no watch: something else is answered, after the object has changed.
	no := func(what string) func(c *cluster) {
		return func(c *cluster) {
			c.first = func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Query().Get("watch") == "" {
					return false
				}
				c.set(at, object{"status": map[string]any{"succeeded": 1}})
				switch what {
				case "watch":
					refuse(w, 403, "Forbidden", "no watch")
				case "version":
					_, _ = w.Write([]byte(`{"type": "ERROR", "object": {"code": 410}}` + "\n"))
				case "server":
					panic(http.ErrAbortHandler)
				}
				return true
			}
		}
	}
	for _, s := range []struct {
		name             string
		success, failure string
		before           func(c *cluster)
		change           []object // one after the other, when somebody watches
		phase            task.Phase
		says             string
	}{
		{"met at once", "metadata.name == j", "", nil, nil, task.Succeeded, ""},
		{"failure only", "", "status.failed > 0", nil, nil, task.Succeeded, ""},
		{"met later", "status.succeeded > 0, status.phase != X", "status.failed > 3", nil, []object{{"active": 1}, {"failed": 1}, {"succeeded": 1}}, task.Succeeded, ""},
		{"fails", "status.succeeded > 0", "status.failed > 1", nil, []object{{"failed": 1}, {"failed": 2}}, task.Failed, "jobs.batch j in namespace mine failed: status.failed > 1"},
		{"no watch", "status.succeeded > 0", "", no("watch"), nil, task.Succeeded, ""},
		{"old version", "status.succeeded > 0", "", no("version"), nil, task.Succeeded, ""},
		{"server restarts", "status.succeeded > 0", "", no("server"), nil, task.Succeeded, ""},
	} {
		t.Run(s.name, func(t *testing.T) {
			c := serve(t)
			if s.before != nil {
				s.before(c)
			}
			j := jobOf(task.Resource{Action: "create", Manifest: manifest, Success: s.success, Failure: s.failure})
			j.Task.Outputs = []task.Output{{Name: task.Object, Kind: task.Object}}
			done := make(chan task.Outcome, 1)
			go func() { done <- New(c.account(), nil, quickly()).Run(t.Context(), 0, j.Job) }()
			for _, x := range s.change {
				c.watched(t)
				c.set(at, object{"status": map[string]any(x)})
			}
			o := <-done
			if o.Phase != s.phase || !strings.Contains(o.Message, s.says) {
				t.Errorf("%+v, said %s", o, j.printed())
			}
			if p := o.Outputs[task.Object].Text; s.phase == task.Succeeded && (p == nil || !strings.Contains(*p, `"name":"j"`) || strings.Contains(*p, "managedFields")) {
				t.Errorf("the object is %v", o.Outputs)
			}
		})
	}
}

// What ends a wait besides its conditions.
func TestEnds(t *testing.T) {
	for name, s := range map[string]struct {
		end   func(c *cluster, clk *clock.Fake, cancel context.CancelCauseFunc)
		phase task.Phase
		says  string
	}{
		"deleted": {func(c *cluster, _ *clock.Fake, _ context.CancelCauseFunc) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.tell("DELETED", c.objects[maps1+"x"])
		}, task.Failed, "was deleted while it was waited for"},
		"timeout": {func(_ *cluster, clk *clock.Fake, _ context.CancelCauseFunc) { clk.Advance(time.Minute) }, task.Failed,
			"killed: it ran longer than its timeout of 1m0s; configmaps x in namespace mine did not meet data.y == 1"},
		"canceled": {func(_ *cluster, _ *clock.Fake, cancel context.CancelCauseFunc) { cancel(worker.ErrCanceled) }, task.Canceled, "canceled"},
		"stopped":  {func(_ *cluster, _ *clock.Fake, cancel context.CancelCauseFunc) { cancel(worker.ErrStopped) }, task.Errored, "told to end"},
	} {
		t.Run(name, func(t *testing.T) {
			c := serve(t)
			clk := clock.NewFake(time.Unix(1_800_000_000, 0))
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			j := jobOf(task.Resource{Action: "create", Manifest: configMap("x", ""), Success: "data.y == 1"})
			j.Task.Timeout = time.Minute
			done := make(chan task.Outcome, 1)
			go func() { done <- New(c.account(), nil, clk).Run(ctx, 0, j.Job) }()
			c.watched(t)
			s.end(c, clk, cancel)
			if o := <-done; o.Phase != s.phase || !strings.Contains(o.Message, s.says) {
				t.Errorf("%+v, said %s", o, j.printed())
			}
		})
	}
}

// Outputs are read from the object as it is at the end.
func TestRead(t *testing.T) {
	c := serve(t)
	c.put(maps1+"there", object{"metadata": map[string]any{"name": "there"}, "data": map[string]any{"n": 12345678, "text": "hello", "list": []any{"a", "b"}}})
	none := "none"
	r := task.Resource{Action: "get", Manifest: configMap("there", ""), Read: map[string]task.Reading{
		"path": {Path: "{.data.text} {.data.n}"}, "gone": {Path: "{.gone}"}, "or": {Path: "{.gone}", Default: &none}, "own": {Path: "{.metadata.managedFields}"},
		"text": {Filter: ".data.text"}, "lines": {Filter: ".data.list[]"}, "json": {Filter: "{n: .data.n, l: .data.list}"}, "bad": {Filter: ".data.text[]", Default: &none}}}
	o, said := c.run(t, r)
	if o.Phase != task.Succeeded {
		t.Fatalf("%+v, said %s", o, said)
	}
	for name, want := range map[string]string{"path": "hello 12345678", "gone": "", "or": "none", "own": "", "text": "hello", "lines": "a\nb", "json": `{"l":["a","b"],"n":12345678}`, "bad": "none"} {
		if got := o.Outputs[name].Text; got == nil || *got != want {
			t.Errorf("%s is %v, want %q", name, got, want)
		}
	}
	for text, says := range map[string]string{".data.text[]": "output x: jq:", "def": "jq:", "error(\"no\")": "no", "\"x\" * 3e6": "more than"} {
		r.Read = map[string]task.Reading{"x": {Filter: text}}
		if o, _ := c.run(t, r); o.Phase != task.Failed || !strings.Contains(o.Message, says) {
			t.Errorf("%s: %+v", text, o)
		}
	}
	r = task.Resource{Action: "delete", Manifest: configMap("there", ""), Read: map[string]task.Reading{"x": {Path: "{.a}"}, "y": {Filter: ".", Default: &none}}}
	if o, _ = c.run(t, r); o.Phase != task.Succeeded || *o.Outputs["x"].Text != "" || *o.Outputs["y"].Text != "none" {
		t.Errorf("of what was deleted: %+v", o)
	}
}

func TestOwner(t *testing.T) {
	c := serve(t)
	o, _ := c.run(t, task.Resource{Action: "create", Manifest: configMap("x", ""), Owner: &task.Owner{APIVersion: "cairn.dev/v1alpha1", Kind: "Workflow", Name: "w", UID: "u-1"}})
	refs, _ := json.Marshal(c.objects[maps1+"x"]["metadata"].(map[string]any)["ownerReferences"])
	if want := `[{"apiVersion":"cairn.dev/v1alpha1","kind":"Workflow","name":"w","uid":"u-1"}]`; o.Phase != task.Succeeded || string(refs) != want {
		t.Errorf("%+v; the owners are %s", o, refs)
	}
}

func TestProgram(t *testing.T) {
	o := New(serve(t).account(), nil, quickly()).Run(t.Context(), 0, worker.Job{Task: task.Task{Image: "busybox"}})
	if o.Phase != task.Errored || !strings.Contains(o.Message, "runs no programs") {
		t.Errorf("%+v", o)
	}
}

// The files of an account are read when they are needed.
func TestInCluster(t *testing.T) {
	dir := t.TempDir()
	env := []string{"PATH=/bin", "KUBERNETES_SERVICE_HOST=::1", "KUBERNETES_SERVICE_PORT=6443"}
	if _, err := InCluster(env[:1], dir); err == nil || !strings.Contains(err.Error(), "no pod") {
		t.Errorf("outside of a cluster: %v", err)
	}
	if _, err := InCluster(env, dir); err == nil {
		t.Error("an account without files")
	}
	s := serveTLS(t, dir)
	for name, text := range map[string]string{"namespace": "mine\n", "token": "one\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a, err := InCluster(env, dir)
	if err != nil {
		t.Fatal(err)
	}
	if a.URL != "https://[::1]:6443" || a.Namespace != "mine" {
		t.Errorf("the account is %+v", a)
	}
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.URL = s
	j := jobOf(task.Resource{Action: "get", Manifest: configMap("x", ""), Missing: true})
	if o := New(a, nil, quickly()).Run(t.Context(), 0, j.Job); o.Phase != task.Succeeded {
		t.Errorf("%+v", o)
	}
}
