package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn.dev/cairn/internal/access"
	"cairn.dev/cairn/internal/api"
	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/serve/servetest"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/work/artifacts"
	"cairn.dev/cairn/internal/work/logs"
	"cairn.dev/cairn/internal/work/worktest"
	"cairn.dev/cairn/internal/workflow/front"
)

// rig is the API over a work server, logs and files, on a clock that stands.
// The test is the worker.
type rig struct {
	t       *testing.T
	url     string
	clock   *clock.Fake
	work    *work.Server
	logs    *logs.Store
	guard   *access.Guard
	secrets map[string]string // of accounts
}

// logKeep is how long logs are kept.
const logKeep = 7 * 24 * time.Hour

func newRig(t *testing.T, open bool) *rig {
	t.Helper()
	r := &rig{t: t, clock: clock.NewFake(servetest.Epoch), secrets: map[string]string{}}
	dir := t.TempDir()
	database := func(name string, schema []string) *db.DB {
		d, err := db.Open(t.Context(), db.Config{Path: filepath.Join(dir, name), Sync: db.Full, Schema: schema})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return d
	}
	log := slog.New(slog.DiscardHandler)
	blobs := &worktest.Blobs{}
	var err error
	r.work, err = work.New(t.Context(), work.Config{Secret: []byte("0123456789abcdef")}, work.Deps{DB: database("work.db", work.Schema), Clock: r.clock, Log: log,
		Blobs: blobs, Compile: front.Again, CompileSchedule: front.ScheduleAgain, Ended: func(id string) { r.logs.Ended(id) }})
	if err != nil {
		t.Fatal(err)
	}
	r.logs, err = logs.Open(t.Context(), logs.Config{Dir: filepath.Join(dir, "logs"), Keep: logKeep}, logs.Deps{Blobs: blobs, Clock: r.clock, Live: r.work.Live})
	if err != nil {
		t.Fatal(err)
	}
	r.guard, err = access.New(t.Context(), access.Config{DB: database("access.db", access.Schema), Open: open, Secret: bytes.Repeat([]byte("k"), 32), Clock: r.clock})
	if err != nil {
		t.Fatal(err)
	}
	handler := api.New(api.Deps{Work: r.work, Logs: r.logs, Artifacts: &files{blobs: blobs, held: map[string][]string{}}, Guard: r.guard, Clock: r.clock, Log: log, Open: open})
	srv := httptest.NewServer(r.guard.Protect(handler))
	r.url = srv.URL
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.work.Run(ctx) }()
	t.Cleanup(func() {
		srv.Close()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the work server ended: %v", err)
		}
		r.work.Close()
		if err := r.logs.Close(); err != nil {
			t.Errorf("close the logs: %v", err)
		}
	})
	return r
}

// account makes one that may do an action on globs.
func (r *rig) account(name string, a access.Action, globs ...string) {
	r.t.Helper()
	_, secret, err := r.guard.Create(r.t.Context(), access.NewAccount{Name: name, Grants: []access.Grant{{Repositories: globs, Actions: []access.Action{a}}}})
	if err != nil {
		r.t.Fatal(err)
	}
	r.secrets[name] = secret
}

