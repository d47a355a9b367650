package gitea_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/forge/forgetest"
	"cairn.dev/cairn/internal/forge/plain"
	"cairn.dev/cairn/internal/forge/rest"
)

// A git server over HTTP that wants a password, and has rules of its own.
func TestPlainOverHTTP(t *testing.T) {
	s, _, team, suite := site(t)
	repo, head := suite.Add(t, forgetest.Tree())
	open := func(password string) *plain.Driver {
		t.Helper()
		file := filepath.Join(t.TempDir(), "password")
		if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := plain.New(plain.Config{Repositories: map[string]string{"team/app": s.URL + "/" + repo + ".git", "team/gone": s.URL + "/team/gone.git"},
			User: team.Name, Password: rest.Secret{File: file}}, plain.Deps{Clock: clock.Real()})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := open(team.Token)
	c := forge.Commit{Branch: "cairn/x", Parent: head, Message: "m", Files: map[string][]byte{"main.tf": []byte("2")}}
	hash, err := d.Commit(t.Context(), "team/app", c)
	if err != nil {
		t.Fatal(err)
	}
	if at, err := suite.Forge.Head(t.Context(), repo, "cairn/x"); err != nil || at != hash {
		t.Errorf("the forge has it at %s, %v", at, err)
	}
	if b, err := d.File(t.Context(), "team/app", hash, "main.tf"); err != nil || string(b) != "2" {
		t.Errorf("File = %q, %v", b, err)
	}
	// Another message: within one second the same commit has the same hash, and
	// to find it there already is a success.
	other := c
	other.Message = "another"
	if _, err := d.Commit(t.Context(), "team/app", other); !errors.Is(err, forge.ErrMoved) {
		t.Errorf("the branch is there already: %v", err)
	}
	suite.Protect(t, repo, "main")
	c.Branch, c.Head = "main", head
	if _, err := d.Commit(t.Context(), "team/app", c); !errors.Is(err, forge.ErrForbidden) {
		t.Errorf("a protected branch: %v", err)
	}
	if err := d.DeleteBranch(t.Context(), "team/app", "cairn/x", hash); err != nil {
		t.Errorf("DeleteBranch: %v", err)
	}
	if _, err := d.Head(t.Context(), "team/gone", "main"); !errors.Is(err, forge.ErrNotFound) {
		t.Errorf("a repository that is not there: %v", err)
	}
	c.Branch, c.Head = "cairn/y", ""
	if _, err := open("not the password").Commit(t.Context(), "team/app", c); !errors.Is(err, forge.ErrUnauthorized) || strings.Contains(err.Error(), "not the password") {
		t.Errorf("the wrong password: %v", err)
	}
}
