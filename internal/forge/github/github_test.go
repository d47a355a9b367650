package github_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/forge/forgetest"
	"cairn.dev/cairn/internal/forge/github"
	"cairn.dev/cairn/internal/forge/rest"
)

var began = time.Unix(1_790_000_000, 0)

func fake(t *testing.T) (*forgetest.Fake, *github.Driver) {
	t.Helper()
	f := forgetest.GitHub(t, forgetest.NewMemory(clock.NewFake(began), "cairn-bot"))
	d, err := github.New(github.Config{URL: f.URL, Token: rest.Secret{Value: forgetest.GitHubToken}}, github.Deps{Clock: clock.Real()})
	if err != nil {
		t.Fatal(err)
	}
	return f, d
}

func TestSuite(t *testing.T) {
	f, d := fake(t)
	forgetest.Run(t, f.Memory.Site(d))
}

// A commit on top of a branch is one that GitHub signs; what that call cannot
// do goes another way.
func TestWaysToCommit(t *testing.T) {
	f, d := fake(t)
	head := f.Memory.AddRepository("team/app", map[string]string{"a.tf": "1", "run*": "1"})
	one := ""
	for _, c := range []struct {
		what   string
		commit forge.Commit
		signed bool
	}{
		{"new branch", forge.Commit{Branch: "x", Parent: head, Files: map[string][]byte{"a.tf": []byte("2")}}, true},
		{"on top", forge.Commit{Branch: "x", Parent: "one", Head: "one", Files: map[string][]byte{"a.tf": {0xff, 0xfe}}}, true},
		{"onto another base", forge.Commit{Branch: "x", Parent: head, Head: "one", Files: map[string][]byte{"a.tf": {0xff}}}, false},
		{"an executable file", forge.Commit{Branch: "y", Parent: head, Files: map[string][]byte{"run": []byte("2")}}, false},
	} {
		c.commit.Message = "subject\n\nbody"
		for _, p := range []*string{&c.commit.Parent, &c.commit.Head} {
			if *p == "one" {
				*p = one
			}
		}
		f.Fail(func(*http.Request, int) *forgetest.WireFault { return nil })
		h, err := d.Commit(t.Context(), "team/app", c.commit)
		if err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		one = h
		if signed := !strings.Contains(strings.Join(f.Asked(), "\n"), "/git/commits"); signed != c.signed {
			t.Errorf("%s: signed %v: %q", c.what, signed, f.Asked())
		}
		for name, body := range c.commit.Files {
			if got := f.Memory.Files("team/app", h)[name]; got != string(body) {
				t.Errorf("%s: %s is %q", c.what, name, got)
			}
		}
	}
}

// A branch that could not get its commit does not stay.
func TestHalfMadeBranch(t *testing.T) {
	f, d := fake(t)
	head := f.Memory.AddRepository("team/app", map[string]string{"a.tf": "1"})
	for _, late := range []bool{false, true} {
		n := 0
		f.Fail(func(r *http.Request, _ int) *forgetest.WireFault {
			if r.URL.Path == "/api/graphql" {
				if n++; n == 2 { // after the survey
					return &forgetest.WireFault{Status: 502, Late: late}
				}
			}
			return nil
		})
		_, err := d.Commit(t.Context(), "team/app", forge.Commit{Branch: "x", Parent: head, Message: "m", Files: map[string][]byte{"a.tf": []byte("2")}})
		if err == nil {
			t.Fatal("no error")
		}
		at, made := f.Memory.Branches("team/app")["x"]
		if made != late || at == head {
			t.Errorf("late %v: the branch is there: %v, at %s (%v)", late, made, at, err)
		}
	}
}

