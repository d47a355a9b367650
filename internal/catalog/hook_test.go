package catalog_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/catalog"
	"cairn.dev/cairn/internal/image"
)

// The bodies in testdata/hook have the shape that each sender documents.
func TestHooks(t *testing.T) {
	const d = "@sha256:4bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459a"
	for name, tc := range map[string]struct {
		hook   catalog.Hook
		github string // X-GitHub-Event
		want   string
	}{
		"distribution":          {catalog.Hook{Kind: "distribution"}, "", "registry.example:5000/team/app:1.2.3" + d},
		"dockerhub":             {catalog.Hook{Kind: "dockerhub"}, "", "docker.io/team/app:1.2.3@"},
		"ghcr-registry_package": {catalog.Hook{Kind: "ghcr"}, "registry_package", "ghcr.io/team/app:1.2.3" + d},
		"ghcr-package":          {catalog.Hook{Kind: "ghcr"}, "package", "ghcr.io/team/app:1.2.3" + d},
		"ghcr-npm":              {catalog.Hook{Kind: "ghcr"}, "package", ""},
		"harbor":                {catalog.Hook{Kind: "harbor"}, "", "registry.example/team/app:1.2.3" + d},
		"harbor-cloudevents":    {catalog.Hook{Kind: "harbor", Host: "harbor.example:8443"}, "", "harbor.example:8443/team/app:1.2.3" + d},
		"harbor-pull":           {catalog.Hook{Kind: "harbor"}, "", ""},
		"quay":                  {catalog.Hook{Kind: "quay"}, "", "quay.io/team/app:1.2.3@ quay.io/team/app:latest@"},
		"quay-old":              {catalog.Hook{Kind: "quay"}, "", "quay.example/team/app:1.2.3@ quay.example/team/app:latest@"},
		"ecr":                   {catalog.Hook{Kind: "ecr"}, "", "123456789012.dkr.ecr.us-west-2.amazonaws.com/team/app:1.2.3" + d},
		"ecr-delete":            {catalog.Hook{Kind: "ecr"}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			body := recorded(t, name)
			header := http.Header{"X-Github-Event": {tc.github}}
			pushes, err := tc.hook.Read(header, "", body)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range pushes {
				got = append(got, fmt.Sprintf("%s:%s@%s", p.Repository, p.Tag, p.Digest))
			}
			if s := strings.Join(got, " "); s != tc.want {
				t.Errorf("got  %s\nwant %s", s, tc.want)
			}
		})
	}
}

// What is told twice in one webhook is one push.
func TestHookOnce(t *testing.T) {
	got, err := catalog.Hook{Kind: "quay"}.Read(nil, "", []byte(`{"repository":"a/b","docker_url":"quay.io/a/b","updated_tags":["1","2","1"]}`))
	if err != nil || len(got) != 2 {
		t.Errorf("%v, %v", got, err)
	}
}

func recorded(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "hook", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestHookSecrets(t *testing.T) {
	body := []byte(`{"action":"published","package":{"package_type":"npm"}}`)
	sign := func(secret string) string {
		m := hmac.New(sha256.New, []byte(secret))
		m.Write(body)
		return "sha256=" + hex.EncodeToString(m.Sum(nil))
	}
	h := func(key, value string) http.Header {
		return http.Header{http.CanonicalHeaderKey(key): {value}, "X-Github-Event": {"package"}}
	}
	for name, tc := range map[string]struct {
		kind   string
		header http.Header
		token  string
		ok     bool
	}{
		"signature":         {"ghcr", h("X-Hub-Signature-256", sign("s3cret")), "", true},
		"of another":        {"ghcr", h("X-Hub-Signature-256", sign("other")), "", false},
		"no signature":      {"ghcr", h("X", ""), "s3cret", false},
		"no hex":            {"ghcr", h("X-Hub-Signature-256", "sha256=zz"), "", false},
		"the old signature": {"ghcr", h("X-Hub-Signature", sign("s3cret")), "", false},
		"token":             {"quay", h("X", ""), "s3cret", true},
		"another token":     {"quay", h("X", ""), "s3cre", false},
		"no token":          {"quay", h("X", ""), "", false},
		"bearer":            {"distribution", h("Authorization", "Bearer s3cret"), "", true},
		"bearer, small":     {"distribution", h("Authorization", "bearer s3cret"), "", true},
		"as it is":          {"harbor", h("Authorization", "s3cret"), "", true},
		"another":           {"harbor", h("Authorization", "Bearer no"), "", false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := catalog.Hook{Kind: tc.kind, Secret: "s3cret"}.Read(tc.header, tc.token, body)
			if got := !errors.Is(err, catalog.ErrHookSecret); got != tc.ok {
				t.Errorf("let in: %v (%v), want %v", got, err, tc.ok)
			}
		})
	}
	// Basic accounts, as senders put them into headers, are the whole header.
	if _, err := (catalog.Hook{Kind: "quay", Secret: "Basic YTpi"}).Read(h("Authorization", "Basic YTpi"), "", []byte(`{"repository":"a/b"}`)); err != nil {
		t.Error(err)
	}
}

