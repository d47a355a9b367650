package config

import (
	"errors"
	"strings"
	"testing"
)

// Each mistake is answered with its line, what it is, and the cure.
func TestMistakes(t *testing.T) {
	policies := "retention:\n  policies:\n"
	for _, c := range []struct{ text, want string }{
		{"retension: {}", `f.yaml:1: unknown key "retension"; did you mean "retention"?`},
		{"retention:\n  intervall: 1h", `f.yaml:2: unknown key "intervall" in retention; did you mean "interval"?`},
		{"\n\n" + policies + "  - repositories: a\n    atfer: 3d", `f.yaml:6: unknown key "atfer" in retention.policies#1; did you mean "after"?`},
		{"interval: 1h", `f.yaml:1: unknown key "interval"; did you mean "retention.interval"?`},
		{"anonymous_pull: a", `f.yaml:1: unknown key "anonymous_pull"; did you mean "access.anonymous_pull"?`},
		{"Listen: x", `f.yaml:1: unknown key "Listen"; did you mean "listen"?`},
		{"tls: {certificate: x}", `f.yaml:1: unknown key "certificate" in tls: known here are cert, key`},
		{"explicit: true", `f.yaml:1: unknown key "explicit"`},
		{"<<: {}", `f.yaml:1: unknown key "<<"`},
		{"open: yes", `f.yaml:1: open: "yes": write true or false`},
		{"open: 1", `f.yaml:1: open: "1": write true or false`},
		{"open:", `f.yaml:1: open: no value: write true or false, or remove the key`},
		{"open: [true]", `f.yaml:1: open: this is a list: write true or false`},
		{"listen: 5080", `f.yaml:1: listen: 5080 is not text: put it in quotes`},
		{"listen: '5080'", `f.yaml:1: listen: "5080" is no address: write host:port, such as 127.0.0.1:5080`},
		{"listen: a:b", `f.yaml:1: listen: "a:b" has no port from 0 to 65535`},
		{"data: ''", `f.yaml:1: data: no folder: name one, or remove the key`},
		{"log: {level: inof}", `f.yaml:1: log.level: "inof" is not one of debug, info, warn, error; did you mean "info"?`},
		{"log: loud", `f.yaml:1: log: this is a single value: write keys and values, of level, format`},
		{"external_url: registry.example.org", `f.yaml:1: external_url: "registry.example.org": write http or https`},
		{"external_url: https://a/v2", `f.yaml:1: external_url: "https://a/v2": write http or https`},
		{"tls:\n  cert: x", `f.yaml:1: tls: cert and key go together: name both files or neither`},
		{"external_url: http://a\ntls: {cert: x, key: y}", `f.yaml:1: external_url: it starts with http: but tls is set`},
		{"access: {anonymous_pull: [a, '']}", `f.yaml:1: access.anonymous_pull#2: empty glob: write "**" for everything`},
		{"access:\n  anonymous_pull:\n  - a\n  - App/*", `f.yaml:4: access.anonymous_pull#2: glob "App/*" can never match: names of repositories have no upper-case letters`},
		{"access: {anonymous_pull: '[ab]'}", `f.yaml:1: access.anonymous_pull: glob "[ab]": '[' is not special here`},
		{"access: {anonymous_pull: 'a b'}", `f.yaml:1: access.anonymous_pull: glob "a b" can never match: no repository has the character ' '`},
		{"access: {anonymous_pull: {a: b}}", `f.yaml:1: access.anonymous_pull: this is a mapping of keys to values: write text`},
		{"retention: {interval: soon}", `f.yaml:1: retention.interval: "soon" is no duration`},
		{"retention: {interval: 30}", `f.yaml:1: retention.interval: "30" is no duration: it has no unit: write 30s, 30h or 30d`},
		{"retention: {interval: 0}", `f.yaml:1: retention.interval: 0s is out of bounds: choose from 1s to 1d`},
		{"retention: {interval: 2d}", `f.yaml:1: retention.interval: 2d is out of bounds: choose from 1s to 1d`},
		{"usage: {granularity: 1ms}", `f.yaml:1: usage.granularity: 1ms is out of bounds`},
		{"collect: {grace: 0s}", `f.yaml:1: collect.grace: 0s is out of bounds`},
		{"retention: {policies: }", `f.yaml:1: retention.policies: no value: write [] for none, or remove the key`},
		{"retention: {policies: all}", `f.yaml:1: retention.policies: this is a single value: write a list, each entry after a dash`},
		{policies + "  - '**'", `f.yaml:3: retention.policies#1: this is a single value: write keys and values, of name, repositories, after`},
		{policies + "  - after: 3d", `f.yaml:3: retention.policies#1: policy 1 names no repositories: write repositories: "**" for all`},
		{policies + "  -\n", `f.yaml:3: retention.policies#1: policy 1 names no repositories`},
		{policies + "  - repositories: a\n    after: 0", `f.yaml:4: retention.policies#1.after: 0s is out of bounds: choose from 1s to 36500d`},
		{policies + "  - repositories: a\n    after: -1d", `f.yaml:4: retention.policies#1.after: "-1d" is no duration`},
		{policies + "  - repositories: a\n    untagged_after: 1ms", `f.yaml:4: retention.policies#1.untagged_after: 1ms is out of bounds`},
		{policies + "  - repositories: a\n    keep_last: -1", `f.yaml:4: retention.policies#1.keep_last: -1 is negative`},
		{policies + "  - repositories: a\n    keep_last: many", `f.yaml:4: retention.policies#1.keep_last: "many" is not a whole number`},
		{policies + "  - repositories: a\n    keep_last: 1.5", `f.yaml:4: retention.policies#1.keep_last: "1.5" is not a whole number`},
		{policies + "  - repositories: a\n    max_bytes: 10G", `f.yaml:4: retention.policies#1.max_bytes: "10G" is no size`},
		{policies + "  - repositories: a\n    protect: ['a/b']", `f.yaml:4: retention.policies#1.protect#1: glob "a/b" can never match: no tag has the character '/'`},
		{policies + "  - {repositories: a, name: x}\n  - {repositories: b, name: x}", `f.yaml:4: retention.policies#2.name: policy 1 is called "x" too`},
		{policies + "  - repositories: '**'\n  - repositories: a/*", `f.yaml:4: retention.policies#2: policy 2 can never match: policy 1 takes everything; the first match wins`},
		{policies + "  - repositories: [b, '**', c]\n  - {repositories: a}", `f.yaml:4: retention.policies#2: policy 2 can never match: policy 1 takes everything`},
		{policies + "  - repositories: a/**\n  - repositories: [a/b, 'a/*/c']", `f.yaml:4: retention.policies#2: policy 2 can never match: policy 1 takes everything it names`},
		{policies + "  - repositories: a/**\n  - repositories: [b/**, c]\n  - repositories: [b/x, a/y]", `f.yaml:5: retention.policies#3: policy 3 can never match: policy 2 and policy 1 take everything it names`},
		{policies + "  - repositories: a/**\n  - repositories: '**'\n  - repositories: a/y", `f.yaml:5: retention.policies#3: policy 3 can never match: policy 2 takes everything;`},
		{policies + "  - repositories: 'a?'\n  - repositories: 'a?'", `f.yaml:4: retention.policies#2: policy 2 can never match`},
		{"bump: {interval: 1s}", `f.yaml:1: bump.interval: 1s is out of bounds: choose from 1m to 7d`},
		{"bump: {aliases: 'https://x'}", `f.yaml:1: bump.aliases: "https://x" is no host`},
		{"bump:\n  forges:\n  - {}", `f.yaml:3: bump.forges#1: forge 1: "" is no name: use a-z`},
		{"bump:\n  forges:\n  - {name: A b, kind: git, url: 'file:///x', repositories: a/b}", `f.yaml:3: bump.forges#1.name: forge 1: "A b" is no name`},
		{"bump:\n  forges:\n  - {name: a, kind: bitbucket}", `f.yaml:3: bump.forges#1.kind`},
		{"bump:\n  forges:\n  - {name: a, kind: github, token_env: T}", `f.yaml:3: bump.forges#1: forge 1 names no repositories`},
		{"bump:\n  forges:\n  - {name: a, kind: github, token_env: T, repositories: acme}", `bump.forges#1.repositories: "acme" can be no repository`},
		{"bump:\n  forges:\n  - {name: a, kind: github, repositories: a/b}", `forge 1 has no account: name token_file or token_env, or app_id and private_key_file`},
		{"bump:\n  forges:\n  - {name: a, kind: gitlab, repositories: a/b}", `forge 1 has no account: name token_file or token_env`},
		{"bump:\n  forges:\n  - {name: a, kind: github, repositories: a/b, app_id: '1'}", `app_id and private_key_file go together`},
		{"bump:\n  forges:\n  - {name: a, kind: github, repositories: a/b, app_id: '1', private_key_file: k, token_env: T}", `bump.forges#1.app_id: a token is set too`},
		{"bump:\n  forges:\n  - {name: a, kind: gitea, repositories: a/b, token_env: T}", `a forge of kind gitea needs its url`},
		{"bump:\n  forges:\n  - {name: a, kind: gitea, url: 'https://u:p@h', repositories: a/b, token_env: T}", `bump.forges#1.url: it holds a password or an account`},
		{"bump:\n  forges:\n  - {name: a, kind: gitea, url: 'ssh://h', repositories: a/b, token_env: T}", `bump.forges#1.url: "ssh://h": write one of https, http`},
		{"bump:\n  forges:\n  - {name: a, kind: git, url: 'ssh://git@h/x', repositories: 'a/*'}", `bump.forges#1.repositories: "a/*": a git server does not list`},
		{"bump:\n  forges:\n  - {name: a, kind: gitlab, repositories: a/b, token_env: T, username: u}", `bump.forges#1.username: a forge of kind gitlab does not use it`},
		{"bump:\n  forges:\n  - {name: a, kind: gitlab, repositories: a/b, token_env: T}\n  - {name: a, kind: gitlab, repositories: a/b, token_env: T}", `f.yaml:4: bump.forges#2.name: another forge is called "a"`},
		{"bump:\n  registries:\n  - {host: 'https://x'}", `bump.registries#1.host: registry 1: "https://x" is no host`},
		{"bump:\n  registries:\n  - {host: ghcr.io, username: u}", `username and one of password_file and password_env go together`},
		{"bump:\n  registries:\n  - {host: ghcr.io, url: 'ftp://x'}", `bump.registries#1.url: "ftp://x"`},
		{"bump:\n  webhooks:\n  - {name: a, kind: harbor}", `webhook 1 has no host`},
		{"bump:\n  webhooks:\n  - {name: a}", `webhook 1 has no kind`},
		{"work: {pool: kvm}", `f.yaml:1: work.pool`},
		{"work: {slots: -1}", `f.yaml:1: work.slots: -1 is out of bounds`},
		{"work: {images: 10B}", `work.images: 10B is too small`},
		{"work: {lease: 999ms}", `work.lease: 999ms is out of bounds`},
		{"work: {log_limit: 0}", `work.log_limit: 0B is out of bounds`},
		{"work: {keep: 1s}", `work.keep: 1s is out of bounds`},
		{"work: {folders: /}", `work.folders: "/": name a folder below`},
		{"work: {secrets: [{file: f}]}", `work.secrets#1: secret 1: "" is no name`},
		{"work: {secrets: [{name: a, env: A, hosts: 'https://x'}]}", `work.secrets#1.hosts: "https://x" is no host`},
		{"work: {secrets: [{name: a}]}", `work.secrets#1: secret 1: name one of file and env`},
		{"work: {secrets: [{name: a, env: A}, {name: a, env: A}]}", `work.secrets#2.name: another secret is called "a"`},
		{"work: {clusters: [{}]}", `work.clusters#1: cluster 1 has no name: write name: prod`},
		{"work: {clusters: [{name: a/b, server: 'http://x', worker: w}]}", `work.clusters#1.name: cluster 1: "a/b" is no name`},
		{"work: {clusters: [{name: prod-, server: 'http://x', worker: w}]}", `work.clusters#1.name: cluster 1: "prod-" is no name`},
		{"work: {clusters: [{name: a, worker: w}]}", `work.clusters#1: cluster 1: "" is not where pods reach this server`},
		{"work: {clusters: [{name: a, server: 'cairn:5080', worker: w}]}", `work.clusters#1.server: cluster 1: "cairn:5080" is not where`},
		{"work: {clusters: [{name: a, server: 'http://x'}]}", `work.clusters#1: cluster 1: "" is no image`},
		{"work: {clusters: [{name: a, server: 'http://x', worker: w, context: c}]}", `work.clusters#1.context: a context stands in a kubeconfig`},
		{"work: {clusters: [{name: a, server: 'http://x', worker: w, argo: maybe}]}", `work.clusters#1.argo`},
		{"work: {clusters: [{name: a, server: 'http://x', worker: w, image_volumes: maybe}]}", `work.clusters#1.image_volumes`},
		{"work: {clusters: [{name: a, server: 'http://x', worker: w, ca_file: ca.pem}]}", `work.clusters#1.ca_file: cluster 1: "http://x" shows no certificate: write https:`},
		{"work: {clusters: [{name: a, server: 'http://x', worker: w, namespaces: [A, b]}]}", `work.clusters#1.namespaces#1: "A" is no namespace`},
		{"work: {clusters: [{name: a, server: 'http://x', worker: w}, {name: a, server: 'http://x', worker: w}]}", `work.clusters#2.name: another cluster is called "a"`},
		{"clusters: [{}]", `f.yaml:1: clusters#1: cluster 1 has no name: write name: prod`},
		{"clusters:\n- {name: A, issuer: x, jwks: f, pull: a}", `f.yaml:2: clusters#1.name: "A": use 1 to 64 of`},
		{"clusters:\n- {name: a, issuer: x, jwks: f, pull: a}\n- {name: a, issuer: x, jwks: f, pull: a}", `f.yaml:3: clusters#2.name: cluster 1 has this name too`},
		{"clusters:\n- {name: a, issuer: x, pull: a}", `f.yaml:2: clusters#1: cluster 1 has no jwks`},
		{"clusters:\n- {name: a, issuer: x, jwks: 'https://u@k', pull: a}", `f.yaml:2: clusters#1.jwks: "https://u@k": write https://host/path`},
		{"clusters:\n- {name: a, issuer: x, jwks: 'http://k', pull: a}", `f.yaml:2: clusters#1.jwks: "http://k": write https://host/path`},
		{"clusters:\n- {name: a, jwks: f, pull: a}", `f.yaml:2: clusters#1: cluster 1 has no issuer`},
		{"clusters:\n- {name: a, issuer: x, jwks: f, audience: '', pull: a}", `f.yaml:2: clusters#1.audience: no audience`},
		{"clusters:\n- {name: a, issuer: x, jwks: f, agent: me}", `f.yaml:2: clusters#1.agent: "me": write namespace/name`},
		{"clusters:\n- {name: a, issuer: x, jwks: f}", `f.yaml:2: clusters#1: cluster 1 may do nothing`},
		{"mirrors: docker.io", `f.yaml:1: mirrors: this is a single value: write a list, each entry after a dash`},
		{"mirrors:\n- docker.io", `f.yaml:2: mirrors#1: this is a single value: write keys and values, of host, url`},
		{"mirrors: [{url: https://a}]", `f.yaml:1: mirrors#1: mirror 1 names no host: write host: docker.io`},
		{"mirrors: [{host: https://docker.io}]", `f.yaml:1: mirrors#1.host: "https://docker.io" is no host`},
		{"mirrors: [{host: docker.io/library}]", `f.yaml:1: mirrors#1.host: "docker.io/library" is no host`},
		{"mirrors: [{host: Docker.io}]", `f.yaml:1: mirrors#1.host: "Docker.io" is no host`},
		{"mirrors:\n- host: a.b\n- host: a.b", `f.yaml:3: mirrors#2.host: mirror 1 is of a.b too`},
		{"mirrors: [{host: a.b, url: a.b}]", `f.yaml:1: mirrors#1.url: "a.b": write http or https`},
		{"mirrors: [{host: a.b, url: 'https://me:secret@a.b'}]", `f.yaml:1: mirrors#1.url: it holds a password: write username`},
		{"mirrors: [{host: a.b, ttl: 0}]", `f.yaml:1: mirrors#1.ttl: 0s is out of bounds`},
		{"mirrors: [{host: a.b, max_blob: 0}]", `f.yaml:1: mirrors#1.max_blob: 0B: write a size`},
		{"mirrors: [{host: a.b, password: secret}]", `f.yaml:1: unknown key "password" in mirrors#1`},
		{"mirrors: [{host: a.b, username: me}]", `f.yaml:1: mirrors#1.username: its password is missing`},
		{"mirrors: [{host: a.b, password_env: X}]", `f.yaml:1: mirrors#1: mirror 1 has a password and no username`},
		{"mirrors: [{host: a.b, username: me, password_env: X, password_file: y}]", `f.yaml:1: mirrors#1.password_env: password_file is set too`},
		{"mirrors: [{host: a.b, allow: Library/*}]", `f.yaml:1: mirrors#1.allow: glob "Library/*" can never match`},
		{"open: true\nopen: false", `f.yaml:2: open: the key is also on line 1: keep one of them`},
		{"log:\n  level: info\n  format: text\n  level: warn", `f.yaml:4: log.level: the key is also on line 2`},
		{"log: &a {level: info}\naccess: *a", `f.yaml:2: access: aliases (*a) are not read: write the value out`},
		{"open: true\n---\nopen: false", `the file goes on after its first YAML document`},
		{"- a", `f.yaml:1: this is a list: write keys and values, of listen, data`},
		{"hello", `f.yaml:1: this is a single value: write keys and values`},
		{"? [a]\n: b", `f.yaml:1: a key must be a single word`},
		{"open: true\n\tlog: {}", `f.yaml:2: not YAML: `},
		{"a: [", `f.yaml:`},
		{"\x00", `not YAML`},
		{"a: \"\xff\"", `not YAML`},
		{strings.Repeat("#", maxFile+1), `f.yaml: the file is larger than`},
	} {
		cfg, err := Parse("f.yaml", []byte(c.text))
		var e *Error
		if !errors.As(err, &e) || cfg != nil {
			t.Errorf("%q: %v, want an *Error and no configuration", c.text, err)
			continue
		}
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60q:\n got %s\nwant %s", c.text, err, c.want)
		}
		if len(e.Problems) != 1 {
			t.Errorf("%.60q: one mistake makes %d problems:\n%s", c.text, len(e.Problems), err)
		}
	}
}