func TestApp(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"PKCS 1": {Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)},
		"PKCS 8": {Type: "PRIVATE KEY", Bytes: pkcs8},
	} {
		t.Run(name, func(t *testing.T) {
			time := clock.NewFake(began)
			f := forgetest.GitHub(t, forgetest.NewMemory(time, "cairn[bot]"))
			f.AppKey(&key.PublicKey)
			d, err := github.New(github.Config{URL: f.URL, App: github.App{ID: forgetest.AppID, Key: rest.Secret{Value: string(pem.EncodeToMemory(block))}}}, github.Deps{Clock: time})
			if err != nil {
				t.Fatal(err)
			}
			forgetest.Run(t, f.Memory.Site(d))
			head := f.Memory.AddRepository("team/app", map[string]string{"a.tf": "1"})

			tokens := func() (n int) {
				for _, a := range f.Asked() {
					if strings.HasSuffix(a, "/access_tokens") {
						n++
					}
				}
				return n
			}
			f.Fail(nil)
			time.Advance(56 * 60 * 1e9) // what is left of the hour is not enough
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					if h, err := d.Head(t.Context(), "team/app", "main"); err != nil || h != head {
						t.Errorf("Head = %s, %v", h, err)
					}
				})
			}
			wg.Wait()
			if n := tokens(); n != 1 {
				t.Errorf("%d tokens were made where one ended", n)
			}
			if _, err := d.Head(t.Context(), "team/other", "main"); !errors.Is(err, forge.ErrNotFound) || !strings.Contains(err.Error(), "installed") {
				t.Errorf("where the app is not installed: %v", err)
			}
		})
	}
	for _, bad := range []string{"", "no PEM", "-----BEGIN RSA PRIVATE KEY-----\nc2VjcmV0\n-----END RSA PRIVATE KEY-----\n"} {
		if _, err := github.New(github.Config{App: github.App{ID: "1", Key: rest.Secret{Value: bad}}}, github.Deps{Clock: clock.Real()}); err == nil || strings.Contains(err.Error(), "c2VjcmV0") {
			t.Errorf("the key %q: %v", bad, err)
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
		{"ping", `{"zen":"Design for failure."}`, nil, nil},
		{"push", `{"ref":"refs/heads/main","before":"` + a + `","after":"` + b + `","repository":{"full_name":"o/n"}}`, &forge.Event{Repo: "o/n", Branch: "main", Before: a, Head: b}, nil},
		{"push", `{"ref":"refs/heads/x/y","before":"` + o + `","after":"` + b + `","repository":{"full_name":"o/n"}}`, &forge.Event{Repo: "o/n", Branch: "x/y", Head: b}, nil},
		{"push", `{"ref":"refs/tags/v1","after":"` + b + `","repository":{"full_name":"o/n"}}`, nil, nil},
		{"pull_request", `{"action":"closed","number":12,"repository":{"full_name":"o/n"}}`, &forge.Event{Repo: "o/n", Pull: 12}, nil},
		{"check_suite", `{"check_suite":{"pull_requests":[{"number":3}]},"repository":{"full_name":"o/n"}}`, &forge.Event{Repo: "o/n", Pull: 3}, nil},
		{"check_suite", `{"check_suite":{"pull_requests":[]},"repository":{"full_name":"o/n"}}`, nil, nil},
		{"installation", `{"action":"created"}`, nil, nil},
		{"push", `payload=%7B%7D`, nil, forge.ErrInvalid},
		{"push", `{"ref":"refs/heads/main","after":"` + b + `","repository":{"full_name":"o/n/../x"}}`, nil, forge.ErrInvalid},
		{"push", `{"ref":"refs/heads/-x","after":"` + b + `","repository":{"full_name":"o/n"}}`, nil, forge.ErrInvalid},
	} {
		header := func(k string) string {
			return map[string]string{"X-GitHub-Event": c.event, "X-Hub-Signature-256": forgetest.Sign("secret", c.body)}[k]
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
		if e, err := d.ReadHook([]byte("secret"), header, []byte(c.body+" ")); e != nil || !errors.Is(err, forge.ErrSignature) {
			t.Errorf("with a byte more: %+v, %v", e, err)
		}
	}
	none := func(string) string { return "" }
	if _, err := d.ReadHook(nil, none, nil); !errors.Is(err, forge.ErrSignature) {
		t.Errorf("nothing at all: %v", err)
	}
}
