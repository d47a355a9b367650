package gitea_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/forge/forgetest"
	driver "cairn.dev/cairn/internal/forge/gitea"
	"cairn.dev/cairn/internal/forge/rest"
	"cairn.dev/cairn/test/gitea"
)

// site is a Gitea where the driver works as the account bot in repositories of
// the account team.
func site(t *testing.T) (*gitea.Server, *driver.Driver, gitea.Account, forgetest.Site) {
	s := gitea.Start(t)
	team, bot, ada := s.Account(t, "team"), s.Account(t, "cairn-bot"), s.Account(t, "ada")
	d, err := driver.New(driver.Config{URL: s.URL, Token: rest.Secret{Value: bot.Token}}, driver.Deps{Clock: clock.Real()})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	return s, d, team, forgetest.Site{
		Forge: d,
		Add: func(t testing.TB, files map[string]string) (string, string) {
			n++
			name := fmt.Sprintf("app-%d", n)
			head := s.Repository(t, team, name, files)
			s.Collaborator(t, team, name, bot)
			s.Collaborator(t, team, name, ada)
			return "team/" + name, head
		},
		Push: func(t testing.TB, repo, branch string, files map[string]string) string {
			return s.Push(t, team, repo, branch, files)
		},
		Rewrite: func(t testing.TB, repo, branch string, files map[string]string) string {
			return s.Rewrite(t, team, repo, branch, files)
		},
		Archive: func(t testing.TB, repo string) {
			s.Do(t, team, "PATCH", "/repos/"+repo, map[string]any{"archived": true}, nil)
		},
		Protect: func(t testing.TB, repo, branch string) {
			s.Do(t, team, "POST", "/repos/"+repo+"/branch_protections", map[string]any{"rule_name": branch, "enable_push": false}, nil)
		},
		Close: func(t testing.TB, repo string, number int64) {
			s.Do(t, ada, "PATCH", fmt.Sprintf("/repos/%s/pulls/%d", repo, number), map[string]any{"state": "closed"}, nil)
		},
		Check: func(t testing.TB, repo, commit string, state forge.CheckState) {
			s.Do(t, team, "POST", "/repos/"+repo+"/statuses/"+commit, map[string]any{"context": "ci",
				"state": map[forge.CheckState]string{forge.ChecksPending: "pending", forge.ChecksFailed: "failure", forge.ChecksPassed: "success"}[state]}, nil)
		},
		Reviewer: "ada",
		Reviewers: func(t testing.TB, repo string, number int64) (names []string) {
			var p struct {
				Requested []struct{ Login string } `json:"requested_reviewers"`
			}
			s.Do(t, team, "GET", fmt.Sprintf("/repos/%s/pulls/%d", repo, number), nil, &p)
			for _, u := range p.Requested {
				names = append(names, u.Login)
			}
			return names
		},
	}
}

func TestSuite(t *testing.T) {
	_, _, _, suite := site(t)
	forgetest.Run(t, suite)
}

// A webhook of the real thing, signed, and what is read of it.
func TestWebhooks(t *testing.T) {
	s, d, team, suite := site(t)
	repo, head := suite.Add(t, forgetest.Tree())
	type delivery struct {
		header http.Header
		body   []byte
	}
	got := make(chan delivery, 16)
	web := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got <- delivery{r.Header, body}
	}))
	defer web.Close()
	s.Hook(t, team, repo, web.URL, "hook secret")

	// read waits for an event that is as wanted; others may come before it.
	read := func(what string, want forge.Event) {
		t.Helper()
		for {
			select {
			case one := <-got:
				if _, err := d.ReadHook([]byte("another secret"), one.header.Get, one.body); !errors.Is(err, forge.ErrSignature) {
					t.Errorf("a webhook with another secret: %v", err)
				}
				e, err := d.ReadHook([]byte("hook secret"), one.header.Get, one.body)
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				if e != nil && *e == want {
					return
				}
				t.Logf("%s: came %+v", what, e)
			case <-time.After(20 * time.Second):
				t.Fatalf("%s: no webhook says %+v", what, want)
			}
		}
	}
	next := s.Push(t, team, repo, "main", map[string]string{"main.tf": "2"})
	read("push", forge.Event{Repo: repo, Branch: "main", Head: next, Before: head})
	c, err := d.Commit(t.Context(), repo, forge.Commit{Branch: "cairn/x", Parent: next, Message: "m", Files: map[string][]byte{"main.tf": []byte("3")}})
	if err != nil {
		t.Fatal(err)
	}
	read("push of a new branch", forge.Event{Repo: repo, Branch: "cairn/x", Head: c})
	p, err := d.CreatePull(t.Context(), repo, forge.NewPull{Title: "t", Branch: "cairn/x", Base: "main"})
	if err != nil {
		t.Fatal(err)
	}
	read("pull request", forge.Event{Repo: repo, Pull: p.Number})
	if err := d.DeleteBranch(t.Context(), repo, "cairn/x", c); err != nil {
		t.Fatal(err)
	}
	read("deleted branch", forge.Event{Repo: repo, Branch: "cairn/x"})
}
