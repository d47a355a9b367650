package access

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const issuer = "https://kubernetes.default.svc"

// An issuance is a cluster that signs tokens.
type issuance struct {
	t   testing.TB
	key crypto.Signer
	alg jose.SignatureAlgorithm
	err error
	got int // how often the keys were read
}

func newIssuance(t testing.TB, alg jose.SignatureAlgorithm) *issuance {
	t.Helper()
	i := &issuance{t: t, alg: alg}
	var err error
	if alg == jose.ES256 {
		i.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	} else {
		i.key, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// Keys implements KeySource.
func (i *issuance) Keys(context.Context) ([]byte, error) {
	i.got++
	if i.err != nil {
		return nil, i.err
	}
	return json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: i.key.Public(), KeyID: "k", Use: "sig"}}})
}

// token is one of namespace/name as change leaves it.
func (i *issuance) token(account string, change func(map[string]any)) string {
	i.t.Helper()
	ns, sa, _ := strings.Cut(account, "/")
	claims := map[string]any{"iss": issuer, "sub": "system:serviceaccount:" + ns + ":" + sa, "aud": []string{"cairn"},
		"iat": start.Unix(), "nbf": start.Unix(), "exp": start.Add(time.Hour).Unix(),
		"kubernetes.io": map[string]any{"namespace": ns, "serviceaccount": map[string]any{"name": sa, "uid": "1"}}}
	if change != nil {
		change(claims)
	}
	return i.sign(i.alg, i.key, claims)
}

func (i *issuance) sign(alg jose.SignatureAlgorithm, key any, claims map[string]any) string {
	i.t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, nil)
	if err != nil {
		i.t.Fatal(err)
	}
	b, err := json.Marshal(claims)
	if err != nil {
		i.t.Fatal(err)
	}
	o, err := s.Sign(b)
	if err != nil {
		i.t.Fatal(err)
	}
	token, err := o.CompactSerialize()
	if err != nil {
		i.t.Fatal(err)
	}
	return token
}

func clustered(t testing.TB, clusters ...Cluster) *fixture {
	return newFixture(t, func(c *Config) { c.Clusters = clusters })
}

func TestClusterTokens(t *testing.T) {
	prod, dev := newIssuance(t, jose.RS256), newIssuance(t, jose.ES256)
	f := clustered(t,
		Cluster{Name: "prod", Issuer: issuer, Keys: prod, Agents: []string{"cairn/agent"}, Pull: []string{"app/**"}},
		Cluster{Name: "dev", Issuer: issuer, Keys: dev, Agents: []string{"cairn/agent"}})
	for _, tt := range []struct {
		name, token, who, cluster string
		report, pull              bool
	}{
		{"the agent of one cluster", prod.token("cairn/agent", nil), "prod/cairn/agent", "prod", true, true},
		{"of another with the same issuer, ES256", dev.token("cairn/agent", nil), "dev/cairn/agent", "dev", true, false},
		{"any other pulls", prod.token("shop/web", nil), "prod/shop/web", "prod", false, true},
		{"several audiences", prod.token("shop/web", func(c map[string]any) { c["aud"] = []string{"x", "cairn"} }), "prod/shop/web", "prod", false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, auth := range []string{"Bearer " + tt.token, basic("anything", tt.token), basic("", tt.token)} {
				p := f.who(auth)
				if p.Name != tt.who || p.Cluster != tt.cluster || p.Via != ViaCluster || p.Anonymous || !p.Counts {
					t.Errorf("%.20s…: %+v", auth, p)
				}
				if p.Can(Report, "app/web") != tt.report || p.Can(Pull, "app/web") != tt.pull || p.Can(Pull, "lib/x") || p.Can(Push, "app/web") || p.Can(Admin, "") || p.Can(Delete, "app/web") {
					t.Errorf("may report %v, pull %v", p.Can(Report, "app/web"), p.Can(Pull, "app/web"))
				}
			}
		})
	}
}

