package keychain

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/upstream"
)

// home is an empty home folder, and a machine that is nobody anywhere.
func home(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for k, v := range map[string]string{
		"HOME": dir, "DOCKER_CONFIG": filepath.Join(dir, ".docker"), "XDG_CONFIG_HOME": dir, "XDG_RUNTIME_DIR": dir, "REGISTRY_AUTH_FILE": "",
		"PATH":              dir + string(os.PathListSeparator) + "/bin",
		"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "", "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_CONFIG_FILE": filepath.Join(dir, "none"), "AWS_SHARED_CREDENTIALS_FILE": filepath.Join(dir, "none"),
		"GOOGLE_APPLICATION_CREDENTIALS": "", "GCE_METADATA_HOST": "127.0.0.1:1",
	} {
		t.Setenv(k, v)
	}
	return dir
}

func write(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, endpoint string) (*Keychain, *clock.Fake) {
	t.Helper()
	c := clock.NewFake(time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC))
	k, err := New(Config{Clock: c, Getenv: func(string) string { return endpoint }})
	if err != nil {
		t.Fatal(err)
	}
	return k, c
}

func basic(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

func TestDocker(t *testing.T) {
	dir := home(t)
	// A helper as Docker calls it: the host comes on its input.
	write(t, filepath.Join(dir, "docker-credential-test"), `#!/bin/sh
read host
case $host in
helped.example) echo '{"ServerURL":"helped.example","Username":"ann","Secret":"from the helper"}' ;;
token.example) echo '{"ServerURL":"token.example","Username":"<token>","Secret":"refresh"}' ;;
*) echo 'credentials not found in native keychain'; exit 1 ;;
esac
`, 0o700)
	write(t, filepath.Join(dir, ".docker", "config.json"), fmt.Sprintf(`{"auths":{
		"registry.example:5000":{"auth":%q},
		"https://index.docker.io/v1/":{"auth":%q},
		"azure.example":{"auth":%q,"identitytoken":"refresh"},
		"used.example":{"registrytoken":"t"}},
		"credHelpers":{"helped.example":"test","token.example":"test","unhelped.example":"test","broken.example":"nowhere"}}`,
		basic("bob", "p:w"), basic("hub", "pw"), basic("00000000-0000-0000-0000-000000000000", "")), 0o600)
	k, _ := open(t, "")
	token := upstream.Account{Username: upstream.IdentityToken, Password: "refresh"}
	for host, want := range map[string]upstream.Account{
		"registry.example:5000": {Username: "bob", Password: "p:w"},
		"docker.io":             {Username: "hub", Password: "pw"},
		"azure.example":         token,
		"helped.example":        {Username: "ann", Password: "from the helper"},
		"token.example":         token,
		"unhelped.example":      {},
		"other.example":         {},
		"localhost:5000":        {},
	} {
		if got, err := k.Account(t.Context(), host); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", host, got, err, want)
		}
	}
	for host, want := range map[string]string{"broken.example": "docker login", "used.example": "registrytoken", "a b": "a b"} {
		if got, err := k.Account(t.Context(), host); err == nil || !strings.Contains(err.Error(), want) || got != (upstream.Account{}) {
			t.Errorf("%s: %+v, %v", host, got, err)
		}
	}
}

