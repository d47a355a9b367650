package artifacts_test

import (
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work/artifacts"
	"cairn.dev/cairn/internal/workflow"
)

// git runs the real program for a test.
func git(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@x", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@x")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestGit(t *testing.T) {
	dir := t.TempDir()
	root := filepath.Join(dir, "data")
	repo := filepath.Join(root, "repo")
	commit := func(files map[string]string) string {
		t.Helper()
		for name, text := range files {
			if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(repo, name)), 0o755), os.WriteFile(filepath.Join(repo, name), []byte(text), 0o755)); err != nil {
				t.Fatal(err)
			}
		}
		git(t, repo, "add", "-A")
		git(t, repo, "commit", "-q", "-m", "x")
		return git(t, repo, "rev-parse", "HEAD")
	}
	if err := os.MkdirAll(repo, 0o755); err != nil {
		t.Fatal(err)
	}
	git(t, repo, "init", "-q", "-b", "main")
	if err := os.Symlink("a", filepath.Join(repo, "l")); err != nil {
		t.Fatal(err)
	}
	first := commit(map[string]string{"a": "1", "d/b": "2"})
	git(t, repo, "tag", "-a", "-m", "x", "v1")
	git(t, repo, "branch", "topic/x")
	commit(map[string]string{"a": "later", ".gitattributes": "a export-ignore"})
	const before, after = "a=1 d/b=2 l>a", ".gitattributes=a export-ignore a=later d/b=2 l>a"
	git(t, repo, "config", "uploadpack.allowAnySHA1InWant", "true")
	if err := errors.Join(os.Symlink("repo", filepath.Join(root, "link")), os.Rename(filepath.Join(root, "repo"), filepath.Join(dir, "outside")), os.Symlink("../outside", filepath.Join(root, "out"))); err != nil {
		t.Fatal(err)
	}
	git(t, dir, "clone", "-q", "--mirror", filepath.Join(dir, "outside"), repo)
	git(t, repo, "config", "uploadpack.allowAnySHA1InWant", "true")

	// Over http as servers speak it; who asks has to sign on for what is private.
	backend := filepath.Join(git(t, dir, "--exec-path"), "git-http-backend")
	var asked []string
	serve := &cgi.Handler{Path: backend, Env: []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1"}}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, private := strings.CutPrefix(r.URL.Path, "/private")
		user, password, _ := r.BasicAuth()
		asked = append(asked, r.Header.Get("Authorization"))
		if private && (user != "me" || password != "pass") {
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(401)
			return
		}
		r.URL.Path = path
		serve.ServeHTTP(w, r)
	}))
	defer s.Close()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("pass"), 0o600); err != nil {
		t.Fatal(err)
	}
	temp := t.TempDir()
	w := newWorld(t, artifacts.Config{AllowPrivate: true, FileRoots: []string{root}, Dir: temp, MaxSize: 1 << 20, MaxTime: time.Minute, Secrets: []artifacts.Secret{
		{Name: "account", User: "me", File: secret, Hosts: []string{strings.TrimPrefix(s.URL, "http://")}},
		{Name: "elsewhere", User: "me", File: secret},
	}})
	closed := newWorld(t, artifacts.Config{Dir: temp, MaxTime: time.Minute})
	file := "file://" + repo
	for name, c := range map[string]struct {
		w                     *world
		url, revision, secret string
		want                  string
		err                   error
	}{
		"head":            {w, file, "", "", after, nil},
		"branch":          {w, file, "topic/x", "", before, nil},
		"tag":             {w, file, "v1", "", before, nil},
		"commit":          {w, file, first, "", before, nil},
		"http":            {w, s.URL + "/repo", "main", "", after, nil},
		"http, tag":       {w, s.URL + "/repo", "refs/tags/v1", "", before, nil},
		"private":         {w, s.URL + "/private/repo", "v1", "account", before, nil},
		"no account":      {w, s.URL + "/private/repo", "v1", "", "", artifacts.ErrRefused},
		"not its account": {w, s.URL + "/private/repo", "v1", "elsewhere", "", artifacts.ErrRefused},
		"secret, file":    {w, file, "", "account", "", artifacts.ErrInvalid},
		"no revision":     {w, file, "none", "", "", artifacts.ErrNotFound},
		"no repository":   {w, "file://" + root + "/none", "", "", "", artifacts.ErrNotFound},
		"through a link":  {w, "file://" + root + "/link", "", "", "", artifacts.ErrRefused},
		"out":             {w, "file://" + root + "/out", "", "", "", artifacts.ErrRefused},
		"outside":         {w, "file://" + dir + "/outside", "", "", "", artifacts.ErrRefused},
		"option":          {w, file, "--upload-pack=touch", "", "", artifacts.ErrInvalid},
		"refspec":         {w, file, "main:refs/heads/x", "", "", artifacts.ErrInvalid},
		"not an address":  {w, "ext::sh -c id", "", "", "", artifacts.ErrInvalid},
		"ssh":             {w, "ssh://git@example.org/x", "", "", "", artifacts.ErrRefused},
		"option as host":  {w, "ssh://-oProxyCommand=id/x", "", "", "", artifacts.ErrInvalid},
		"password":        {w, "https://u:p@example.org/x", "", "", "", artifacts.ErrInvalid},
		"http, closed":    {closed, s.URL + "/repo", "", "", "", artifacts.ErrRefused},
		"https, closed":   {closed, "https" + strings.TrimPrefix(s.URL, "http") + "/repo", "", "", "", artifacts.ErrRefused},
		"metadata":        {closed, "https://169.254.169.254/repo", "", "", "", artifacts.ErrRefused},
		"file, closed":    {closed, file, "", "", "", artifacts.ErrRefused},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := c.w.Fetch(t.Context(), "a", task.Input{Source: &task.Source{Kind: "git", URL: c.url, Revision: c.revision, Secret: c.secret}})
			is(t, err, c.err)
			if err != nil {
				if strings.Contains(err.Error(), "pass") && c.secret != "" {
					t.Errorf("the error tells the password: %v", err)
				}
				return
			}
			if got := untar(t, f); got != c.want || !f.Folder {
				t.Errorf("%q, want %q", got, c.want)
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	// It can be listed like any folder.
	list, err := w.List(t.Context(), "a", &workflow.File{Source: &task.Source{Kind: "git", URL: file, Revision: "v1"}}, nil, "*", 9)
	if got := w.listed(list); err != nil || got != "a=1" {
		t.Errorf("%s %v", got, err)
	}
	// Whoever closes it early leaves nothing behind either.
	f, err := w.Fetch(t.Context(), "a", task.Input{Source: &task.Source{Kind: "git", URL: file}})
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// Git reaches https by a proxy of ours; here a server that git does not trust
// is found at its other end.
func TestGitTunnel(t *testing.T) {
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	hello := make(chan struct{}, 10)
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			hello <- struct{}{}
		}
	}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	w := newWorld(t, artifacts.Config{AllowPrivate: true, MaxTime: time.Minute})
	_, err := w.Fetch(t.Context(), "a", task.Input{Source: &task.Source{Kind: "git", URL: s.URL + "/repo"}})
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("%v", err)
	}
	select {
	case <-hello:
	default:
		t.Error("the server was not reached")
	}
	small := newWorld(t, artifacts.Config{AllowPrivate: true, MaxTime: time.Minute, MaxSize: 10})
	_, err = small.Fetch(t.Context(), "a", task.Input{Source: &task.Source{Kind: "git", URL: s.URL + "/repo"}})
	is(t, err, artifacts.ErrTooLarge)

}