func (r *rig) client(as string) *client.Client {
	r.t.Helper()
	c, err := client.New(client.Config{Server: r.url, Token: r.secrets[as]})
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// lease takes tasks as a worker does.
func (r *rig) lease(n int) []task.Lease {
	r.t.Helper()
	g, err := r.work.Work(r.t.Context(), task.Ask{Worker: "w", Want: n, Wait: time.Minute, Pool: work.DefaultPool})
	if err != nil || len(g.Leases) == 0 {
		r.t.Fatalf("no task to be had: %v", err)
	}
	return g.Leases
}

// end reports how a task ended.
func (r *rig) end(l task.Lease, o task.Outcome) {
	r.t.Helper()
	o.Ref = l.Ref
	g, err := r.work.Work(r.t.Context(), task.Ask{Worker: "w", Outcomes: []task.Outcome{o}, Pool: work.DefaultPool})
	if err != nil || len(g.Refused) > 0 {
		r.t.Fatalf("the outcome was not taken: %v %v", g.Refused, err)
	}
}

// prints has a task print lines.
func (r *rig) prints(l task.Lease, stream byte, offset int64, text string) {
	r.t.Helper()
	if _, err := r.logs.Append(r.t.Context(), []task.Frame{{Ref: l.Ref, Stream: stream, Offset: offset, At: r.clock.Now(), Bytes: []byte(text)}}); err != nil {
		r.t.Fatal(err)
	}
}

// files keeps uploads in memory, by the rules of artifacts.
type files struct {
	blobs *worktest.Blobs
	mu    sync.Mutex
	held  map[string][]string // owner -> digests
}

func (f *files) Upload(ctx context.Context, upload string, r io.Reader) (task.Produced, error) {
	if len(upload) != len(artifacts.NewUpload()) {
		return task.Produced{}, fmt.Errorf("%q is no upload: %w", upload, artifacts.ErrInvalid)
	}
	d, n, err := f.blobs.Put(ctx, "", r)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held["upload/"+upload] = append(f.held["upload/"+upload], d)
	return task.Produced{Digest: d, Size: n}, err
}

func (f *files) Adopt(_ context.Context, run, upload string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.held["upload/"+upload] == nil {
		return artifacts.ErrNotFound
	}
	f.held[run] = append(f.held[run], f.held["upload/"+upload]...)
	return nil
}

func (f *files) OpenOf(ctx context.Context, run, digest string) (blob.Reader, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range f.held[run] {
		if d == digest {
			r, err := f.blobs.Open(ctx, digest)
			return sized{r}, err
		}
	}
	return nil, artifacts.ErrNotFound
}

type sized struct{ io.ReadSeekCloser }

func (s sized) Size() int64 {
	n, _ := s.Seek(0, io.SeekEnd)
	_, _ = s.Seek(0, io.SeekStart)
	return n
}

const hello = `apiVersion: cairn.dev/v1alpha1
kind: Workflow
metadata: {name: hello-}
spec:
  inputs: {who: {default: world}, list: {type: file, optional: true}}
  tasks:
  - {name: greet, image: busybox, args: ["hello ${{ inputs.who }}"], outputs: {said: text}}
`

// A run from its submission to its end, as a client sees it.
func TestRunOfOneTask(t *testing.T) {
	r := newRig(t, true)
	c := r.client("")
	s, err := c.Submit(t.Context(), wire.Submission{Document: wire.Document{Name: "hello.yaml", Text: hello}, Args: map[string]string{"who": "you"}, Run: wire.SubmitOptions{Key: "k"}})
	if err != nil || s.Namespace != "default" || !strings.HasPrefix(s.Name, "hello-") {
		t.Fatalf("submitted as %+v: %v", s, err)
	}
	if again, err := c.Submit(t.Context(), wire.Submission{Document: wire.Document{Text: hello}, Run: wire.SubmitOptions{Key: "k"}}); err != nil || again.ID != s.ID {
		t.Errorf("the same key started %+v: %v", again, err)
	}
	l := r.lease(1)[0]
	if run, err := c.Run(t.Context(), s.ID); err != nil || run.Phase != "running" || run.Tasks.Active != 1 || run.Done() || run.By != "open" || run.Pool != "default" {
		t.Errorf("while it runs: %+v, %v", run, err)
	}
	r.prints(l, task.Stdout, 0, "hello you\nand \xff\n")
	r.prints(l, task.Stderr, 16, "hm\n")
	said := "hello you"
	r.end(l, task.Outcome{Phase: task.Succeeded, Isolation: "overlay", Outputs: map[string]task.Produced{"result": {Text: &said}}})
	run, err := c.Run(t.Context(), s.ID)
	if err != nil || run.Phase != "succeeded" || !run.Done() || run.Tasks.Succeeded != 1 || run.Isolation["overlay"] != 1 {
		t.Errorf("in the end: %+v, %v", run, err)
	}
	nodes, err := c.Nodes(t.Context(), s.ID, client.NodeQuery{})
	if err != nil || len(nodes.Nodes) == 0 {
		t.Fatalf("nodes %+v, %v", nodes, err)
	}
	var greet wire.RunNode
	var walk func(list []wire.RunNode)
	walk = func(list []wire.RunNode) {
		for _, n := range list {
			if n.Name == "greet" {
				greet = n
			} else if n.Children {
				below, err := c.Nodes(t.Context(), s.ID, client.NodeQuery{Parent: n.ID})
				if err != nil {
					t.Fatal(err)
				}
				walk(below.Nodes)
			}
		}
	}
	walk(nodes.Nodes)
	if greet.Kind != "task" || greet.Phase != "succeeded" || greet.Outputs != nil {
		t.Errorf("the task is listed as %+v", greet)
	}
	if n, err := c.Node(t.Context(), s.ID, greet.ID); err != nil || n.Outputs["result"] != "hello you" {
		t.Errorf("the task left %+v, %v", n.Outputs, err)
	}
	var lines []string
	if err := c.Logs(t.Context(), s.ID, client.LogQuery{Follow: true}, func(l wire.LogLine) error {
		lines = append(lines, fmt.Sprintf("%s %d %s %s%q", l.Task, l.Attempt, l.Stream, l.Text, l.Bytes))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("%[1]s 1 stdout hello you\"\"\n%[1]s 1 stdout \"and \\xff\"\n%[1]s 1 stderr hm\"\"", greet.ID)
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("the logs are\n%s\nwant\n%s", got, want)
	}
	lines = nil
	if err := c.Logs(t.Context(), s.ID, client.LogQuery{Task: greet.ID, Stream: "stdout", Grep: "^h.l"}, func(l wire.LogLine) error {
		lines = append(lines, l.Text)
		return nil
	}); err != nil || strings.Join(lines, "|") != "hello you" {
		t.Errorf("searched: %q, %v", lines, err)
	}
	if err := c.DeleteRun(t.Context(), s.ID); err != nil {
		t.Error(err)
	}
	if _, err := c.Run(t.Context(), s.ID); err == nil {
		t.Error("a run that was deleted is there")
	}
}

// Files that were handed in belong to the runs that are submitted with them,
// and to no others.
func TestUploads(t *testing.T) {
	r := newRig(t, true)
	c := r.client("")
	const each = `{"apiVersion": "cairn.dev/v1alpha1", "kind": "Workflow", "metadata": {"name": "a"}, "spec": {
		"inputs": {"items": {"type": %q}},
		"tasks": [{"name": "run", "image": "busybox", "forEach": "${{ inputs.items }}", "args": ["${{ item }}"]}]}}`
	u, err := c.Upload(t.Context(), "", strings.NewReader(`["a\nb", "'\"", "👩‍🚀", {"k": 1}]`))
	if err != nil || u.ID == "" || u.Size == 0 {
		t.Fatalf("uploaded as %+v: %v", u, err)
	}
	if _, err := c.Submit(t.Context(), wire.Submission{Document: wire.Document{Text: fmt.Sprintf(each, "file")}, Files: map[string]wire.Upload{"items": u}}); err != nil {
		t.Fatal(err)
	}
	g, err := r.work.Work(t.Context(), task.Ask{Worker: "w", Want: 10, Wait: time.Minute, Pool: work.DefaultPool})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range g.Leases {
		args := g.Bodies[l.Body].Args
		if l.Own != nil && l.Own.Args != nil {
			args = l.Own.Args
		}
		got = append(got, strings.Join(args, "|"))
	}
	if want := []string{"a\nb", "'\"", "👩‍🚀", `{"k":1}`}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the arguments are %q, want %q", got, want)
	}

	// Several files under one id, as a list of files.
	a, err := c.Upload(t.Context(), u.ID, strings.NewReader("one"))
	if err != nil || a.ID != u.ID {
		t.Fatalf("%+v: %v", a, err)
	}
	a.Name, a.Size = "in/a.txt", 1<<40 // which is looked up, not believed
	s, err := c.Submit(t.Context(), wire.Submission{Document: wire.Document{Text: fmt.Sprintf(each, "json")}, FileLists: map[string][]wire.Upload{"items": {a}}})
	if err != nil {
		t.Fatal(err)
	}
	g, err = r.work.Work(t.Context(), task.Ask{Worker: "w", Want: 10, Wait: time.Minute, Pool: work.DefaultPool})
	if err != nil || len(g.Bodies) != 1 || g.Leases[0].Run != s.ID {
		t.Fatalf("%+v: %v", g, err)
	}
	if b := g.Bodies[0]; len(b.Inputs) != 1 || b.Inputs[0].Digest != a.Digest || b.Inputs[0].Size != 3 || b.Args[0] != "/cairn/in/0/a.txt" {
		t.Errorf("the file comes as %+v for %q", b.Inputs, b.Args)
	}

	other, err := c.Upload(t.Context(), "", strings.NewReader("secret"))
	if err != nil {
		t.Fatal(err)
	}
	stolen := wire.Upload{ID: u.ID, Digest: other.Digest}
	for name, sub := range map[string]wire.Submission{
		"a file of another upload":   {Files: map[string]wire.Upload{"items": stolen}},
		"an upload that is not":      {Files: map[string]wire.Upload{"items": {ID: "nothing", Digest: u.Digest}}},
		"not a parameter":            {Files: map[string]wire.Upload{"itmes": u}},
		"a list where a file is due": {FileLists: map[string][]wire.Upload{"items": {u}}},
		"no file at all":             {},
	} {
		sub.Text = fmt.Sprintf(each, "file")
		_, err := c.Submit(t.Context(), sub)
		if p, ok := err.(*wire.Problem); !ok || p.Status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %v, want 422", name, err)
		}
	}
	if _, err := c.Upload(t.Context(), "../../run/x", strings.NewReader("x")); err == nil {
		t.Error("an upload of any name is taken")
	}
}

