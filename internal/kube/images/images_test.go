package images

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/kube/jobs"
	"cairn.dev/cairn/internal/upstream"
)

func TestAccounts(t *testing.T) {
	auth := base64.StdEncoding.EncodeToString([]byte("ann:pass:word"))
	for _, c := range []struct {
		name, config, host string
		want               []upstream.Account
	}{
		{"new form", `{"auths": {"r.example": {"auth": "` + auth + `"}}}`, "r.example", []upstream.Account{{Username: "ann", Password: "pass:word"}}},
		{"old form", `{"https://r.example/v1/": {"username": "ann", "password": "x"}}`, "r.example", []upstream.Account{{Username: "ann", Password: "x"}}},
		{"another host", `{"auths": {"r.example.evil": {"auth": "` + auth + `"}}}`, "r.example", nil},
		{"a host below", `{"auths": {"*.r.example": {"auth": "` + auth + `"}}}`, "a.r.example", []upstream.Account{{Username: "ann", Password: "pass:word"}}},
		{"two below", `{"auths": {"*.r.example": {"auth": "` + auth + `"}}}`, "b.a.r.example", nil},
		{"a port is of the host", `{"auths": {"r.example:5000": {"auth": "` + auth + `"}}}`, "r.example", nil},
		{"the hub", `{"auths": {"https://index.docker.io/v1/": {"auth": "` + auth + `"}}}`, "docker.io", []upstream.Account{{Username: "ann", Password: "pass:word"}}},
		{"identity token", `{"auths": {"r.example": {"identitytoken": "t"}}}`, "r.example", []upstream.Account{{Username: upstream.IdentityToken, Password: "t"}}},
		{"no JSON", `{`, "r.example", nil},
		{"auth is no base64", `{"auths": {"r.example": {"auth": "?"}}}`, "r.example", nil},
	} {
		if got := Accounts([]byte(c.config), c.host); fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func FuzzAccounts(f *testing.F) {
	f.Add([]byte(`{"auths": {"https://r.example/v1/": {"auth": "YTpi"}}}`), "r.example")
	f.Add([]byte(`{"r.example": {"identitytoken": "x"}}`), "r.example")
	f.Fuzz(func(t *testing.T, b []byte, host string) {
		for _, a := range Accounts(b, host) {
			if a.Username == "" {
				t.Errorf("an account that is nobody's: %q", b)
			}
		}
	})
}

// private is a registry that knows ann alone, with one image for two platforms.
func private(t *testing.T) (host string) {
	t.Helper()
	layer := digest.FromString("layer")
	blobs := map[string][]byte{}
	put := func(b string) digest.Digest {
		d := digest.FromString(b)
		blobs[string(d)] = []byte(b)
		return d
	}
	var children []string
	for _, arch := range []string{"arm64", "amd64"} {
		config := fmt.Sprintf(`{"os": "linux", "architecture": %q, "config": {"Entrypoint": ["/run", %q], "Cmd": ["--help"], "User": "7"}, "rootfs": {"type": "layers", "diff_ids": [%q]}}`, arch, arch, layer)
		c := put(config)
		manifest := fmt.Sprintf(`{"schemaVersion": 2, "mediaType": %q, "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": %q, "size": %d}, "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": %q, "size": 5}]}`,
			image.MediaTypeManifest, c, len(config), layer)
		m := put(manifest)
		children = append(children, fmt.Sprintf(`{"mediaType": %q, "digest": %q, "size": %d, "platform": {"os": "linux", "architecture": %q}}`, image.MediaTypeManifest, m, len(manifest), arch))
	}
	index := fmt.Sprintf(`{"schemaVersion": 2, "mediaType": %q, "manifests": [%s]}`, image.MediaTypeIndex, strings.Join(children, ","))
	blobs["latest"] = []byte(index)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != "ann" || p != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		b, ok := blobs[r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		if strings.Contains(r.URL.Path, "/manifests/") {
			kind := image.MediaTypeManifest
			if strings.HasSuffix(r.URL.Path, "latest") {
				kind = image.MediaTypeIndex
			}
			w.Header().Set("Content-Type", kind)
		}
		_, _ = w.Write(b)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// secrets are those of a namespace.
type secrets map[string]string

func (s secrets) PullSecrets(context.Context, string) ([]string, error) {
	return []string{"default"}, nil
}

func (s secrets) PullSecret(_ context.Context, namespace, name string) ([]byte, error) {
	b, ok := s[namespace+"/"+name]
	if !ok {
		return nil, errors.New("not found")
	}
	return []byte(b), nil
}

func TestFind(t *testing.T) {
	host := private(t)
	auths := func(password string) string {
		return fmt.Sprintf(`{"auths": {%q: {"username": "ann", "password": %q}}}`, host, password)
	}
	f := New(Config{Clock: clock.NewFake(time.Unix(0, 0)), Secrets: secrets{"a/default": auths("wrong"), "a/mine": auths("secret"), "b/default": auths("wrong")}})
	got, err := f.Find(t.Context(), "a", host+"/team/app", []string{"mine"})
	if err != nil || len(got.Entrypoint) != 2 || got.Entrypoint[0] != "/run" || got.Command[0] != "--help" || got.User != "7" {
		t.Errorf("%+v %v", got, err)
	}
	for _, c := range []struct {
		namespace, reference string
		secrets, want        []string
	}{
		{"b", host + "/team/app", []string{"gone"}, []string{"image " + host + "/team/app", "registry " + host, "gone (which cannot be read), default of namespace b"}},
		{"c", host + "/team/app", nil, []string{"default (which cannot be read) of namespace c"}},
		{"a", host + "/team/app:2", []string{"mine"}, []string{"team/app:2"}},
		{"a", host + "/Team/app", nil, []string{"Team"}},
	} {
		_, err := f.Find(t.Context(), c.namespace, c.reference, c.secrets)
		if !errors.Is(err, jobs.ErrImage) {
			t.Errorf("%s in %s: %v", c.reference, c.namespace, err)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s in %s: %q does not say %q", c.reference, c.namespace, err, want)
			}
		}
		if strings.Contains(err.Error(), "secret\"") || strings.Contains(err.Error(), "wrong") {
			t.Errorf("it tells a password: %v", err)
		}
	}
}