// What narrows a wider policy below it is no mistake.
func TestReachablePolicies(t *testing.T) {
	for _, c := range [][]string{
		{"a/**", "**"}, {"a/*", "a/**"}, {"a/**", "a"}, {"a/**", "ab/**"}, {"*", "**"}, {"a*/**", "a/b"}, {"a/**", "*/b"}, {"ci/**", "c*/**", "**"},
	} {
		text := "retention:\n  policies:\n"
		for _, g := range c {
			text += "  - repositories: '" + g + "'\n"
		}
		if _, err := Parse("f", []byte(text)); err != nil {
			t.Errorf("%q: %v", c, err)
		}
	}
}

func TestAllMistakesAtOnce(t *testing.T) {
	_, err := Parse("f.yaml", []byte("open: maybe\nretention:\n  keep: x\n  polices: []\nlisten: nowhere\nlog: {level: loud}\n"))
	want := []string{"f.yaml:1: open", "f.yaml:3: retention.keep", `f.yaml:4: unknown key "polices"`, "f.yaml:5: listen", "f.yaml:6: log.level"}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != len(want) {
		t.Fatalf("%d lines, want %d:\n%s", len(lines), len(want), err)
	}
	for i, w := range want {
		if !strings.HasPrefix(lines[i], w) {
			t.Errorf("line %d is %q, want %q…", i+1, lines[i], w)
		}
	}
	// A file that is not ours does not fill the screen.
	var b strings.Builder
	for i := range 100 {
		b.WriteString("k" + strings.Repeat("x", i) + ": 1\n")
	}
	_, err = Parse("f.yaml", []byte(b.String()))
	if lines := strings.Split(err.Error(), "\n"); len(lines) != maxShown+1 || lines[maxShown] != "… and 80 more" {
		t.Errorf("100 mistakes take %d lines, the last %q", len(lines), lines[len(lines)-1])
	}
}

func TestNearest(t *testing.T) {
	keys := []string{"listen", "data", "open", "after", "keep", "keep_last"}
	for in, want := range map[string]string{"lisen": "listen", "lsiten": "listen", "OPEN": "open", "atfer": "after", "keeplast": "keep_last", "kep": "keep", "zzzzzz": "", "x": ""} {
		if got, _ := nearest(in, keys); got != want {
			t.Errorf("nearest(%q) = %q, want %q", in, got, want)
		}
	}
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"kitten", "sitting", 3}, {strings.Repeat("x", 100), "a", 100}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