// A file that a task left comes back as it is.
func TestArtifact(t *testing.T) {
	r := newRig(t, true)
	c := r.client("")
	u, err := c.Upload(t.Context(), "", strings.NewReader("a report"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Submit(t.Context(), wire.Submission{Files: map[string]wire.Upload{"list": u}, Document: wire.Document{Text: strings.Replace(hello, "said: text", "report: {type: file, path: /out/r}", 1)}})
	if err != nil {
		t.Fatal(err)
	}
	l := r.lease(1)[0]
	r.end(l, task.Outcome{Phase: task.Succeeded, Outputs: map[string]task.Produced{"report": {Digest: u.Digest, Size: u.Size}}})
	f, err := c.Artifact(t.Context(), s.ID, l.Task, "report")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := io.ReadAll(f); err != nil || string(b) != "a report" {
		t.Errorf("the file is %q, %v", b, err)
	}
	if _, err := c.Artifact(t.Context(), s.ID, l.Task, "reprot"); err == nil || !strings.Contains(hintOf(err), "report") {
		t.Errorf("another name: %v", err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url+"/api/v1/runs/"+s.ID+"/artifacts/"+l.Task+"/report", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Range", "bytes=2-4")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusPartialContent || string(b) != "rep" || resp.Header.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("a part of it: %s %q %v", resp.Status, b, err)
	}
}

func hintOf(err error) string {
	if p, ok := err.(*wire.Problem); ok {
		return p.Hint
	}
	return ""
}

// send makes a request as it is.
func (r *rig) send(method, path, contentType, as, body string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if s := r.secrets[as]; s != "" {
		req.Header.Set("Authorization", "Bearer "+s)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// Who hands in documents hears of everything that is wrong, with its place.
func TestSubmissionsAreChecked(t *testing.T) {
	r := newRig(t, true)
	quote := func(s string) string {
		b, _ := json.Marshal(s)
		return string(b)
	}
	const cron = "apiVersion: cairn.dev/v1alpha1\nkind: CronWorkflow\nmetadata: {name: c}\nspec:\n  schedules: ['0 3 * * *']\n  workflow: {tasks: [{name: a, image: busybox}]}\n"
	const resource = "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {generateName: r-}\nspec: {entrypoint: m, templates: [{name: m, resource: {action: get, manifest: '{apiVersion: v1, kind: ConfigMap, metadata: {name: x}}'}}]}\n"
	for _, c := range []struct {
		name, path, kind, body string
		status                 int
		wants                  []string
	}{
		{"YAML", "/api/v1/runs?arg=who=x&namespace=team&name=n&pool=p", "application/yaml", hello, 200, []string{`"namespace":"team"`, `"name":"n"`}},
		{"a document in JSON", "/api/v1/runs", "application/json", `{"apiVersion":"cairn.dev/v1alpha1","kind":"Workflow","metadata":{"name":"j"},"spec":{"tasks":[{"name":"a","image":"busybox"}]}}`, 200, []string{`"name":"j"`}},
		{"a submission", "/api/v1/runs", "application/json", `{"text":` + quote(hello) + `,"args":{"who":"x"},"run":{"name":"s"}}`, 200, []string{`"name":"s"`}},
		{"Argo's", "/api/v1/runs", "application/yaml", "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {generateName: a-}\nspec: {entrypoint: m, templates: [{name: m, container: {image: busybox}}]}\n", 200, []string{`"name":"a-`}},
		{"what only a cluster does", "/api/v1/runs?pool=cluster/prod", "application/yaml", resource, 200, []string{`"name":"r-`}},
		{"what only a cluster does, elsewhere", "/api/v1/runs?pool=p", "application/yaml", resource, 422, []string{"resource"}},
		{"two workflows", "/api/v1/runs", "application/yaml", hello + "---\n" + strings.Replace(hello, "hello-", "other", 1), 200, []string{`"name":"hello-`, "these were not: other"}},
		{"a field too many", "/api/v1/runs", "application/json", `{"text":"", "argz":{}}`, 400, []string{"argz"}},
		{"no JSON", "/api/v1/runs", "application/json", `{"text":`, 400, nil},
		{"an argument without a value", "/api/v1/runs?arg=who", "application/yaml", hello, 400, []string{"arg=NAME=VALUE"}},
		{"an unknown argument", "/api/v1/runs?arg=whom=x", "application/yaml", hello, 422, []string{"did you mean who"}},
		{"a mistake", "/api/v1/runs", "application/json", `{"name":"w.yaml","text":` + quote(strings.Replace(hello, "image:", "imgae:", 1)) + `}`, 422, []string{"w.yaml:7:", "imgae", "did you mean image"}},
		{"a schedule", "/api/v1/runs", "application/yaml", cron, 422, []string{"cairn schedules put"}},
		{"nothing", "/api/v1/runs", "application/yaml", "", 422, []string{"no workflow in it"}},
		{"a namespace that is none", "/api/v1/runs?namespace=a/b", "application/yaml", hello, 400, nil},
		{"a form", "/api/v1/runs", "application/x-www-form-urlencoded", hello, 415, nil},
		{"checked", "/api/v1/runs/check", "application/json", `{"name":"w","text":` + quote(hello) + `}`, 200, []string{`"problems":[]`, `"kind":"Workflow"`, "greet"}},
		{"checked, a schedule", "/api/v1/runs/check", "application/json", `{"text":` + quote(cron) + `}`, 200, []string{`"problems":[]`, `"kind":"CronWorkflow"`}},
		{"checked, a mistake", "/api/v1/runs/check", "application/json", `{"name":"w","text":` + quote(strings.Replace(hello, "tasks:", "taks:", 1)) + `}`, 200, []string{`"line":`, "did you mean tasks"}},
	} {
		status, body := r.send(http.MethodPost, c.path, c.kind, "", c.body)
		if status != c.status {
			t.Errorf("%s: %d, want %d: %s", c.name, status, c.status, body)
		}
		for _, w := range c.wants {
			if !strings.Contains(body, w) {
				t.Errorf("%s: the answer lacks %q: %s", c.name, w, body)
			}
		}
	}
	if status, body := r.send(http.MethodPost, "/api/v1/runs", "application/yaml", "", strings.Repeat("#", 33<<20)); status != http.StatusRequestEntityTooLarge {
		t.Errorf("33 MiB: %d %.200s", status, body)
	}
}
