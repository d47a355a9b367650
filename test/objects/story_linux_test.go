package objects_test

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/test/machine"
)

// outcome runs a document to its end.
func outcome(t *testing.T, c *client.Client, document string) string {
	t.Helper()
	ctx, end := context.WithTimeout(t.Context(), 2*time.Minute)
	defer end()
	s, err := c.Submit(ctx, wire.Submission{Document: wire.Document{Name: "story.yaml", Text: document}})
	if err != nil {
		t.Fatal(err)
	}
	for {
		r, err := c.Run(ctx, s.ID)
		if err != nil {
			t.Fatal(err)
		}
		if r.Done() {
			var said strings.Builder
			if err := c.Logs(ctx, s.ID, client.LogQuery{}, func(l wire.LogLine) error {
				fmt.Fprintf(&said, "%s: %s\n", l.Task, l.Text)
				return nil
			}); err != nil {
				t.Error(err)
			}
			return fmt.Sprintf("%s %s\n%s", r.Phase, r.Message, &said)
		}
		if err := clock.Sleep(ctx, clock.Real(), 50*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// The flow for which all of this was made: list, one task a file, a sum; from an
// object store and from a folder. And Argo's artifacts, in and out.
func TestStories(t *testing.T) {
	dir := t.TempDir()
	store, folder := filepath.Join(dir, "store"), filepath.Join(dir, "folder")
	for i := range 5 {
		write(t, filepath.Join(store, "data/logs", fmt.Sprintf("%d.log", i)), strings.Repeat("line\n", i+1))
		write(t, filepath.Join(folder, fmt.Sprintf("%d.log", i)), strings.Repeat("line\n", 10*(i+1)))
	}
	write(t, filepath.Join(store, "data/logs/other.txt"), "no log\n")
	packed, err := os.Create(filepath.Join(store, "data/in.tgz"))
	if err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(packed)
	w := tar.NewWriter(z)
	for _, name := range []string{"a", "b"} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: 2, Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, name+"\n")
	}
	w.Close()
	z.Close()
	packed.Close()
	repo := filepath.Join(folder, "repo")
	write(t, filepath.Join(repo, "README"), "read me\n")
	for _, args := range [][]string{{"init", "-q", "-b", "main"}, {"add", "-A"}, {"-c", "user.name=a", "-c", "user.email=a@x", "commit", "-q", "-m", "x"}} {
		cmd := exec.Command("git", args...)
		cmd.Dir = repo
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v %s", args, err, out)
		}
	}
	backend, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	web := http.NewServeMux()
	web.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "from the web\n") })
	web.Handle("/repo/", &cgi.Handler{Path: filepath.Join(strings.TrimSpace(string(backend)), "git-http-backend"), Env: []string{"GIT_PROJECT_ROOT=" + folder, "GIT_HTTP_EXPORT_ALL=1"}})
	site := httptest.NewServer(web)
	defer site.Close()
	endpoint := gateway(t, store)
	secret := filepath.Join(dir, "secret")
	write(t, secret, "s3cret-key\n")
	c := machine.Start(t, func(w *config.Work) {
		w.Slots = 4
		w.Folders = []string{folder}
		w.Secrets = []config.WorkSecret{{Name: "store", Username: "id", File: secret}}
	})

	for from, want := range map[string]string{
		`{s3: "s3://data/logs/?region=eu-1&secret=store&endpoint=` + endpoint + `", match: "*.log"}`: "15",
		`{files: "` + folder + `", match: "*.log"}`:                                                  "150",
	} {
		got := outcome(t, c, `apiVersion: cairn.dev/v1alpha1
kind: Workflow
metadata: {name: lines-}
spec:
  tasks:
  - name: count
    forEach: `+from+`
    image: busybox
    command: [sh, -c, 'wc -l < "$1"', sh, "${{ item }}"]
    outputs: {lines: json}
  - name: sum
    image: busybox
    command: [sh, -c, 'tr -d "[]" < /in/counts.json | tr "," "\n" | awk "{s+=\$1} END {print \"sum\", s}"']
    files: {/in/counts.json: "${{ tasks.count.outputs.lines }}"}
`)
		if !strings.HasPrefix(got, "succeeded") || !strings.Contains(got, "sum "+want+"\n") {
			t.Errorf("%s: %s", from, got)
		}
	}

	s3 := func(key string) string {
		return `s3: {endpoint: "` + strings.TrimPrefix(endpoint, "http://") + `", insecure: true, region: eu-1, bucket: data, key: ` + key + `, accessKeySecret: {name: store, key: id}, secretKeySecret: {name: store, key: secret}}`
	}
	got := outcome(t, c, `apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: artifacts-}
spec:
  entrypoint: main
  templates:
  - name: main
    steps:
    - - {name: make, template: make}
    - - name: look
        template: look
        arguments: {artifacts: [{name: part, from: "{{steps.make.outputs.artifacts.kept}}", subPath: deep/c}]}
  - name: make
    inputs:
      artifacts:
      - {name: packed, path: /in/packed, `+s3("in.tgz")+`}
      - {name: plain, path: /in/plain, archive: {none: {}}, `+s3("logs/0.log")+`}
      - {name: web, path: /in/web, http: {url: "`+site.URL+`/file"}}
      - {name: code, path: /src, git: {repo: "`+site.URL+`/repo/.git", revision: main}}
    container:
      image: busybox
      command: [sh, -c, 'cat /in/packed/a /in/packed/b /in/plain /in/web /src/README && mkdir -p /out/deep && cp /in/packed/a /out/a && echo made > /out/deep/c']
    outputs:
      artifacts:
      - {name: kept, path: /out}
      - {name: away, path: /out, `+s3("out.tgz")+`}
      - {name: one, path: /out/a, archive: {none: {}}, `+s3("one")+`}
  - name: look
    inputs: {artifacts: [{name: part, path: /part}, {name: back, path: /back, `+s3("out.tgz")+`}]}
    container: {image: busybox, command: [sh, -c, 'echo part $(cat /part) back $(cat /back/a /back/deep/c)']}
`)
	if !strings.HasPrefix(got, "succeeded") {
		t.Fatal(got)
	}
	for _, line := range []string{": a\n", ": b\n", ": line\n", ": from the web\n", ": read me\n", ": part made back a made\n"} {
		if !strings.Contains(got, line) {
			t.Errorf("nothing prints %q:\n%s", line, got)
		}
	}
	if b, err := os.ReadFile(filepath.Join(store, "data/one")); err != nil || string(b) != "a\n" {
		t.Errorf("the object has %q, %v", b, err)
	}
	// What is not there is the task's fault, and told.
	got = outcome(t, c, `apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: missing-}
spec:
  entrypoint: main
  templates:
  - name: main
    inputs: {artifacts: [{name: none, path: /in/none, `+s3("none")+`}]}
    container: {image: busybox, command: [cat, /in/none]}
`)
	if !strings.HasPrefix(got, "error") || !strings.Contains(got, "NoSuchKey") {
		t.Error(got)
	}
}
