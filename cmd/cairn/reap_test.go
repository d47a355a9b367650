package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/serve/servetest"
)

// A Cairn with accounts plays the other registry: it is planned, reaped and
// put back by commands.
func TestReapCommands(t *testing.T) {
	other := servetest.Start(t, nil, func(c *config.Config) { c.Open = false })
	other.Push(t, "app/old", "1.0", "unused")
	other.Push(t, "app/new", "1.0", "used")
	used := other.Push(t, "app/new", "1.0", "used")
	s := servetest.Start(t, nil, func(c *config.Config) {
		c.Open, c.Retention.Explicit = false, true
		c.Retention.Policies[0].After = config.Duration(24 * time.Hour)
	})
	work := t.TempDir()
	t.Chdir(work)
	env := map[string]string{"CAIRN_SERVER": s.URL, "CAIRN_TOKEN": s.Secret, "CAIRN_REAP_PASSWORD": other.Secret}
	cairn := func(code int, args ...string) (stdout, stderr string) {
		t.Helper()
		var out, errs bytes.Buffer
		if got := run(t.Context(), args, strings.NewReader(""), &out, &errs, func(k string) string { return env[k] }); got != code {
			t.Fatalf("cairn %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, code, &out, &errs)
		}
		return out.String(), errs.String()
	}
	has := func(repo string) bool {
		t.Helper()
		return other.Do(t, http.MethodGet, "/v2/"+repo+"/manifests/1.0", "", nil).Status == http.StatusOK
	}
	report := func() {
		t.Helper()
		if r := s.Do(t, http.MethodPost, "/api/v1/uses", "application/json", []byte(`{"reporter":"host-a","period":"1h","complete":true,"uses":[{"digest":"`+string(used)+`","source":"container","subject":"web"}]}`)); r.Status != http.StatusOK {
			t.Fatal(r.Body)
		}
	}
	account := []string{"--registry", other.URL, "--username", "admin"}
	reap := func(more ...string) []string { return append(append([]string{"reap"}, account...), more...) }

	if _, e := cairn(exitHeld, reap("--yes")...); !strings.Contains(e, "nobody reports what runs") {
		t.Errorf("without reporters: %s", e)
	}
	report()
	if out, _ := cairn(exitOK, reap("--all")...); !strings.Contains(out, "first seen") || !strings.Contains(out, "2 images in 2 repositories") {
		t.Errorf("at first: %s", out)
	}
	for range 25 {
		s.Pass(t, time.Hour)
		report()
	}
	out, _ := cairn(exitOK, reap()...)
	if !strings.Contains(out, "app/old:1.0") || strings.Contains(out, "app/new") || !strings.Contains(out, "1 would be deleted") {
		t.Errorf("plan: %s", out)
	}
	if !has("app/old") {
		t.Fatal("the plan deleted it")
	}
	if files, _ := filepath.Glob("*"); len(files) > 0 {
		t.Errorf("files: %v", files)
	}
	out, e := cairn(exitOK, reap("--yes")...)
	if !strings.Contains(out, "1 of 1 deleted") || !strings.Contains(e, "cairn reap undo") {
		t.Errorf("with --yes: %s%s", out, e)
	}
	if has("app/old") || !has("app/new") {
		t.Error("the old one is to be gone, and the new one not")
	}
	files, _ := filepath.Glob("cairn-reap-*.jsonl")
	if len(files) != 1 {
		t.Fatalf("files: %v", files)
	}
	// The server has it as well, should the file be lost.
	if out, _ := cairn(exitOK, "reap", "deleted", "--registry", other.URL, "--undo-file", "again.jsonl"); !strings.Contains(out, "app/old@sha256:") {
		t.Errorf("deleted: %s", out)
	}
	a, _ := os.ReadFile(files[0])
	b, _ := os.ReadFile("again.jsonl")
	if string(a) != string(b) || len(a) == 0 {
		t.Errorf("the server's records are others:\n%s\n%s", a, b)
	}
	if out, _ = cairn(exitOK, append(append([]string{"reap", "undo"}, account...), files[0])...); !strings.Contains(out, "app/old@sha256:") {
		t.Errorf("undo: %s", out)
	}
	if !has("app/old") {
		t.Error("it is not back")
	}
	out, _ = cairn(exitOK, reap("--all", "-o", "json", "--repository", "app/*")...)
	var got struct {
		Summary wire.ReapSummary
		Images  []wire.ReapDecision
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || len(got.Images) != 2 || got.Images[1].Code != "recent" || got.Images[1].FirstSeen.IsZero() {
		t.Errorf("its time does not start anew: %v %s", err, out)
	}

	// What is wrong is said.
	cairn(exitUsage, "reap")
	cairn(exitUsage, "reap", "something")
	cairn(exitUsage, "reap", "undo")
	env["CAIRN_REAP_PASSWORD"] = ""
	if _, e := cairn(exitUsage, reap()...); !strings.Contains(e, "CAIRN_REAP_PASSWORD") {
		t.Errorf("no password: %s", e)
	}
	env["CAIRN_REAP_PASSWORD"] = "wrong"
	if _, e := cairn(exitError, reap("--yes")...); !strings.Contains(e, "list the repositories") {
		t.Errorf("wrong password: %s", e)
	}
	env["CAIRN_TOKEN"] = "wrong"
	cairn(exitForbidden, reap()...)
	if err := os.WriteFile("bad.jsonl", []byte("{}\nno\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, e := cairn(exitError, "reap", "undo", "bad.jsonl"); !strings.Contains(e, "bad.jsonl:2") {
		t.Errorf("bad file: %s", e)
	}
}
