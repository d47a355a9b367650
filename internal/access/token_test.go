package access

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// reply is what a client sees of the token endpoint.
type reply struct {
	status int
	header http.Header
	tokenReply
	RefreshToken string `json:"refresh_token"`
	Error        string `json:"error"`
	Description  string `json:"error_description"`
	Errors       []struct{ Code, Message string }
}

func (f *fixture) ask(r *http.Request) reply {
	f.t.Helper()
	w := httptest.NewRecorder()
	f.Token().ServeHTTP(w, r)
	out := reply{status: w.Code, header: w.Header()}
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
		f.t.Fatalf("the answer %d %q is no JSON: %v", w.Code, w.Body, err)
	}
	if got := w.Header().Get("Cache-Control"); got != "no-store" {
		f.t.Errorf("Cache-Control %q: tokens must not be cached", got)
	}
	return out
}

func (f *fixture) get(auth string, scopes ...string) reply {
	f.t.Helper()
	q := url.Values{"service": {"cairn"}, "scope": scopes}
	return f.ask(request("GET", TokenPath+"?"+q.Encode(), auth))
}

func (f *fixture) post(form url.Values) reply {
	f.t.Helper()
	r := httptest.NewRequest("POST", TokenPath, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return f.ask(r)
}

func TestTokenGet(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.AnonymousPull = []string{"public/**"} })
	secret := f.create(NewAccount{Name: "ci", Uncounted: true, Grants: append(grant("app/**", Pull, Push), grant("lib", Pull)...)})
	me := basic("ci", secret)
	for _, c := range []struct {
		name, auth string
		scopes     []string
		want       string
	}{
		{"what is asked for", me, []string{"repository:app/web:pull,push"}, "repository:app/web:pull,push"},
		{"less than the account may", me, []string{"repository:app/web:pull"}, "repository:app/web:pull"},
		{"more than the account may", me, []string{"repository:app/web:*"}, "repository:app/web:pull,push"},
		{"some of several", me, []string{"repository:app/web:pull,push repository:lib:pull,push", "repository:x:pull"}, "repository:app/web:pull,push repository:lib:pull"},
		{"nothing asked for, as docker login does", me, nil, ""},
		{"another's", me, []string{"repository:public/x:pull"}, ""},
		{"anonymous", "", []string{"repository:public/x:pull,push"}, "repository:public/x:pull"},
		{"anonymous, nothing there", "", []string{"repository:app/web:pull"}, ""},
		{"the catalog", me, []string{"registry:catalog:*"}, ""},
		{"a bearer secret", "Bearer " + secret, []string{"repository:lib:pull"}, "repository:lib:pull"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := f.get(c.auth, c.scopes...)
			if r.status != 200 || r.Scope != c.want {
				t.Fatalf("%d, scope %q, want 200 and %q", r.status, r.Scope, c.want)
			}
			issued, err := time.Parse(time.RFC3339, r.IssuedAt)
			if r.Token == "" || r.Token != r.AccessToken || r.ExpiresIn != 300 || err != nil || !issued.Equal(start) || r.RefreshToken != "" || r.TokenType != "Bearer" {
				t.Errorf("reply %+v", r)
			}
			p := f.who("Bearer " + r.Token)
			anonymous := c.auth == ""
			if p.Via != ViaToken || p.MustLogIn() || p.Anonymous != anonymous || p.Counts != anonymous {
				t.Errorf("the token is held by %+v", p)
			}
			granted, err := parseScopes([]string{r.Scope})
			if err != nil {
				t.Fatal(err)
			}
			for _, repo := range []string{"app/web", "lib", "x", "public/x", ""} {
				for _, a := range Actions() {
					if got, want := p.Can(a, repo), limitAllows(granted, a, repo); got != want {
						t.Errorf("with a token for %q Can(%s, %q) = %v", r.Scope, a, repo, got)
					}
				}
			}
		})
	}
}

