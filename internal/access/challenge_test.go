package access

import (
	"crypto/tls"
	"net/http"
	"strings"
	"testing"
)

func TestChallenge(t *testing.T) {
	plain := newFixture(t, nil)
	external := newFixture(t, func(c *Config) { c.ExternalURL = "https://registry.example.org/"; c.Service = "registry.example.org" })
	const basicOnly = `Basic realm="cairn"`
	for _, c := range []struct {
		name    string
		g       *fixture
		host    string
		path    string
		tls     bool
		repo    string
		actions []Action
		want    string
	}{
		{"ping", plain, "r.example.org", "/v2/", false, "", nil, `Bearer realm="http://r.example.org/auth/token",service="cairn"`},
		{"pull", plain, "127.0.0.1:5080", "/v2/a/b/tags/list", false, "a/b", []Action{Pull}, `Bearer realm="http://127.0.0.1:5080/auth/token",service="cairn",scope="repository:a/b:pull"`},
		{"push over TLS", plain, "[::1]:5080", "/v2/a/blobs/uploads/", true, "a", []Action{Pull, Push}, `Bearer realm="https://[::1]:5080/auth/token",service="cairn",scope="repository:a:pull,push"`},
		{"external", external, "10.0.0.1:5080", "/v2/", false, "a", []Action{Delete}, `Bearer realm="https://registry.example.org/auth/token",service="registry.example.org",scope="repository:a:delete"`},
		{"external, odd host", external, `x"y`, "/v2/", false, "", nil, `Bearer realm="https://registry.example.org/auth/token",service="registry.example.org"`},
		{"API", plain, "r.example.org", "/api/v1/images", false, "", nil, basicOnly},
		{"no path of the registry", plain, "r.example.org", "/v2x", false, "", nil, basicOnly},
		{"repository that is none", plain, "r.example.org", "/v2/x", false, "a\",scope=\"b", []Action{Pull}, `Bearer realm="http://r.example.org/auth/token",service="cairn"`},
		{"quote in the host", plain, `r",realm="http://evil`, "/v2/", false, "", nil, basicOnly},
		{"line break in the host", plain, "r\r\nX-Evil: 1", "/v2/", false, "", nil, basicOnly},
		{"path in the host", plain, "r/evil", "/v2/", false, "", nil, basicOnly},
		{"user in the host", plain, "good@evil", "/v2/", false, "", nil, basicOnly},
		{"no host", plain, "", "/v2/", false, "", nil, basicOnly},
	} {
		r := request("GET", "http://x"+"/", "")
		r.Host, r.URL.Path = c.host, c.path
		r.Header.Set("X-Forwarded-Proto", "https") // nobody vouches for it
		r.Header.Set("X-Forwarded-Host", "evil.example.org")
		if c.tls {
			r.TLS = &tls.ConnectionState{}
		}
		h := http.Header{}
		c.g.Challenge(h, r, c.repo, c.actions...)
		if got := strings.Join(h["Www-Authenticate"], "\n"); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
}

func TestValidHost(t *testing.T) {
	for s, want := range map[string]bool{
		"a": true, "a.b-c.example": true, "a:1": true, "a_b:65535": true, "1.2.3.4:80": true, "[::1]": true, "[::1]:80": true, "[2001:db8::1]": true,
		"": false, ":80": false, "a:": false, "a:65536": false, "a:x": false, "a:1:2": false, "::1": false, "[::1": false, "[::1]x": false, "[::1]:": false, "[a]": false, "[1.2.3.4]": false, "[fe80::1%eth0]": false,
		"a b": false, "a\tb": false, "ä.example": false, "a,b": false, "a;b": false, "a\\b": false, strings.Repeat("a", 300): false,
	} {
		if got := validHost(s); got != want {
			t.Errorf("validHost(%q) = %v, want %v", s, got, want)
		}
	}
}

func FuzzHost(f *testing.F) {
	x := newFixture(f, nil)
	for _, s := range []string{"a", "[::1]:80", "a:80", "a\"", "[", "]:"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, host string) {
		r := request("GET", "/v2/", "")
		r.Host = host
		h := http.Header{}
		x.Challenge(h, r, "a", Pull)
		got := h.Get("WWW-Authenticate")
		if got != basicChallenge && (strings.Count(got, `"`) != 6 || !isASCII(got) || strings.Contains(got, " ") && strings.Count(got, " ") != 1) {
			t.Fatalf("Host %q: challenge %q", host, got)
		}
	})
}
