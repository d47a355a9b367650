package plain_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/forge/forgetest"
	"cairn.dev/cairn/internal/forge/plain"
)

// git runs git in a folder, as anybody does.
func git(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir, "-c", "user.name=somebody", "-c", "user.email=somebody@forge.test", "-c", "core.autocrlf=false"}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", args[0], err, out)
	}
	return strings.TrimSpace(string(out))
}

// servers are bare repositories in a folder.
type servers struct {
	dir     string
	n       int
	address map[string]string
}

func newServers(t testing.TB) *servers {
	s := &servers{dir: t.TempDir(), address: map[string]string{}}
	for i := 1; i <= 20; i++ {
		s.address[fmt.Sprintf("team/app-%d", i)] = "file://" + s.path(fmt.Sprintf("team/app-%d", i))
	}
	return s
}

func (s *servers) path(repo string) string { return filepath.Join(s.dir, repo+".git") }

func (s *servers) push(t testing.TB, repo, branch string, files map[string]string, root bool) string {
	t.Helper()
	work := t.TempDir()
	git(t, work, "init", "-q", "-b", "work")
	if !root {
		git(t, work, "fetch", "-q", s.path(repo), "+refs/heads/*:refs/remotes/there/*")
		git(t, work, "reset", "-q", "--hard", "there/"+branch)
	}
	for name, body := range files {
		name, executable := strings.CutSuffix(name, "*")
		file := filepath.Join(work, filepath.FromSlash(name))
		mode := os.FileMode(0o644)
		if executable {
			mode = 0o755
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(body), mode)); err != nil {
			t.Fatal(err)
		}
	}
	git(t, work, "add", "-A")
	git(t, work, "commit", "-q", "-m", "by hand")
	git(t, work, "push", "-q", "--force", s.path(repo), "HEAD:refs/heads/"+branch)
	return git(t, work, "rev-parse", "HEAD")
}

func (s *servers) add(t testing.TB, files map[string]string) (string, string) {
	t.Helper()
	s.n++
	repo := fmt.Sprintf("team/app-%d", s.n)
	if err := os.MkdirAll(s.path(repo), 0o755); err != nil {
		t.Fatal(err)
	}
	git(t, s.path(repo), "init", "-q", "--bare", "-b", "main")
	git(t, s.path(repo), "config", "uploadpack.allowFilter", "true")
	return repo, s.push(t, repo, "main", files, true)
}

func (s *servers) driver(t testing.TB) *plain.Driver {
	t.Helper()
	d, err := plain.New(plain.Config{Repositories: s.address, Dir: t.TempDir(), Timeout: time.Minute}, plain.Deps{Clock: clock.Real()})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestSuite(t *testing.T) {
	s := newServers(t)
	d := s.driver(t)
	forgetest.Run(t, forgetest.Site{
		Forge: d, Add: s.add,
		Push: func(t testing.TB, repo, branch string, files map[string]string) string {
			return s.push(t, repo, branch, files, false)
		},
		Rewrite: func(t testing.TB, repo, branch string, files map[string]string) string {
			return s.push(t, repo, branch, files, true)
		},
		Protect: func(t testing.TB, repo, branch string) {
			hook := "#!/bin/sh\ncase $1 in refs/heads/" + branch + ") echo no >&2; exit 1;; esac\n"
			if err := os.WriteFile(filepath.Join(s.path(repo), "hooks", "update"), []byte(hook), 0o755); err != nil {
				t.Fatal(err)
			}
		},
	})
	left, err := os.ReadDir(d.Dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// Nothing that lies in a repository or on the machine has a say in what runs.
func TestNothingIsTrusted(t *testing.T) {
	s := newServers(t)
	home := t.TempDir()
	marks := t.TempDir()
	hook := func(name string) string { return "#!/bin/sh\ntouch '" + filepath.Join(marks, name) + "'\n" }
	for name, body := range map[string]string{
		"hooks/post-checkout": hook("post-checkout"), "hooks/pre-push": hook("pre-push"), "hooks/reference-transaction": hook("reference"),
		".gitconfig": "[core]\n\thooksPath = " + home + "/hooks\n\tfsmonitor = " + home + "/hooks/pre-push\n[url \"file://" + home + "/elsewhere/\"]\n\tinsteadOf = file://" + s.dir + "/\n[user]\n\tname = mallory\n",
	} {
		file := filepath.Join(home, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(body), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	repo, head := s.add(t, map[string]string{
		"main.tf": "1", "hidden.tf": "2", "eol.tf": "a\nb\n",
		".gitattributes": "hidden.tf export-ignore\neol.tf text eol=lf\n*.tf filter=evil export-subst\n",
		".gitmodules":    "[submodule \"x\"]\n\tpath = x\n\turl = --upload-pack=touch\n",
	})
	t.Setenv("HOME", home)
	t.Setenv("GIT_DIR", home)
	t.Setenv("GIT_CONFIG_COUNT", "1")
	t.Setenv("GIT_CONFIG_KEY_0", "core.hooksPath")
	t.Setenv("GIT_CONFIG_VALUE_0", home+"/hooks")
	d := s.driver(t)
	site := forgetest.Site{Forge: d}
	if files := site.Read(t, repo, head); files["hidden.tf"] != "2" || files["eol.tf"] != "a\nb\n" || len(files) != 5 {
		t.Errorf("the archive is %q", files)
	}
	hash, err := d.Commit(t.Context(), repo, forge.Commit{Branch: "x", Parent: head, Message: "m", Files: map[string][]byte{"eol.tf": []byte("c\r\n")}})
	if err != nil {
		t.Fatal(err)
	}
	if files := site.Read(t, repo, hash); files["eol.tf"] != "c\r\n" {
		t.Errorf("the commit holds %q", files["eol.tf"])
	}
	if left, err := os.ReadDir(marks); err != nil || len(left) > 0 {
		t.Errorf("what ran: %v, %v", left, err)
	}
}

func TestAddresses(t *testing.T) {
	for address, ok := range map[string]bool{
		"ssh://git@git.example.org/team/app.git": true,
		"https://git.example.org/team/app":       true,
		"file:///srv/git/app.git":                true,
		"ext::sh -c touch% /tmp/x":               false,
		"--upload-pack=touch":                    false,
		"ssh://-oProxyCommand=x/app":             false,
		"https://u:p@git.example.org/app":        false,
		"git@git.example.org:team/app":           false,
		"":                                       false,
	} {
		_, err := plain.New(plain.Config{Repositories: map[string]string{"team/app": address}}, plain.Deps{Clock: clock.Real()})
		if (err == nil) != ok {
			t.Errorf("%q: %v", address, err)
		}
		if err != nil && strings.Contains(err.Error(), ":p@") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
}

func TestNobodyThere(t *testing.T) {
	d, err := plain.New(plain.Config{Repositories: map[string]string{"a/gone": "file:///no/such/folder", "a/deaf": "http://127.0.0.1:1/x"}}, plain.Deps{Clock: clock.Real()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Head(t.Context(), "a/gone", "main"); !errors.Is(err, forge.ErrNotFound) {
		t.Errorf("a folder that is not there: %v", err)
	}
	var later *forge.LaterError
	if _, err := d.Head(t.Context(), "a/deaf", "main"); !errors.As(err, &later) {
		t.Errorf("a server that does not answer: %v", err)
	}
	if _, err := d.Head(t.Context(), "a/other", "main"); !errors.Is(err, forge.ErrNotFound) {
		t.Errorf("no address: %v", err)
	}
}
