package forge_test

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/forge"
)

func TestCheckBranch(t *testing.T) {
	for name, ok := range map[string]bool{
		"main": true, "cairn/app-1.2": true, "größe": true, "a@b": true, "HEAD2": true,
		"": false, "-x": false, "a b": false, "a..b": false, "a/": false, "/a": false, "a//b": false, ".a": false, "a/.b": false, "a.lock": false, "a.lock/b": false,
		"a.": false, "@": false, "a@{1": false, "a~1": false, "a^": false, "a:b": false, "a?": false, "a*": false, "a[": false, `a\b`: false, "a\x00": false, "a\n": false, "a\x7f": false, "a\xff": false,
		"refs/heads/x": false, strings.Repeat("a", 251): false,
	} {
		err := forge.CheckBranch(name)
		if (err == nil) != ok || err != nil && !errors.Is(err, forge.ErrInvalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// What is taken for a branch's name git takes, too.
func FuzzCheckBranch(f *testing.F) {
	for _, s := range []string{"main", "cairn/app", "a.lock", "@{", "ä/ö", "a..b", "\u00a0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if forge.CheckBranch(name) != nil {
			return
		}
		if err := exec.CommandContext(t.Context(), "git", "check-ref-format", "refs/heads/"+name).Run(); err != nil {
			t.Errorf("git does not take %q: %v", name, err)
		}
	})
}

func TestCheckRepository(t *testing.T) {
	for name, ok := range map[string]bool{
		"owner/name": true, "g/s/n": true, "o/n.git.x": true, "o/ä": true,
		"": false, "name": false, "/n": false, "o/": false, "o//n": false, "o/..": false, "./n": false, "o/n?x": false, "o/n#x": false, "o/%2e": false, "o/a b": false,
		"o\\n/x": false, "o/n\n": false, "https://o/n": false, "u@o/n": false, strings.Repeat("a/", 300) + "b": false,
	} {
		if err := forge.CheckRepository(name); (err == nil) != ok || err != nil && !errors.Is(err, forge.ErrInvalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, _, err := forge.SplitRepository("g/s/n"); !errors.Is(err, forge.ErrInvalid) {
		t.Errorf("groups in groups: %v", err)
	}
}

func TestCheckCommit(t *testing.T) {
	hash := strings.Repeat("a", 40)
	good := func() forge.Commit {
		return forge.Commit{Branch: "b", Parent: hash, Message: "m", Files: map[string][]byte{"a/b": nil, "a.b": nil}}
	}
	if err := good().Check(); err != nil {
		t.Errorf("a good one: %v", err)
	}
	for what, change := range map[string]func(*forge.Commit){
		"branch": func(c *forge.Commit) { c.Branch = "" }, "parent": func(c *forge.Commit) { c.Parent = "main" }, "head": func(c *forge.Commit) { c.Head = "HEAD" },
		"upper case": func(c *forge.Commit) { c.Parent = strings.ToUpper(hash) }, "message": func(c *forge.Commit) { c.Message = " \n" }, "no files": func(c *forge.Commit) { c.Files = nil },
		"path": func(c *forge.Commit) { c.Files["a/../b"] = nil }, "file and folder": func(c *forge.Commit) { c.Files["a"] = nil }, "deep": func(c *forge.Commit) { c.Files["a/b/c"] = nil },
		"git's": func(c *forge.Commit) { c.Files[".Git/config"] = nil }, "no UTF-8": func(c *forge.Commit) { c.Files["\xff"] = nil }, "zero byte": func(c *forge.Commit) { c.Files["x\x00"] = nil },
	} {
		c := good()
		if change(&c); !errors.Is(c.Check(), forge.ErrInvalid) {
			t.Errorf("%s: %v", what, c.Check())
		}
	}
}

func FuzzPushEvent(f *testing.F) {
	f.Add("o/n", "refs/heads/main", strings.Repeat("0", 40), strings.Repeat("a", 40))
	f.Fuzz(func(t *testing.T, repo, ref, before, after string) {
		e, err := forge.PushEvent(repo, ref, before, after)
		if err != nil || e == nil {
			return
		}
		if forge.CheckRepository(e.Repo) != nil || forge.CheckBranch(e.Branch) != nil || e.Head != "" && forge.CheckHash(e.Head) != nil || e.Before != "" && forge.CheckHash(e.Before) != nil {
			t.Errorf("believed: %+v", e)
		}
	})
}

func TestParseHook(t *testing.T) {
	var v struct{}
	if err := forge.ParseHook(make([]byte, forge.MaxHook+1), &v); !errors.Is(err, forge.ErrInvalid) {
		t.Errorf("one that is too long: %v", err)
	}
}
