// Package gitea starts a Gitea for tests: a real forge with accounts,
// repositories and webhooks.
//
// It owns the process, its folder and its port, which end with the test. It
// knows Gitea's own API and git, and nothing of Cairn: what it says about a
// repository is an independent witness of what a driver did there.
package gitea

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/test/parts"
	"cairn.dev/cairn/test/program"
)

// A Server is a running Gitea.
type Server struct {
	URL   string
	Admin Account
	dir   string
	n     int
}

// An Account of a Server, with a token that may do everything for it.
type Account struct{ Name, Password, Token string }

// config of a Gitea that asks nobody on the network. Started by root, as tests
// in containers are, it needs to be told twice.
const config = `APP_NAME = forge
RUN_MODE = prod
WORK_PATH = %[1]s
I_AM_BEING_UNSAFE_RUNNING_AS_ROOT = true
[server]
STATIC_ROOT_PATH = %[2]s
APP_DATA_PATH = %[1]s/data
PROTOCOL = http
HTTP_ADDR = 127.0.0.1
HTTP_PORT = %[3]s
ROOT_URL = http://127.0.0.1:%[3]s/
OFFLINE_MODE = true
DISABLE_SSH = true
LFS_START_SERVER = false
[database]
DB_TYPE = sqlite3
PATH = %[1]s/gitea.db
[repository]
ROOT = %[1]s/repositories
DEFAULT_BRANCH = main
[security]
INSTALL_LOCK = true
PASSWORD_HASH_ALGO = pbkdf2$1000$50
[indexer]
ISSUE_INDEXER_TYPE = db
[webhook]
ALLOWED_HOST_LIST = loopback
[cron.update_checker]
ENABLED = false
[actions]
ENABLED = false
[log]
MODE = file
LEVEL = warn
ROOT_PATH = %[1]s/log
`

// Start starts a Gitea, which ends with the test. Where the part is missing the
// test ends by [parts.Missing].
func Start(t testing.TB) *Server {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		parts.Apt(t, "git")
	}
	file := parts.Path(t, "gitea")
	dir := t.TempDir()
	address := program.FreeAddress(t)
	_, port, _ := strings.Cut(address, ":")
	ini := filepath.Join(dir, "app.ini")
	if err := os.WriteFile(ini, fmt.Appendf(nil, config, dir, filepath.Dir(file), port), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &Server{URL: "http://" + address, dir: dir, Admin: Account{Name: "root-of-all", Password: "correct horse"}}
	command := func(ctx context.Context, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, file, append([]string{"--config", ini, "--work-path", dir}, args...)...)
		cmd.Env = append(environment(), "HOME="+dir)
		return cmd
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := command(t.Context(), args...).CombinedOutput()
		if err != nil {
			t.Fatalf("gitea %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	run("migrate")
	out := run("admin", "user", "create", "--admin", "--username", s.Admin.Name, "--password", s.Admin.Password, "--email", "root@forge.test",
		"--must-change-password=false", "--access-token", "--access-token-name", "tests", "--access-token-scopes", "all")
	for word := range strings.FieldsSeq(out) {
		if len(word) == 40 && strings.Trim(word, "0123456789abcdef") == "" {
			s.Admin.Token = word
		}
	}
	if s.Admin.Token == "" {
		t.Fatalf("gitea told no token: %s", out)
	}
	program.Serve(t, command(context.Background(), "web"), program.Answers(s.URL+"/api/healthz"))
	return s
}

// environment is ours without what speaks to git and to Gitea.
func environment() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "GIT_") && !strings.HasPrefix(v, "GITEA_") && !strings.HasPrefix(v, "HOME=") {
			env = append(env, v)
		}
	}
	return append(env, "GIT_CONFIG_NOSYSTEM=1")
}

