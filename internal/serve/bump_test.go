package serve_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/serve/servetest"
)

// gitIn runs git in a folder, as anybody does.
func gitIn(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir, "-c", "user.name=somebody", "-c", "user.email=somebody@forge.test"}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// A push of a newer tag to the registry becomes a branch in a git repository
// whose Terraform names the older one, and what the code names is kept.
func TestAPushMovesCode(t *testing.T) {
	repos := t.TempDir()
	s := servetest.Start(t, nil, func(c *config.Config) {
		c.Bump.Aliases = []string{"registry.test"}
		c.Bump.Forges = []config.Forge{{Name: "here", Kind: "git", URL: "file://" + repos, Repositories: []string{"team/infra"}}}
		c.Bump.Webhooks = []config.Hook{{Name: "hub", Kind: "dockerhub"}}
		before(t, repos)
	})
	until := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); !ok(); {
			if time.Now().After(deadline) {
				t.Fatalf("%s did not happen\n%s\n%s", what, s.Do(t, http.MethodGet, "/api/v1/bump/status", "", nil).Body, s.Log)
			}
			time.Sleep(5 * time.Millisecond)
			s.Clock.Advance(100 * time.Millisecond)
		}
	}
	status := func() string {
		return s.Do(t, http.MethodGet, "/api/v1/bump/status?repository=team/infra", "", nil).Body
	}
	until("the first scan", func() bool { return strings.Contains(status(), `"value":"registry.test/team/api:1.1"`) })
	old := s.Push(t, "team/api", "1.1", "one")
	s.Push(t, "team/api", "1.2", "two")
	bare := filepath.Join(repos, "team", "infra")
	branch := func() string { return gitIn(t, bare, "for-each-ref", "--format=%(refname:short)", "refs/heads/cairn") }
	until("the branch", func() bool { return branch() != "" })
	diff := gitIn(t, bare, "diff", "--unified=0", "main", branch())
	if !strings.Contains(diff, "-  tag = \"1.1\"\n+  tag = \"1.2\"") {
		t.Errorf("the diff is\n%s", diff)
	}
	if subject := gitIn(t, bare, "log", "-1", "--format=%s", branch()); !strings.Contains(subject, "from 1.1 to 1.2") {
		t.Error(subject)
	}
	until("the status", func() bool { return strings.Contains(status(), "the branch "+branch()+" has it") })

	// Code is a use: the old image stays for as long as main names it.
	why := s.Do(t, http.MethodGet, "/api/v1/why?ref=team/api@"+string(old), "", nil).Body
	if !strings.Contains(why, `"source":"code"`) || !strings.Contains(why, "here/team/infra: envs/prod/main.tf") || !strings.Contains(why, `"action":"keep"`) {
		t.Error(why)
	}

	for path, want := range map[string]int{"/hooks/forge/here": http.StatusNotFound, "/hooks/registry/none": http.StatusNotFound, "/hooks/registry/hub": http.StatusBadRequest} {
		if r := s.Do(t, http.MethodPost, path, "application/json", []byte("x")); r.Status != want {
			t.Errorf("%s: %d %s", path, r.Status, r.Body)
		}
	}
	hook := `{"push_data":{"tag":"2"},"repository":{"repo_name":"library/nginx"}}`
	if r := s.Do(t, http.MethodPost, "/hooks/registry/hub", "application/json", []byte(hook)); r.Status != http.StatusAccepted {
		t.Errorf("%d %s", r.Status, r.Body)
	}
	if r := s.Do(t, http.MethodGet, "/api/v1/bump/status?repository=no/body", "", nil); r.Status != http.StatusNotFound || !strings.Contains(r.Body, "cairn bump status") {
		t.Errorf("%d %s", r.Status, r.Body)
	}
}

// before makes the repository of code.
func before(t *testing.T, repos string) {
	bare := filepath.Join(repos, "team", "infra")
	work := t.TempDir()
	gitIn(t, work, "init", "-q", "-b", "main")
	if err := os.MkdirAll(filepath.Join(work, "envs", "prod"), 0o755); err != nil {
		t.Fatal(err)
	}
	code := fmt.Sprintf("locals {\n  tag = \"1.1\"\n}\n\nresource \"kubernetes_pod\" \"api\" {\n  spec {\n    container {\n      image = %q\n    }\n  }\n}\n", "registry.test/team/api:${local.tag}")
	if err := os.WriteFile(filepath.Join(work, "envs", "prod", "main.tf"), []byte(code), 0o644); err != nil {
		t.Fatal(err)
	}
	gitIn(t, work, "add", ".")
	gitIn(t, work, "commit", "-q", "-m", "first")
	gitIn(t, work, "clone", "-q", "--bare", work, bare)
}