func TestBadHooks(t *testing.T) {
	many := strings.Repeat(`{"action":"push","target":{"repository":"a/b%d","tag":"x","digest":""},"request":{"host":"r.example"}},`, 1)
	var events strings.Builder
	for i := range 1001 {
		fmt.Fprintf(&events, many, i)
	}
	for name, tc := range map[string]struct{ kind, body, want string }{
		"unknown kind":     {"gitea", "{}", "one of distribution"},
		"no JSON":          {"quay", "<html>", "quay"},
		"no events":        {"distribution", "{}", "no events"},
		"no repository":    {"dockerhub", "{}", "repo_name"},
		"no package":       {"ghcr", `{"action":"published"}`, "no package"},
		"no type":          {"harbor", "{}", "no type"},
		"no detail":        {"ecr", "{}", "detail-type"},
		"nothing of quay":  {"quay", "{}", "no repository"},
		"tags of no shape": {"quay", `{"repository":"a/b","docker_url":"quay.io/a/b","updated_tags":7}`, "updated_tags"},
		"bad name":         {"quay", `{"repository":"../b","docker_url":"quay.io/a/b","updated_tags":["1"]}`, "names no repository"},
		"bad host":         {"quay", `{"repository":"a/b","docker_url":"x y.io@/a/b","updated_tags":["1"]}`, "names no repository"},
		"bad tag":          {"quay", `{"repository":"a/b","docker_url":"quay.io/a/b","updated_tags":["-"]}`, "names no tag"},
		"too many":         {"distribution", `{"events":[` + strings.TrimSuffix(events.String(), ",") + `]}`, "more than 1000"},
		"too long":         {"quay", strings.Repeat(" ", catalog.MaxHook+1), "bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := catalog.Hook{Kind: tc.kind}.Read(http.Header{"X-Github-Event": {"package"}}, "", []byte(tc.body))
			if err == nil || !strings.Contains(err.Error(), tc.want) || got != nil {
				t.Errorf("got %v, %v; want an error with %q", got, err, tc.want)
			}
		})
	}
	if _, err := (catalog.Hook{Kind: "ghcr"}).Read(http.Header{"X-Github-Event": {"push"}}, "", []byte("{}")); err == nil {
		t.Error("another event of GitHub was taken")
	}
	if got, err := (catalog.Hook{Kind: "ghcr"}).Read(http.Header{"X-Github-Event": {"ping"}}, "", []byte("{}")); err != nil || got != nil {
		t.Errorf("a ping: %v, %v", got, err)
	}
}

func FuzzHook(f *testing.F) {
	files, err := filepath.Glob("testdata/hook/*.json")
	if err != nil || len(files) < 10 {
		f.Fatal(files, err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		kind, _, _ := strings.Cut(strings.TrimSuffix(filepath.Base(name), ".json"), "-")
		f.Add(kind, "package", b)
	}
	f.Fuzz(func(t *testing.T, kind, event string, body []byte) {
		pushes, err := catalog.Hook{Kind: kind}.Read(http.Header{"X-Github-Event": {event}}, "", body)
		if err != nil && pushes != nil {
			t.Error("pushes and an error")
		}
		for _, p := range pushes {
			if n, err := catalog.Normal(p.Repository); err != nil || n != p.Repository {
				t.Errorf("pushed to %q", p.Repository)
			}
			if err := image.CheckTag(p.Tag); err != nil {
				t.Error(err)
			}
			if p.Digest != "" {
				if _, err := image.ParseDigest(string(p.Digest)); err != nil {
					t.Error(err)
				}
			}
		}
	})
}