// Do asks Gitea's API as an account; into may be nil. Another status than a
// good one ends the test.
func (s *Server) Do(t testing.TB, who Account, method, path string, body, into any) {
	t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+"/api/v1"+path, bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if who.Token != "" {
		req.Header.Set("Authorization", "token "+who.Token)
	} else {
		req.SetBasicAuth(who.Name, who.Password)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode/100 != 2 {
		t.Fatalf("%s %s: %s %s %v", method, path, resp.Status, answer, err)
	}
	if into != nil {
		if err := json.Unmarshal(answer, into); err != nil {
			t.Fatalf("%s %s: %v in %s", method, path, err, answer)
		}
	}
}

// Account makes an account.
func (s *Server) Account(t testing.TB, name string) Account {
	t.Helper()
	a := Account{Name: name, Password: "battery staple"}
	s.Do(t, s.Admin, "POST", "/admin/users", map[string]any{"username": name, "password": a.Password, "email": name + "@forge.test", "must_change_password": false}, nil)
	var token struct {
		SHA1 string `json:"sha1"`
	}
	s.Do(t, a, "POST", "/users/"+name+"/tokens", map[string]any{"name": "tests", "scopes": []string{"all"}}, &token)
	a.Token = token.SHA1
	return a
}

// Repository makes a repository whose branch main has one commit with the files.
// Names that end in "*" are of executable files. It returns that commit.
func (s *Server) Repository(t testing.TB, owner Account, name string, files map[string]string) (head string) {
	t.Helper()
	s.Do(t, owner, "POST", "/user/repos", map[string]any{"name": name, "default_branch": "main"}, nil)
	head = s.push(t, owner, owner.Name+"/"+name, "main", files, true)
	// What a push changes in Gitea's database comes behind it; until then the
	// repository counts as empty.
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		var r struct{ Empty bool }
		if s.Do(t, owner, "GET", "/repos/"+owner.Name+"/"+name, nil, &r); !r.Empty {
			return head
		}
		if time.Now().After(end) {
			t.Fatal("gitea does not take up a push")
		}
	}
}

// Collaborator lets an account write a repository.
func (s *Server) Collaborator(t testing.TB, owner Account, name string, who Account) {
	t.Helper()
	s.Do(t, owner, "PUT", "/repos/"+owner.Name+"/"+name+"/collaborators/"+who.Name, map[string]any{"permission": "write"}, nil)
}

// Hook sends a repository's events to a URL.
func (s *Server) Hook(t testing.TB, who Account, repo, url, secret string) {
	t.Helper()
	s.Do(t, who, "POST", "/repos/"+repo+"/hooks", map[string]any{"type": "gitea", "active": true, "events": []string{"push", "delete", "pull_request"},
		"config": map[string]any{"url": url, "content_type": "json", "secret": secret}}, nil)
}

// Push is an account's commit on top of a branch, by git. A branch that is not
// there begins at main.
func (s *Server) Push(t testing.TB, who Account, repo, branch string, files map[string]string) string {
	t.Helper()
	return s.push(t, who, repo, branch, files, false)
}

// Rewrite is an account's forced push of one commit without parents.
func (s *Server) Rewrite(t testing.TB, who Account, repo, branch string, files map[string]string) string {
	t.Helper()
	return s.push(t, who, repo, branch, files, true)
}

func (s *Server) push(t testing.TB, who Account, repo, branch string, files map[string]string, root bool) string {
	t.Helper()
	s.n++
	work := filepath.Join(s.dir, fmt.Sprintf("work-%d", s.n))
	address := strings.Replace(s.URL, "://", "://"+who.Name+":"+who.Token+"@", 1) + "/" + repo + ".git"
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", work, "-c", "user.name=" + who.Name, "-c", "user.email=" + who.Name + "@forge.test", "-c", "core.autocrlf=false"}, args...)...)
		cmd.Env = append(environment(), "HOME="+s.dir, "GIT_TERMINAL_PROMPT=0")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %s: %v\n%s", args[0], err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if err := os.MkdirAll(work, 0o755); err != nil {
		t.Fatal(err)
	}
	git("init", "-q", "-b", "work")
	if !root {
		git("fetch", "-q", address, "+refs/heads/*:refs/remotes/there/*")
		from := "there/" + branch
		if exec.CommandContext(t.Context(), "git", "-C", work, "rev-parse", "-q", "--verify", "refs/remotes/"+from).Run() != nil {
			from = "there/main"
		}
		git("reset", "-q", "--hard", from)
	}
	for name, body := range files {
		name, executable := strings.CutSuffix(name, "*")
		file := filepath.Join(work, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o644)
		if executable {
			mode = 0o755
		}
		if err := os.WriteFile(file, []byte(body), mode); err != nil {
			t.Fatal(err)
		}
	}
	git("add", "-A")
	git("commit", "-q", "--allow-empty", "-m", "by hand")
	git("push", "-q", "--force", address, "HEAD:refs/heads/"+branch)
	return git("rev-parse", "HEAD")
}