func TestClusterTokensRefused(t *testing.T) {
	prod, forger := newIssuance(t, jose.RS256), newIssuance(t, jose.RS256)
	f := clustered(t, Cluster{Name: "prod", Issuer: issuer, Keys: prod, Agents: []string{"cairn/agent"}})
	good := prod.token("cairn/agent", nil)
	with := func(key string, value any) string {
		return prod.token("cairn/agent", func(c map[string]any) {
			c[key] = value
			if value == nil {
				delete(c, key)
			}
		})
	}
	parts := strings.Split(good, ".")
	var claims map[string]any
	b, _ := base64.RawURLEncoding.DecodeString(parts[1])
	if err := json.Unmarshal(b, &claims); err != nil {
		t.Fatal(err)
	}
	public, _ := json.Marshal(prod.key.Public())
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`))
	for _, tt := range []struct{ name, token, why string }{
		{"signed by somebody else", forger.token("cairn/agent", nil), "was not signed by the cluster prod"},
		{"changed", parts[0] + "." + base64.RawURLEncoding.EncodeToString(bytes.Replace(b, []byte("agent"), []byte("admin"), 1)) + "." + parts[2], "was not signed"},
		{"not signed", none + "." + parts[1] + ".", "was not signed"},
		{"signed with the public key as a secret", prod.sign(jose.HS256, public, claims), "was not signed"},
		{"by another algorithm", prod.sign(jose.PS256, prod.key, claims), "was not signed"},
		{"for somebody else", with("aud", "https://kubernetes.default.svc"), `ask for the audience "cairn"`},
		{"for nobody", with("aud", nil), "audience"},
		{"expired", with("exp", start.Add(-time.Second).Unix()), "expired at 2026-11-23T11:59:59Z"},
		{"without an end", with("exp", nil), "no end"},
		{"not valid yet", with("nbf", start.Add(time.Hour).Unix()), "not valid yet"},
		{"of an unknown issuer", with("iss", "https://elsewhere"), "no cluster that is configured"},
		{"without an issuer", with("iss", nil), "no cluster that is configured"},
		{"of a user", with("sub", "jane"), "not of a ServiceAccount"},
		{"of one account in the name of another", with("sub", "system:serviceaccount:cairn:other"), "not of a ServiceAccount"},
		{"without claims of Kubernetes", with("kubernetes.io", nil), "not of a ServiceAccount"},
		{"of an account that may do nothing", prod.token("shop/web", nil), "may do nothing here"},
		{"no token at all", "eyJ..", "no cluster that is configured"},
		{"too long", "eyJ." + strings.Repeat("a", 15<<10) + ".x", "no cluster that is configured"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := f.Authenticate(request("POST", "/api/v1/uses", "Bearer "+tt.token))
			var e *Error
			if !errors.As(err, &e) || e.Status != http.StatusUnauthorized && e.Status != http.StatusTooManyRequests || !strings.Contains(e.Why, tt.why) {
				t.Errorf("%v, want %q", err, tt.why)
			}
		})
	}
	f.who("Bearer " + good) // failures of others lock nobody out
	f.clock.Advance(time.Hour + time.Second)
	if f.status("Bearer "+good) == 0 {
		t.Error("it is accepted after its end")
	}
}

// A cluster that changes its keys is followed; forged tokens do not make us
// ask for keys all the time; keys that cannot be had are no reason to forget
// those we have.
func TestClusterKeys(t *testing.T) {
	prod := newIssuance(t, jose.RS256)
	f := clustered(t, Cluster{Name: "prod", Issuer: issuer, Keys: prod, Agents: []string{"cairn/agent"}})
	prod.err = errors.New("no route to host")
	if _, err := f.Authenticate(request("GET", "/", "Bearer "+prod.token("cairn/agent", nil))); err == nil || !strings.Contains(err.Error(), "keys of the cluster prod cannot be had: no route") {
		t.Errorf("without keys: %v", err)
	}
	prod.err = nil
	f.clock.Advance(keysAgain)
	f.who("Bearer " + prod.token("cairn/agent", nil))
	read := prod.got
	forger := newIssuance(t, jose.RS256)
	for range 50 {
		f.status("Bearer " + forger.token("cairn/agent", nil))
	}
	if prod.got > read+1 {
		t.Errorf("50 forged tokens made it read the keys %d times", prod.got-read)
	}
	f.clock.Advance(keysAgain)
	prod.key = newIssuance(t, jose.RS256).key
	f.who("Bearer " + prod.token("cairn/agent", nil))
	prod.err = errors.New("no route to host")
	f.clock.Advance(50 * time.Minute)
	f.who("Bearer " + prod.token("cairn/agent", nil))
	f.clock.Advance(30 * time.Minute)
	f.who("Bearer " + prod.token("cairn/agent", func(c map[string]any) { c["exp"] = start.Add(3 * time.Hour).Unix() }))
	// A key that was taken out stops working within the hour.
	old := prod.token("cairn/agent", func(c map[string]any) { c["exp"] = start.Add(9 * time.Hour).Unix() })
	prod.err, prod.key = nil, newIssuance(t, jose.RS256).key
	f.clock.Advance(keysStale)
	if f.status("Bearer "+old) == 0 {
		t.Error("a key that was taken out still works")
	}
}

func TestClusterTokenEndpoint(t *testing.T) {
	prod := newIssuance(t, jose.ES256)
	c := Cluster{Name: "prod", Issuer: issuer, Keys: prod, Pull: []string{"app/**"}}
	f := clustered(t, c)
	jwt := prod.token("shop/web", func(c map[string]any) { c["exp"] = start.Add(90 * time.Second).Unix() })
	ask := func(r *http.Request) (int, tokenReply) {
		w := httptest.NewRecorder()
		f.Token().ServeHTTP(w, r)
		var reply tokenReply
		_ = json.Unmarshal(w.Body.Bytes(), &reply)
		return w.Code, reply
	}
	form := func(v url.Values) *http.Request {
		r := httptest.NewRequest("POST", TokenPath, strings.NewReader(v.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		return r
	}
	scope := "repository:app/web:pull,push"
	for name, r := range map[string]*http.Request{
		"GET":           request("GET", TokenPath+"?scope="+scope, basic("any", jwt)),
		"password":      form(url.Values{"grant_type": {"password"}, "username": {"any"}, "password": {jwt}, "scope": {scope}}),
		"refresh token": form(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {jwt}, "scope": {scope}}),
	} {
		t.Run(name, func(t *testing.T) {
			code, reply := ask(r)
			if code != http.StatusOK || reply.Scope != "repository:app/web:pull" || reply.ExpiresIn != 90 {
				t.Fatalf("%d %+v", code, reply)
			}
			p := f.who("Bearer " + reply.Token)
			if p.Name != "prod/shop/web" || p.Cluster != "prod" || !p.Can(Pull, "app/web") || p.Can(Pull, "app/api") || p.Can(Report, "app/web") {
				t.Errorf("%+v", p)
			}
		})
	}
	_, reply := ask(request("GET", TokenPath+"?scope="+scope, basic("any", jwt)))
	f.clock.Advance(90 * time.Second)
	if f.status("Bearer "+reply.Token) == 0 {
		t.Error("the access token lives longer than what it was given for")
	}
	if code, _ := ask(request("GET", TokenPath, basic("any", newIssuance(t, jose.ES256).token("shop/web", nil)))); code != http.StatusUnauthorized {
		t.Errorf("a forged token got %d", code)
	}
	// A cluster that is no longer trusted takes its access tokens along.
	f.clock.Advance(-90 * time.Second)
	f.clusters = nil
	if f.status("Bearer "+reply.Token) == 0 {
		t.Error("the access token outlives the trust in its cluster")
	}
}

func TestClusterConfig(t *testing.T) {
	keys := newIssuance(t, jose.ES256)
	good := Cluster{Name: "prod", Issuer: issuer, Keys: keys}
	for _, tt := range []struct {
		why      string
		clusters []Cluster
	}{
		{"name", []Cluster{{Name: "Prod!", Issuer: issuer, Keys: keys}}},
		{"no issuer", []Cluster{{Name: "prod", Keys: keys}}},
		{"no keys", []Cluster{{Name: "prod", Issuer: issuer}}},
		{"namespace/serviceaccount", []Cluster{{Name: "prod", Issuer: issuer, Keys: keys, Agents: []string{"agent"}}}},
		{"pull", []Cluster{{Name: "prod", Issuer: issuer, Keys: keys, Pull: []string{""}}}},
		{"twice", []Cluster{good, good}},
	} {
		f := clustered(t, good)
		f.cfg.Clusters = tt.clusters
		if _, err := New(t.Context(), f.cfg); err == nil || !strings.Contains(err.Error(), tt.why) {
			t.Errorf("%s: %v", tt.why, err)
		}
	}
	if _, _, err := clustered(t, good).Create(t.Context(), NewAccount{Name: "cluster", Kind: KindAdmin}); !errors.Is(err, ErrInvalid) {
		t.Errorf("an account that could speak for all clusters: %v", err)
	}
}

func TestKeySources(t *testing.T) {
	i := newIssuance(t, jose.RS256)
	set, err := i.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/openid/v1/jwks" {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		w.Write(set)
	}))
	defer s.Close()
	dir := t.TempDir()
	write := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	ca := write("ca.pem", fmt.Sprintf("-----BEGIN CERTIFICATE-----\n%s\n-----END CERTIFICATE-----\n", base64.StdEncoding.EncodeToString(s.Certificate().Raw)))
	u, err := NewKeyURL(s.URL+"/openid/v1/jwks", ca)
	if err != nil {
		t.Fatal(err)
	}
	strange, err := NewKeyURL(s.URL+"/openid/v1/jwks", "")
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, err := NewKeyURL(s.URL+"/", ca)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		source KeySource
		why    string
	}{
		{"url", u, ""},
		{"file", KeyFile(write("jwks", string(set))), ""},
		{"a certificate nobody trusts", strange, "certificate"},
		{"forbidden", elsewhere, "403"},
		{"no file", KeyFile(filepath.Join(dir, "none")), "no such file"},
		{"no JSON", KeyFile(write("text", "hello")), "not a JWK set"},
		{"no keys", KeyFile(write("empty", `{"keys":[]}`)), "no public key"},
		{"a secret key", KeyFile(write("oct", `{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}`)), "no public key"},
	} {
		k := newKeyring(tt.source, newFixture(t, nil).clock)
		keys, err := k.fetch(t.Context())
		if tt.why == "" && (err != nil || len(keys) != 1) || tt.why != "" && (err == nil || !strings.Contains(err.Error(), tt.why)) {
			t.Errorf("%s: %d keys, %v", tt.name, len(keys), err)
		}
	}
	if _, err := NewKeyURL(s.URL, write("no.pem", "x")); err == nil {
		t.Error("a file without certificates is accepted")
	}
	if !slices.Equal([]bool{signed("eyJh.b.c"), signed("cairn_ci_abc"), signed("ct1.a.b"), signed("eyJ")}, []bool{true, false, false, false}) {
		t.Error("signed does not know tokens from secrets")
	}
}