func TestTokenPost(t *testing.T) {
	f := newFixture(t, nil)
	secret := f.create(NewAccount{Name: "ci", Grants: grant("app/**", Pull)})
	scope := "repository:app/web:pull,push"
	r := f.post(url.Values{"grant_type": {"password"}, "username": {"ci"}, "password": {secret}, "service": {"cairn"}, "client_id": {"x"}, "access_type": {"offline"}, "scope": {scope}})
	if r.status != 200 || r.Scope != "repository:app/web:pull" || r.AccessToken == "" || r.RefreshToken != "" {
		t.Errorf("password: %+v", r)
	}
	r = f.post(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {secret}, "service": {"cairn"}, "client_id": {"x"}, "scope": {scope}})
	if r.status != 200 || f.who("Bearer "+r.AccessToken).Name != "ci" {
		t.Errorf("refresh_token: %+v", r)
	}
	for name, c := range map[string]struct {
		form   url.Values
		status int
		err    string
	}{
		"wrong password":      {url.Values{"grant_type": {"password"}, "username": {"ci"}, "password": {newSecret("ci")}}, 401, "invalid_grant"},
		"no password":         {url.Values{"grant_type": {"password"}, "username": {"ci"}}, 401, "invalid_grant"},
		"nobody":              {url.Values{"grant_type": {"password"}}, 401, "invalid_grant"},
		"wrong refresh token": {url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"x"}}, 401, "invalid_grant"},
		"access as refresh":   {url.Values{"grant_type": {"refresh_token"}, "refresh_token": {r.AccessToken}}, 401, "invalid_grant"},
		"no grant type":       {url.Values{"username": {"ci"}, "password": {secret}}, 400, "unsupported_grant_type"},
		"another grant type":  {url.Values{"grant_type": {"device"}}, 400, "unsupported_grant_type"},
		"bad scope":           {url.Values{"grant_type": {"password"}, "username": {"ci"}, "password": {secret}, "scope": {"x"}}, 400, "invalid_scope"},
		"huge":                {url.Values{"grant_type": {strings.Repeat("x", maxTokenForm)}}, 400, "invalid_request"},
	} {
		r := f.post(c.form)
		if r.status != c.status || r.Error != c.err || r.Description == "" || len(r.Errors) != 1 || r.Errors[0].Message == "" || r.Token != "" {
			t.Errorf("%s: %+v, want %d %s", name, r, c.status, c.err)
		}
	}
}

func TestTokenRefusals(t *testing.T) {
	f := newFixture(t, nil)
	secret := f.create(NewAccount{Name: "ci", Grants: grant("app/**", Pull)})
	// Wrong credentials never turn into an anonymous token.
	r := f.get(basic("ci", newSecret("ci")), "repository:app/web:pull")
	if r.status != 401 || r.Token != "" || r.header.Get("WWW-Authenticate") == "" || r.Errors[0].Code != "UNAUTHORIZED" {
		t.Errorf("wrong secret: %+v", r)
	}
	for range int(perAccount.burst) {
		r = f.get(basic("ci", newSecret("ci")))
	}
	if r.status != 429 || r.header.Get("Retry-After") != "6" || r.Errors[0].Code != "TOOMANYREQUESTS" {
		t.Errorf("too many failures: %+v", r)
	}
	if r := f.get(basic("ci", secret)); r.status != 200 {
		t.Errorf("the right secret after them: %+v", r)
	}
	if r := f.get(basic("ci", secret), "repository"); r.status != 400 || r.Error != "invalid_scope" {
		t.Errorf("bad scope: %+v", r)
	}
	if r := f.ask(request("PUT", TokenPath, basic("ci", secret))); r.status != 405 || r.header.Get("Allow") != "GET, POST" {
		t.Errorf("PUT: %+v", r)
	}
	// Else one leaked token could be renewed for ever.
	token := f.get(basic("ci", secret), "repository:app/web:pull").Token
	if r := f.get("Bearer "+token, "repository:app/web:pull"); r.status != 401 || r.Token != "" {
		t.Errorf("a token for a token: %+v", r)
	}
}

// The largest request that is answered gives a token that is accepted.
func TestTokenSize(t *testing.T) {
	f := newFixture(t, nil)
	secret := f.create(NewAccount{Name: strings.Repeat("n", maxName), Kind: KindAdmin})
	var scopes []string
	for i := range maxScopes {
		scopes = append(scopes, fmt.Sprintf("repository:r%02d%s:*", i, strings.Repeat("a", 225)))
	}
	r := f.get(basic(strings.Repeat("n", maxName), secret), scopes...)
	if r.status != 200 {
		t.Fatalf("%d scopes: %+v", maxScopes, r)
	}
	if !f.who("Bearer "+r.Token).Can(Push, "r31"+strings.Repeat("a", 225)) {
		t.Error("the last scope is missing from the token")
	}
}

