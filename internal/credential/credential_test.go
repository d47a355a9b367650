package credential

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func token(claims string) string {
	return "eyJhbGciOiJFUzI1NiJ9." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".sig"
}

func ask(image, token string) string {
	return fmt.Sprintf(`{"apiVersion":"credentialprovider.kubelet.k8s.io/v1","kind":"CredentialProviderRequest","image":%q,"serviceAccountToken":%q,"serviceAccountAnnotations":{"a":"b"}}`, image, token)
}

func TestAnswer(t *testing.T) {
	in := func(d time.Duration) string { return token(fmt.Sprintf(`{"exp":%d}`, now.Add(d).Unix())) }
	secret := "cairn_node_a_" + strings.Repeat("x", 43)
	for _, tt := range []struct {
		name, in, secret            string
		host, user, password, lasts string
	}{
		{"a token of an hour", ask("registry.example.org/app/web:1", in(time.Hour)), "", "registry.example.org", "serviceaccount", in(time.Hour), "10m0s"},
		{"one that ends soon", ask("registry.example.org/app/web:1", in(5*time.Minute)), "", "registry.example.org", "serviceaccount", in(5 * time.Minute), "4m0s"},
		{"one that ends now", ask("registry.example.org/app/web:1", in(30*time.Second)), "", "registry.example.org", "serviceaccount", in(30 * time.Second), "0s"},
		{"one that has ended", ask("registry.example.org/app/web:1", in(-time.Hour)), "", "registry.example.org", "serviceaccount", in(-time.Hour), "0s"},
		{"one without an end", ask("localhost/app", token("{}")), "", "localhost", "serviceaccount", token("{}"), "0s"},
		{"one that cannot be read", ask("localhost:5000/app", "x"), "", "localhost:5000", "serviceaccount", "x", "0s"},
		{"a token wins over a secret", ask("a.b/c", in(time.Hour)), secret, "a.b", "serviceaccount", in(time.Hour), "10m0s"},
		{"a secret", ask("10.0.0.1:5080/app/web@sha256:00", ""), secret, "10.0.0.1:5080", "node_a", secret, "10m0s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := Answer([]byte(tt.in), tt.secret, now)
			if err != nil {
				t.Fatal(err)
			}
			var r response
			if err := json.Unmarshal(b, &r); err != nil {
				t.Fatal(err)
			}
			if r.Kind != "CredentialProviderResponse" || r.APIVersion != version || r.CacheKeyType != "Registry" || len(r.Auth) != 1 {
				t.Errorf("%s", b)
			}
			if a := r.Auth[tt.host]; a.Username != tt.user || a.Password != tt.password || r.CacheDuration != tt.lasts {
				t.Errorf("%s", b)
			}
		})
	}
}

func TestAnswerRefuses(t *testing.T) {
	for _, tt := range []struct{ name, in, secret, why string }{
		{"nothing", "", "", "read the kubelet's request"},
		{"no token", ask("a.b/c", ""), "", "tokenAttributes"},
		{"no registry", ask("busybox", "x"), "", "matchImages"},
		{"no registry, with a path", ask("library/busybox", "x"), "", "matchImages"},
		{"no image", ask("", "x"), "", "matchImages"},
		{"another version", strings.Replace(ask("a.b/c", "x"), "/v1", "/v2", 1), "", "speaks credentialprovider"},
		{"another kind", strings.Replace(ask("a.b/c", "x"), "ProviderRequest", "Hello", 1), "", "speaks credentialprovider"},
		{"another secret", ask("a.b/c", ""), "hunter2", "not of an account"},
	} {
		if b, err := Answer([]byte(tt.in), tt.secret, now); err == nil || !strings.Contains(err.Error(), tt.why) {
			t.Errorf("%s: %s, %v; want %q", tt.name, b, err, tt.why)
		} else if tt.secret != "" && strings.Contains(err.Error(), tt.secret) {
			t.Errorf("%s: the error tells the secret: %v", tt.name, err)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(ask("a.b/c", token(`{"exp":1}`))), "cairn_a_b")
	f.Add([]byte(ask("a.b/c", token(`{"exp":1e300}`))), "")
	f.Fuzz(func(t *testing.T, in []byte, secret string) {
		b, err := Answer(in, secret, now)
		if (err == nil) != json.Valid(b) {
			t.Errorf("%q: %q, %v", in, b, err)
		}
	})
}
