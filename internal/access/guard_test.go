package access

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestNewRefuses(t *testing.T) {
	f := newFixture(t, nil)
	for want, change := range map[string]func(*Config){
		"signing key":  func(c *Config) { c.Secret = key[:31] },
		"external URL": func(c *Config) { c.ExternalURL = "registry.example.org" },
		"nothing after": func(c *Config) {
			c.ExternalURL = "https://registry.example.org/v2"
		},
		"service":     func(c *Config) { c.Service = `a"b` },
		"empty glob":  func(c *Config) { c.AnonymousPull = []string{""} },
		"http or htt": func(c *Config) { c.ExternalURL = "ftp://registry.example.org" },
	} {
		cfg := f.cfg
		change(&cfg)
		if _, err := New(context.Background(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New: %v, want an error about %q", err, want)
		}
	}
}

func TestAuthenticate(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.AnonymousPull = []string{"public/**"} })
	secret := f.create(NewAccount{Name: "ci", Grants: grant("app/**", Pull)})
	other := f.create(NewAccount{Name: "other", Grants: grant("**", Pull)})
	wrong := newSecret("ci")

	p := f.who("")
	if !p.Anonymous || !p.Counts || !p.MustLogIn() || !p.Can(Pull, "public/x") || p.Can(Pull, "app/x") || p.Can(Push, "public/x") {
		t.Errorf("without credentials: %+v", p)
	}
	for _, auth := range []string{basic("ci", secret), "Bearer " + secret, "bearer " + secret, "BASIC  " + basic("ci", secret)[len("Basic "):]} {
		p, err := f.Authenticate(request("GET", "/v2/", auth))
		if err != nil || p.Name != "ci" || p.Anonymous || p.Via != ViaSecret || p.MustLogIn() || p.Can(Pull, "public/x") {
			t.Errorf("%.12s…: %+v, %v", auth, p, err)
		}
	}
	for _, auth := range []string{
		basic("ci", wrong), basic("ci", other), basic("other", secret), basic("", secret), basic("ci", ""), basic("", ""), basic("nobody", newSecret("nobody")),
		basic("ci", secret+"x"), basic("CI", secret), "Bearer " + wrong, "Bearer " + secret + "x", "Bearer", "Bearer ", "Basic", "Basic !", "Basic " + base64.StdEncoding.EncodeToString([]byte("nocolon")),
		"Digest username=ci", secret, " ", "Bearer ct1.", "Bearer " + strings.Repeat("x", maxAuthorization),
		"Basic " + base64.StdEncoding.EncodeToString([]byte("ci:"+strings.Repeat("x", maxAuthorization))),
	} {
		f.clock.Advance(time.Hour) // keep the limit of failures out of this test
		if got := f.status(auth); got != 401 {
			t.Errorf("Authorization %.40q: status %d, want 401", auth, got)
		}
	}
	r := request("GET", "/v2/", basic("ci", secret))
	r.Header.Add("Authorization", basic("other", other))
	if _, err := f.Authenticate(r); err == nil {
		t.Error("two Authorization headers were accepted")
	}
	r = request("GET", "/v2/", "")
	r.Header["Authorization"] = []string{""}
	if _, err := f.Authenticate(r); err == nil {
		t.Error("an empty Authorization header became anonymous")
	}
	// Only the holder of a right secret learns whose it is.
	_, err := f.Authenticate(request("GET", "/v2/", basic("x", secret)))
	if err == nil || !strings.Contains(err.Error(), `"ci"`) {
		t.Errorf("right secret, wrong name: %v", err)
	}
	_, err = f.Authenticate(request("GET", "/v2/", basic("x", wrong)))
	if err == nil || strings.Contains(err.Error(), "ci\"") {
		t.Errorf("wrong secret: %v tells whether the account exists", err)
	}
}

func TestOpenAsksNobody(t *testing.T) {
	g, err := New(context.Background(), Config{Open: true, Clock: newFixture(t, nil).clock})
	if err != nil {
		t.Fatal(err)
	}
	for _, auth := range []string{"", "Basic !", "Bearer x"} {
		p, err := g.Authenticate(request("GET", "/v2/", auth))
		if err != nil || p.Via != ViaOpen || !p.Counts || p.MustLogIn() || !p.Can(Admin, "") || !p.Can(Push, "x") {
			t.Errorf("Authorization %q: %+v, %v", auth, p, err)
		}
	}
	h := http.Header{}
	g.Challenge(h, request("GET", "/v2/", ""), "x", Pull)
	if len(h) != 0 {
		t.Errorf("challenge in open mode: %v", h)
	}
}