func TestTokenEnds(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		name string
		do   func(f *fixture) error
		ends bool
	}{
		{"nothing happens", func(*fixture) error { return nil }, false},
		{"just before its end", func(f *fixture) error { f.clock.Advance(tokenLife - time.Second); return nil }, false},
		{"at its end", func(f *fixture) error { f.clock.Advance(tokenLife); return nil }, true},
		{"the account is revoked", func(f *fixture) error { return f.Revoke(ctx, "ci") }, true},
		{"the account gets a new secret", func(f *fixture) error { _, _, err := f.Reset(ctx, "ci"); return err }, true},
		{"an account of the same name follows", func(f *fixture) error {
			if err := f.Revoke(ctx, "ci"); err != nil {
				return err
			}
			_, _, err := f.Create(ctx, NewAccount{Name: "ci", Kind: KindAdmin})
			return err
		}, true},
		{"the account expires", func(f *fixture) error { f.clock.Advance(time.Minute); return nil }, true},
		{"the clock is set back a little", func(f *fixture) error { f.clock.Jump(-clockSlack); return nil }, false},
		{"the clock is set back by a year", func(f *fixture) error { f.clock.Jump(-365 * 24 * time.Hour); return nil }, true},
		{"a restart", func(f *fixture) error { f.restart(); return nil }, false},
		{"a restart with another key", func(f *fixture) error { f.cfg.Secret = []byte(strings.Repeat("k", 32)); f.restart(); return nil }, true},
		{"a restart as another service", func(f *fixture) error { f.cfg.Service = "other"; f.restart(); return nil }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t, nil)
			n := NewAccount{Name: "ci", Grants: grant("app/**", Pull)}
			if strings.Contains(c.name, "expires") {
				n.Expires = start.Add(time.Minute)
			}
			token := f.get(basic("ci", f.create(n)), "repository:app/web:pull").Token
			if err := c.do(f); err != nil {
				t.Fatal(err)
			}
			want := 0
			if c.ends {
				want = 401
			}
			if got := f.status("Bearer " + token); got != want {
				t.Errorf("status %d, want %d", got, want)
			}
		})
	}
}

func TestTokenForgery(t *testing.T) {
	f := newFixture(t, nil)
	f.create(NewAccount{Name: "ci", Grants: grant("app/**", Pull)})
	token, err := f.sign(claims{Service: "cairn", Issued: start.Unix(), Expires: start.Add(time.Minute).Unix()})
	if err != nil {
		t.Fatal(err)
	}
	if got := f.status("Bearer " + token); got != 0 {
		t.Fatalf("the honest token: %d", got)
	}
	// Each changed, added or missing byte is noticed.
	for i := range token {
		for _, b := range []byte{token[i] ^ 1, token[i] ^ 0x20, '.', '='} {
			if b == token[i] {
				continue
			}
			if _, ok := f.verify(token[:i] + string(b) + token[i+1:]); ok {
				t.Errorf("byte %d changed from %q to %q: accepted", i, token[i], b)
			}
		}
		if _, ok := f.verify(token[:i]); ok {
			t.Errorf("cut at %d: accepted", i)
		}
	}
	// All spellings of the last digit, whose low bits decoders may skip.
	for _, d := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" {
		if s := token[:len(token)-1] + string(d); s != token {
			if _, ok := f.verify(s); ok {
				t.Errorf("last digit %q instead of %q: accepted", d, token[len(token)-1])
			}
		}
	}
	for _, s := range []string{token + "A", token + "=", " " + token, token + "\n", token[:strings.LastIndexByte(token, '.')] + ".", tokenPrefix + "." + base64.RawURLEncoding.EncodeToString(f.mac(tokenPrefix))} {
		if _, ok := f.verify(s); ok {
			t.Errorf("token %q: accepted", s)
		}
	}
}

func FuzzToken(f *testing.F) {
	x := newFixture(f, nil)
	good, err := x.sign(claims{Service: "cairn", Issued: start.Unix(), Expires: start.Add(time.Minute).Unix(), Access: []scope{{"a", []Action{Pull}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(tokenPrefix + "e30." + base64.RawURLEncoding.EncodeToString(x.mac(tokenPrefix+"e30")))
	f.Add(tokenPrefix)
	f.Add("..")
	signed := map[string]bool{good: true, tokenPrefix + "e30." + base64.RawURLEncoding.EncodeToString(x.mac(tokenPrefix+"e30")): true}
	f.Fuzz(func(t *testing.T, s string) {
		if _, ok := x.verify(s); ok && !signed[s] {
			t.Fatalf("verify(%q) accepts what was never signed", s)
		}
		if p, why := x.checkToken(s); (p == nil) != (why != "") {
			t.Fatalf("checkToken(%q) = %+v, %q", s, p, why)
		}
	})
}

func BenchmarkAuthenticate(b *testing.B) {
	f := newFixture(b, nil)
	secret := f.create(NewAccount{Name: "ci", Grants: grant("app/**", Pull)})
	for name, auth := range map[string]string{"basic": basic("ci", secret), "token": "Bearer " + f.get(basic("ci", secret), "repository:app/web:pull").Token, "none": ""} {
		b.Run(name, func(b *testing.B) {
			r := request("GET", "/v2/", auth)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f.Authenticate(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
