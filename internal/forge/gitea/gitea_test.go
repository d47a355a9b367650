package gitea_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/forge/forgetest"
	"cairn.dev/cairn/internal/forge/gitea"
	"cairn.dev/cairn/internal/forge/rest"
)

func fake(t *testing.T) (*forgetest.Fake, *gitea.Driver) {
	t.Helper()
	now := forgetest.Eager{Fake: clock.NewFake(time.Unix(1_790_000_000, 0))}
	f := forgetest.Gitea(t, forgetest.NewMemory(now, "cairn-bot"))
	d, err := gitea.New(gitea.Config{URL: f.URL, Token: rest.Secret{Value: forgetest.GiteaToken}}, gitea.Deps{Clock: now})
	if err != nil {
		t.Fatal(err)
	}
	return f, d
}

// The same suite runs on a real Gitea in test/gitea.
func TestSuite(t *testing.T) {
	f, d := fake(t)
	forgetest.Run(t, f.Memory.Site(d))
}

func TestReadHook(t *testing.T) {
	_, d := fake(t)
	const (
		a = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
		b = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	)
	for _, c := range []struct {
		event, body string
		want        *forge.Event
		err         error
	}{
		{"push", `{"ref":"refs/heads/main","before":"` + a + `","after":"` + b + `","repository":{"full_name":"o/n"}}`, &forge.Event{Repo: "o/n", Branch: "main", Before: a, Head: b}, nil},
		{"delete", `{"ref":"cairn/x","ref_type":"branch","repository":{"full_name":"o/n"}}`, &forge.Event{Repo: "o/n", Branch: "cairn/x"}, nil},
		{"delete", `{"ref":"v1","ref_type":"tag","repository":{"full_name":"o/n"}}`, nil, nil},
		{"pull_request", `{"action":"closed","number":12,"repository":{"full_name":"o/n"}}`, &forge.Event{Repo: "o/n", Pull: 12}, nil},
		{"pull_request_sync", `{"number":12,"repository":{"full_name":"o/n"}}`, &forge.Event{Repo: "o/n", Pull: 12}, nil},
		{"fork", `{}`, nil, nil},
		{"push", ``, nil, forge.ErrInvalid},
		{"pull_request", `{"number":12,"repository":{"full_name":"a\nb/n"}}`, nil, forge.ErrInvalid},
	} {
		header := func(k string) string {
			return map[string]string{"X-Gitea-Event": c.event, "X-Gitea-Signature": strings.TrimPrefix(forgetest.Sign("secret", c.body), "sha256=")}[k]
		}
		for range 2 { // the same again says the same
			got, err := d.ReadHook([]byte("secret"), header, []byte(c.body))
			if !errors.Is(err, c.err) || (got == nil) != (c.want == nil) || got != nil && *got != *c.want {
				t.Errorf("%s %s: %+v, %v", c.event, c.body, got, err)
			}
		}
		for _, secret := range []string{"", "other"} {
			if e, err := d.ReadHook([]byte(secret), header, []byte(c.body)); e != nil || !errors.Is(err, forge.ErrSignature) {
				t.Errorf("with the secret %q: %+v, %v", secret, e, err)
			}
		}
	}
}