func TestPodman(t *testing.T) {
	dir := home(t)
	file := filepath.Join(dir, "auth.json")
	write(t, file, fmt.Sprintf(`{"auths":{"registry.example":{"auth":%q}}}`, basic("pod", "man")), 0o600)
	t.Setenv("REGISTRY_AUTH_FILE", file)
	k, _ := open(t, "")
	if got, err := k.Account(t.Context(), "registry.example"); err != nil || got != (upstream.Account{Username: "pod", Password: "man"}) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestECR(t *testing.T) {
	home(t)
	const host = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
	var answer func(w http.ResponseWriter, r *http.Request)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(w, r) }))
	defer s.Close()
	good := func(w http.ResponseWriter, r *http.Request) {
		auth := r.Header.Get("Authorization")
		if r.Method != http.MethodPost || r.Header.Get("X-Amz-Target") != "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken" ||
			!strings.HasPrefix(auth, "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261101/eu-central-1/ecr/aws4_request") || !strings.Contains(auth, "x-amz-target") {
			t.Errorf("%s %s", r.Method, r.Header)
		}
		fmt.Fprintf(w, `{"authorizationData":[{"authorizationToken":%q,"expiresAt":1.7e9,"proxyEndpoint":"https://x"}]}`, basic("AWS", "secret"))
	}
	k, _ := open(t, s.URL)
	if _, err := k.Account(t.Context(), host); err == nil || !strings.Contains(err.Error(), "nobody at Amazon") {
		t.Errorf("without keys: %v", err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
	for name, tc := range map[string]struct {
		answer func(w http.ResponseWriter, r *http.Request)
		want   string // of the error
	}{
		"good":    {good, ""},
		"refused": {func(w http.ResponseWriter, r *http.Request) { http.Error(w, `{"__type":"AccessDeniedException"}`, 400) }, "AccessDeniedException"},
		"nothing": {func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"authorizationData":[]}`) }, "has none"},
		"HTML":    {func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `<html>`) }, "has none"},
		"no base64": {func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, `{"authorizationData":[{"authorizationToken":"%"}]}`)
		}, "has none"},
		"no colon": {func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, `{"authorizationData":[{"authorizationToken":"QVdT"}]}`)
		}, "has none"},
		"elsewhere": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x", http.StatusFound) }, "302"},
	} {
		answer = tc.answer
		k, _ := open(t, s.URL)
		got, err := k.Account(t.Context(), host)
		if tc.want == "" && (err != nil || got != upstream.Account{Username: "AWS", Password: "secret"}) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %+v, %v; want %q", name, got, err, tc.want)
		}
	}
}

func TestECRHosts(t *testing.T) {
	for host, want := range map[string]string{
		"123456789012.dkr.ecr.us-east-1.amazonaws.com":              "https://api.ecr.us-east-1.amazonaws.com/",
		"123456789012.dkr.ecr-fips.us-east-1.amazonaws.com":         "https://ecr-fips.us-east-1.amazonaws.com/",
		"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn":          "https://api.ecr.cn-north-1.amazonaws.com.cn/",
		"123456789012.dkr-ecr.us-east-1.on.aws":                     "https://api.ecr.us-east-1.amazonaws.com/",
		"public.ecr.aws":                                            "",
		"123456789012.dkr.ecr.us-east-1.amazonaws.com.evil.example": "",
		"x.dkr.ecr.us-east-1.amazonaws.com":                         "",
	} {
		r, ok := parseECR(host)
		if ok != (want != "") || r.endpoint != want {
			t.Errorf("%s: %+v, %v; want %q", host, r, ok, want)
		}
	}
}

func TestGoogle(t *testing.T) {
	dir := home(t)
	k, _ := open(t, "")
	if got, err := k.Account(t.Context(), "gcr.io"); err != nil || got != (upstream.Account{}) {
		t.Errorf("without an identity: %+v, %v", got, err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"access_token":"ya29.x","expires_in":3600,"token_type":"Bearer"}`)
	}))
	defer s.Close()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]string{"type": "service_account", "project_id": "p", "client_email": "a@p.example", "private_key_id": "1", "token_uri": s.URL,
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "adc.json")
	write(t, file, string(text), 0o600)
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", file)
	k, _ = open(t, "")
	for host, want := range map[string]upstream.Account{
		"gcr.io": {Username: "_token", Password: "ya29.x"}, "eu.gcr.io": {Username: "_token", Password: "ya29.x"}, "europe-docker.pkg.dev": {Username: "_token", Password: "ya29.x"},
		"gcr.io.evil.example": {}, "pkg.dev": {}, "evil-gcr.io": {},
	} {
		if got, err := k.Account(t.Context(), host); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", host, got, err, want)
		}
	}
}

// Answers hold for a while, failures for a shorter one, and one host's helper
// does not hold up another's.
func TestHolds(t *testing.T) {
	k, c := open(t, "")
	asked := map[string]int{}
	var fail error
	k.ask = func(_ context.Context, host string) (upstream.Account, error) {
		asked[host]++
		return upstream.Account{Username: host, Password: fmt.Sprint(asked[host])}, fail
	}
	check := func(host, want string) {
		t.Helper()
		if got, err := k.Account(t.Context(), host); got.Password != want || (err != nil) != (fail != nil) {
			t.Errorf("%s: %+v, %v; want %q", host, got, err, want)
		}
	}
	check("a.example", "1")
	check("a.example", "1")
	check("b.example", "1")
	c.Advance(holds)
	check("a.example", "2")
	fail = errors.New("locked")
	c.Advance(holds)
	check("a.example", "")
	check("a.example", "")
	if asked["a.example"] != 3 {
		t.Errorf("asked %d times, want 3", asked["a.example"])
	}
	c.Advance(holdsError)
	fail = nil
	check("a.example", "4")
	fail = context.Canceled
	c.Advance(holds)
	check("a.example", "")
	fail = nil
	check("a.example", "6") // who left says nothing about the host
}
