package gitlab_test

import (
	"errors"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/forge/forgetest"
	"cairn.dev/cairn/internal/forge/gitlab"
	"cairn.dev/cairn/internal/forge/rest"
)

func fake(t *testing.T) (*forgetest.Fake, *gitlab.Driver) {
	t.Helper()
	m := forgetest.NewMemory(clock.NewFake(time.Unix(1_790_000_000, 0)), "cairn-bot")
	f := forgetest.GitLab(t, m)
	d, err := gitlab.New(gitlab.Config{URL: f.URL, Token: rest.Secret{Value: forgetest.GitLabToken}}, gitlab.Deps{Clock: clock.Real()})
	if err != nil {
		t.Fatal(err)
	}
	return f, d
}

func TestSuite(t *testing.T) {
	f, d := fake(t)
	forgetest.Run(t, f.Memory.Site(d))
}

// Groups in groups: the whole name is one segment of the API's paths, and
// several of git's.
func TestSubgroups(t *testing.T) {
	f, d := fake(t)
	const name = "company/platform/infra.tf/live"
	head := f.Memory.AddRepository(name, map[string]string{"a/b.tf": "1"})
	h, err := d.Commit(t.Context(), name, forge.Commit{Branch: "cairn/x", Parent: head, Message: "m", Files: map[string][]byte{"a/b.tf": []byte("2")}})
	if err != nil || f.Memory.Files(name, h)["a/b.tf"] != "2" {
		t.Errorf("Commit = %s, %v", h, err)
	}
	for _, bad := range []string{"company", "a/../b", "a//b", "a/b?x=1", "a/b#c", "a/b%2f"} {
		if _, err := d.Repository(t.Context(), bad); !errors.Is(err, forge.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestReadHook(t *testing.T) {
	_, d := fake(t)
	const (
		a = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
		b = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
		o = "0000000000000000000000000000000000000000"
	)
	for _, c := range []struct {
		event, body string
		want        *forge.Event
		err         error
	}{
		{"Push Hook", `{"object_kind":"push","ref":"refs/heads/main","before":"` + a + `","after":"` + b + `","project":{"path_with_namespace":"g/s/n"}}`, &forge.Event{Repo: "g/s/n", Branch: "main", Before: a, Head: b}, nil},
		{"Push Hook", `{"ref":"refs/heads/cairn/x","before":"` + a + `","after":"` + o + `","project":{"path_with_namespace":"g/n"}}`, &forge.Event{Repo: "g/n", Branch: "cairn/x", Before: a}, nil},
		{"Tag Push Hook", `{"ref":"refs/tags/v1","project":{"path_with_namespace":"g/n"}}`, nil, nil},
		{"Merge Request Hook", `{"object_attributes":{"iid":5},"project":{"path_with_namespace":"g/n"}}`, &forge.Event{Repo: "g/n", Pull: 5}, nil},
		{"Pipeline Hook", `{"object_attributes":{"iid":99},"merge_request":{"iid":5},"project":{"path_with_namespace":"g/n"}}`, &forge.Event{Repo: "g/n", Pull: 5}, nil},
		{"Pipeline Hook", `{"object_attributes":{"iid":99},"project":{"path_with_namespace":"g/n"}}`, nil, nil},
		{"Note Hook", `{}`, nil, nil},
		{"Push Hook", `<html>`, nil, forge.ErrInvalid},
		{"Push Hook", `{"ref":"refs/heads/main","after":"` + b + `","project":{"path_with_namespace":"../etc"}}`, nil, forge.ErrInvalid},
		{"Push Hook", `{"ref":"refs/heads/main","after":"HEAD","project":{"path_with_namespace":"g/n"}}`, nil, forge.ErrInvalid},
		{"Merge Request Hook", `{"object_attributes":{"iid":-1},"project":{"path_with_namespace":"g/n"}}`, nil, forge.ErrInvalid},
	} {
		header := func(k string) string {
			return map[string]string{"X-Gitlab-Event": c.event, "X-Gitlab-Token": "secret"}[k]
		}
		for range 2 { // the same again says the same
			got, err := d.ReadHook([]byte("secret"), header, []byte(c.body))
			if !errors.Is(err, c.err) || (got == nil) != (c.want == nil) || got != nil && *got != *c.want {
				t.Errorf("%s %s: %+v, %v", c.event, c.body, got, err)
			}
		}
		for _, secret := range []string{"", "other", "secret "} {
			if e, err := d.ReadHook([]byte(secret), header, []byte(c.body)); e != nil || !errors.Is(err, forge.ErrSignature) {
				t.Errorf("with the secret %q: %+v, %v", secret, e, err)
			}
		}
	}
}