func TestAllow(t *testing.T) {
	f := newFixture(t, nil)
	worker := f.create(NewAccount{Name: "worker", Grants: grant("**", Work)})
	runner := f.create(NewAccount{Name: "runner", Grants: grant("**", Run)})
	admin := f.create(NewAccount{Name: "root", Kind: KindAdmin})
	for auth, want := range map[string]int{
		"Bearer " + worker: 0, "Bearer " + admin: 0, "Bearer " + runner: 403, "": 401, "Bearer cairn_worker_wrong": 401,
	} {
		if got, err := f.Allow(Work)(request("POST", "/", auth)); got != want || (err == nil) != (want == 0) {
			t.Errorf("%.30q: %d %v, want %d", auth, got, err, want)
		}
	}
	open := newFixture(t, func(c *Config) { c.Open = true })
	if got, err := open.Allow(Work)(request("POST", "/", "")); got != 0 || err != nil {
		t.Errorf("open: %d %v", got, err)
	}
}

func TestFailuresAreSlowedDown(t *testing.T) {
	var log bytes.Buffer
	f := newFixture(t, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	good := f.create(NewAccount{Name: "ci", Grants: grant("**", Pull)})
	stale := basic("ci", newSecret("ci"))
	try := func(remote, auth string) *Error {
		r := request("GET", "/v2/", auth)
		r.RemoteAddr = remote
		_, err := f.Authenticate(r)
		var e *Error
		errors.As(err, &e)
		return e
	}
	const nat = "192.0.2.1:1000"
	for i := range int(perAccount.burst) {
		if e := try(nat, stale); e == nil || e.Status != 401 {
			t.Fatalf("failure %d: %+v, want 401", i+1, e)
		}
	}
	e := try("192.0.2.1:2000", stale) // another port is no other address
	if e == nil || e.Status != 429 || e.RetryAfter < time.Second || e.RetryAfter > perAccount.refill {
		t.Fatalf("one failure more: %+v, want 429 with a wait", e)
	}
	if strings.Count(log.String(), "\n") != int(perAccount.burst) {
		t.Errorf("the log has not one line per failure up to the limit:\n%s", log.String())
	}
	if strings.Contains(log.String(), stale) || strings.Contains(log.String(), "cairn_ci_") {
		t.Error("the log holds a secret")
	}
	// Neighbours behind the same address are not locked out: not with right
	// credentials, even of the same account, nor with another typo.
	if e := try(nat, basic("ci", good)); e != nil {
		t.Errorf("right secret from the same address: %v", e)
	}
	if e := try(nat, basic("ada", "typo")); e == nil || e.Status != 401 {
		t.Errorf("first failure of another account: %+v, want 401", e)
	}
	if e := try("192.0.2.2:1", stale); e == nil || e.Status != 401 {
		t.Errorf("first failure from another address: %+v, want 401", e)
	}
	// The wall clock has no say, time has.
	f.clock.Jump(time.Hour)
	if e := try(nat, stale); e == nil || e.Status != 429 {
		t.Errorf("after a clock jump: %+v, want 429", e)
	}
	f.clock.Advance(perAccount.refill)
	if e := try(nat, stale); e == nil || e.Status != 401 {
		t.Errorf("after waiting: %+v, want 401", e)
	}
	// Changing names does not help.
	limited := false
	for i := range 2 * int(perAddress.burst) {
		e := try(nat, basic(fmt.Sprintf("n%d", i), "typo"))
		limited = limited || e.Status == 429
	}
	if !limited {
		t.Error("a client that changes its name is never slowed down")
	}
	if e := try(nat, basic("ci", good)); e != nil {
		t.Errorf("right secret in the middle of that: %v", e)
	}
}

func TestNetwork(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1:1":                   "192.0.2.1",
		"[::ffff:192.0.2.1]:1":          "192.0.2.1",
		"[2001:db8:1:2:3:4:5:6]:1":      "2001:db8:1:2::/64",
		"[2001:db8:1:2:ffff::1%eth0]:1": "2001:db8:1:2::/64",
		"@":                             "@",
	} {
		if got := network(in); got != want {
			t.Errorf("network(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzAuthorization(f *testing.F) {
	x := newFixture(f, nil)
	secret := x.create(NewAccount{Name: "ci", Grants: grant("**", Pull)})
	for _, s := range []string{"", "Basic", "Basic Og==", basic("ci", "x"), basic("ci", newSecret("ci")), "Bearer " + newSecret("ci"), "Bearer ct1.e30.e30", "Negotiate x"} {
		f.Add(s)
	}
	good := map[string]bool{basic("ci", secret): true}
	f.Fuzz(func(t *testing.T, auth string) {
		r := request("GET", "/v2/", "")
		r.Header["Authorization"] = []string{auth}
		p, err := x.Authenticate(r)
		if (p == nil) == (err == nil) || p != nil && !good[auth] {
			t.Fatalf("Authorization %q: %+v, %v", auth, p, err)
		}
	})
}
