package config

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"cairn.dev/cairn/internal/goldentest"
)

func TestDefaultIsValid(t *testing.T) {
	c := Default()
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	for _, empty := range []string{"", "\n", "# nothing\n", "---\n", "~", "retention:\n", "{}", "\ufeff"} {
		got, err := Parse("cairn.yaml", []byte(empty))
		if err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("%q: %+v, %v, want the defaults", empty, got, err)
		}
	}
	if c.Retention.Explicit {
		t.Error("the default policies count as the user's")
	}
}

func TestParse(t *testing.T) {
	got, err := Parse("/etc/cairn/cairn.yaml", []byte(`
listen: "[::1]:80"
data: store
open: true
external_url: https://registry.example.org:8443/
tls: {cert: tls/c.pem, key: /k.pem}
log:
  level: debug
  format: json
access:
  anonymous_pull: public/**
mirrors:
- host: docker.io
  username: robot
  password_file: hub.password
  ca_file: /ca.pem
- {host: "registry.local:5000", url: "http://10.0.0.1:5000/hub", ttl: 5m, allow: [a/**, b], offline: true, max_blob: 1GiB}
clusters:
- {name: prod, issuer: "https://k", jwks: prod.jwks, agent: cairn/agent, pull: [a/**, b]}
- {name: dev, issuer: "https://k", jwks: "https://k/keys", ca_file: /ca.pem, audience: me, pull: "**"}
retention:
  interval: 5m
  keep: 1d12h
  warn_within: 0
  policies:
  - name: ci
    repositories: [ci/**, "*/ci"]
    after: 2d
    untagged_after: 6h
    min_age: 1h
    keep_last: 3
    protect: [stable, V*]
    max_bytes: 10GiB
  - repositories: "**"
bump:
  interval: 15m
  aliases: "registry.internal:5080"
  keys: cosign.pub
  forges:
  - {name: github, kind: github, repositories: "acme/*", app_id: "12", private_key_file: app.pem, webhook_secret_file: hook}
  - {name: own, kind: gitea, url: "https://git.example.org", repositories: [a/b, c/*], interval: 5m, token_file: /t, ca_file: ca.pem}
  - {name: bare, kind: git, url: "ssh://git@host/srv", repositories: a/b, private_key_file: id, known_hosts_file: hosts}
  registries:
  - {host: ghcr.io, username: robot, password_file: ghcr}
  webhooks:
  - {name: hub, kind: dockerhub, secret_file: hub}
work:
  pool: podman
  slots: 3
  images: 1GiB
  max_tasks: 7
  keep: 7d
  folders: data
  secrets:
  - {name: minio, username: u, file: minio.key, hosts: minio:9000}
usage: {granularity: 10m}
collect: {grace: 2d}
`))
	if err != nil {
		t.Fatal(err)
	}
	hour := Duration(time.Hour)
	want := &Config{
		Listen: "[::1]:80", Data: "/etc/cairn/store", Open: true, ExternalURL: "https://registry.example.org:8443/",
		TLS: TLS{Cert: "/etc/cairn/tls/c.pem", Key: "/k.pem"}, Log: Log{"debug", "json"}, Access: Access{[]string{"public/**"}},
		Mirrors: []Mirror{
			{Host: "docker.io", TTL: hour / 60, Allow: []string{"**"}, Username: "robot", PasswordFile: "/etc/cairn/hub.password", CAFile: "/ca.pem", MaxBlob: 64 << 30},
			{Host: "registry.local:5000", URL: "http://10.0.0.1:5000/hub", TTL: hour / 12, Allow: []string{"a/**", "b"}, Offline: true, MaxBlob: 1 << 30},
		},
		Clusters: []Cluster{
			{Name: "prod", Issuer: "https://k", JWKS: "/etc/cairn/prod.jwks", Audience: "cairn", Agent: []string{"cairn/agent"}, Pull: []string{"a/**", "b"}},
			{Name: "dev", Issuer: "https://k", JWKS: "https://k/keys", CAFile: "/ca.pem", Audience: "me", Pull: []string{"**"}},
		},
		Bump: Bump{Interval: hour / 4, Aliases: []string{"registry.internal:5080"}, Keys: []string{"/etc/cairn/cosign.pub"},
			Forges: []Forge{
				{Name: "github", Kind: "github", Repositories: []string{"acme/*"}, AppID: "12", KeyFile: "/etc/cairn/app.pem", SecretFile: "/etc/cairn/hook"},
				{Name: "own", Kind: "gitea", URL: "https://git.example.org", Repositories: []string{"a/b", "c/*"}, Interval: hour / 12, TokenFile: "/t", CAFile: "/etc/cairn/ca.pem"},
				{Name: "bare", Kind: "git", URL: "ssh://git@host/srv", Repositories: []string{"a/b"}, KeyFile: "/etc/cairn/id", KnownHosts: "/etc/cairn/hosts"},
			},
			Registries: []Registry{{Host: "ghcr.io", Username: "robot", PasswordFile: "/etc/cairn/ghcr"}},
			Webhooks:   []Hook{{Name: "hub", Kind: "dockerhub", SecretFile: "/etc/cairn/hub"}},
		},
		Work: Work{Pool: "podman", Slots: 3, Images: 1 << 30, MaxTasks: 7, Keep: 7 * Day, Lease: Duration(30 * time.Second), LogLimit: 64 << 20, Folders: []string{"/etc/cairn/data"},
			Secrets: []WorkSecret{{Name: "minio", Username: "u", File: "/etc/cairn/minio.key", Hosts: []string{"minio:9000"}}}},
		Retention: Retention{Interval: hour / 12, Keep: 36 * hour, WarnWithin: 0, Explicit: true, Policies: []Policy{
			{Name: "ci", Repositories: []string{"ci/**", "*/ci"}, After: 2 * Day, UntaggedAfter: 6 * hour, MinAge: hour, KeepLast: 3, Protect: []string{"stable", "V*"}, MaxBytes: 10 << 30},
			{Repositories: []string{"**"}, After: 30 * Day},
		}},
		Usage: Usage{hour / 6}, Collect: Collect{2 * Day},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	// What was read can be written and read again.
	b, err := yaml.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Parse("/etc/cairn/cairn.yaml", b); err != nil || !reflect.DeepEqual(again, want) {
		t.Errorf("written as\n%s\nand read as %+v, %v", b, again, err)
	}
}

func TestExplicit(t *testing.T) {
	for text, want := range map[string]struct {
		explicit bool
		policies int
	}{
		"retention: {interval: 2h}":                                 {false, 1},
		"retention: {policies: []}":                                 {true, 0},
		"retention: {policies: [{repositories: a}]}":                {true, 1},
		"retention:\n  policies:\n  - repositories: '**'\n":         {true, 1},
		"retention:\n  policies:\n  - repositories: [a/**, b, c]\n": {true, 1},
	} {
		c, err := Parse("f", []byte(text))
		if err != nil || c.Retention.Explicit != want.explicit || len(c.Retention.Policies) != want.policies {
			t.Errorf("%q: %+v, %v, want %+v", text, c, err, want)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "cairn.yaml")
	if err := os.WriteFile(file, []byte("listen: 127.0.0.1:1\ndata: here\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(file)
	if err != nil || c.Listen != "127.0.0.1:1" || c.Data != filepath.Join(dir, "here") {
		t.Errorf("file: %+v, %v", c, err)
	}
	t.Chdir(dir)
	if err := os.WriteFile("folders.yaml", []byte("work: {folders: [files, ../more]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	c, err = Load("folders.yaml")
	if want := []string{filepath.Join(wd, "files"), filepath.Join(filepath.Dir(wd), "more")}; err != nil || !slices.Equal(c.Work.Folders, want) {
		t.Errorf("folders beside a file that is named from where we are: %q, %v, want %q", c.Work.Folders, err, want)
	}
	t.Setenv("CAIRN_LISTEN", "127.0.0.1:2")
	t.Setenv("CAIRN_DATA", "there")
	if c, err = Load(file); err != nil || c.Listen != "127.0.0.1:2" || c.Data != "there" {
		t.Errorf("environment over file: %+v, %v", c, err)
	}
	if c, err = Load(""); err != nil || c.Listen != "127.0.0.1:2" || c.Retention.Keep != 7*Day {
		t.Errorf("environment over nothing: %+v, %v", c, err)
	}
	if c, err = Parse(file, []byte("listen: 127.0.0.1:1")); err != nil || c.Listen != "127.0.0.1:1" {
		t.Errorf("Parse looks at the environment: %+v, %v", c, err)
	}
	t.Setenv("CAIRN_LISTEN", "nowhere")
	if _, err = Load(file); err == nil || !strings.HasPrefix(err.Error(), "CAIRN_LISTEN: listen: ") {
		t.Errorf("a bad variable: %v", err)
	}
	if _, err = Load(filepath.Join(dir, "none.yaml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such file: %v", err)
	}
	if _, err = Load(dir); err == nil {
		t.Error("a folder was read")
	}
}

func TestValidateWithoutFile(t *testing.T) {
	c := Default()
	c.Listen, c.Retention.Interval = "x", -1
	err := c.Validate()
	if err == nil || !strings.Contains(err.Error(), "configuration: listen: ") || !strings.Contains(err.Error(), "configuration: retention.interval: ") {
		t.Errorf("%v", err)
	}
}

var offKey = regexp.MustCompile(`(?m)^( *)#([a-z-])`)

func TestExample(t *testing.T) {
	got := Example()
	goldentest.Check(t, "testdata/example.yaml", got)
	c, err := Parse("", got)
	if err != nil || !reflect.DeepEqual(c, Default()) {
		t.Errorf("the example means %+v, %v, want the defaults", c, err)
	}
	// The keys behind '#' hold when the '#' goes.
	c, err = Parse("/f", offKey.ReplaceAll(got, []byte("$1$2")))
	if err != nil {
		t.Fatalf("with all keys on: %v", err)
	}
	if !c.TLS.On() || !c.Retention.Explicit || len(c.Retention.Policies) != 1 {
		t.Errorf("with all keys on: %+v", c)
	}
	v := reflect.ValueOf(c.Retention.Policies[0])
	for _, f := range fields(v.Type()) {
		if v.Field(f.index).IsZero() {
			t.Errorf("the example has no value for %s of a policy", f.name)
		}
	}
}

func TestEveryKeyIsDocumented(t *testing.T) {
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		for _, f := range fields(typ) {
			sf := typ.Field(f.index)
			if doc := f.tag.Get("doc"); !strings.HasSuffix(doc, ".") {
				t.Errorf("%s.%s: doc tag %q is no sentence", typ.Name(), sf.Name, doc)
			}
			if js, _, _ := strings.Cut(f.tag.Get("json"), ","); js != f.name {
				t.Errorf("%s.%s is %q in JSON and %q in YAML", typ.Name(), sf.Name, js, f.name)
			}
			ft := sf.Type
			if ft.Kind() == reflect.Slice {
				ft = ft.Elem()
			}
			if ft.Kind() == reflect.Struct {
				walk(ft)
			}
		}
	}
	walk(reflect.TypeFor[Config]())
}

func TestSchema(t *testing.T) {
	got := Schema()
	goldentest.Check(t, "testdata/schema.json", got)
	var s struct {
		Properties map[string]struct {
			Default    any
			Properties map[string]struct{ Pattern string }
		}
	}
	if err := json.Unmarshal(got, &s); err != nil {
		t.Fatal(err)
	}
	if len(s.Properties) != len(fields(reflect.TypeFor[Config]())) || s.Properties["listen"].Default != "127.0.0.1:5080" {
		t.Errorf("schema %+v", s)
	}
	// The pattern takes what the parser takes.
	pattern := regexp.MustCompile(s.Properties["retention"].Properties["keep"].Pattern)
	for in, want := range map[string]bool{"30d": true, "1d12h": true, "0": true, "1.5h": true, "250ms": true, "30": false, "-3d": false, "d": false, "3y": false} {
		if _, err := ParseDuration(in); pattern.MatchString(in) != want || (err == nil) != want {
			t.Errorf("%q: pattern says %v, parser %v, want %v", in, pattern.MatchString(in), err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Example())
	f.Add(offKey.ReplaceAll(Example(), []byte("$1$2")))
	for _, s := range []string{"", "a", "- a", "a: &x [*x]", "? {a: b}\n: c", "---\n---\n", "listen: !!binary aGk=", "retention: {policies: [[[]]]}", "open: !!bool x", "a: !!float x"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse("f", b)
		if (c == nil) == (err == nil) {
			t.Fatalf("%q: %+v, %v", b, c, err)
		}
		if err != nil {
			return
		}
		if err := c.Validate(); err != nil {
			t.Fatalf("%q was read, but is not valid: %v", b, err)
		}
	})
}
