package choose

import (
	"errors"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/catalog"
)

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

// Versions: what is chosen for a tag out of tags, by a policy; "" for nothing.
func TestVersions(t *testing.T) {
	together := Policy{Major: "together"}
	docker := Policy{Versioning: "docker"}
	semver := Policy{Versioning: "semver"}
	calver := Policy{Versioning: "calver"}
	rng := func(s string) Policy { return Policy{Range: s, Major: "together"} }
	for _, c := range []struct {
		from, tags string
		p          Policy
		want       string
	}{
		// Numbers.
		{"1.2.3", "1.2.3 1.2.4", Policy{}, "1.2.4"},
		{"1.2.3", "1.2.4 1.3.0 1.10.0 1.9.9", Policy{}, "1.10.0"},
		{"1.2.3", "1.2.3 1.2.2 1.1.9 0.9.0", Policy{}, ""},
		{"1.2.3", "1.2.3", Policy{}, ""},
		{"1.2.3", "", Policy{}, ""},
		{"1.2.3", "1.2.10 1.2.9", Policy{}, "1.2.10"},
		{"1.2", "1.3 1.3.1 1", Policy{}, "1.3"},
		{"1.2.3", "1.3 2 1.2.3.4", Policy{}, ""},
		{"17", "18 19 17.1", Policy{}, ""},
		{"17", "18 19 17.1", together, "19"},
		{"9", "10", together, "10"},
		{"1.2.3.4", "1.2.3.5 1.2.4", Policy{}, "1.2.3.5"},
		{"1.2", "1.2.0 1.2.1", Policy{}, ""},
		{"1.02", "1.2 1.2.0", Policy{}, ""},
		{"1.02", "1.03", Policy{}, "1.03"},
		{"1.09", "1.10 1.8", Policy{}, "1.10"},
		{"007", "8", together, "8"},
		{"99999999999999999999999.1", "99999999999999999999999.2", Policy{}, "99999999999999999999999.2"},
		{"0.1.0", "0.2.0", Policy{}, "0.2.0"},
		{"1.2.3", "2.0.0", Policy{}, ""},
		{"1.2.3", "2.0.0 1.4.0", Policy{}, "1.4.0"},
		{"1.2.3", "2.0.0 1.4.0 3.0.0", together, "3.0.0"},
		// Builds are counted, not versioned, once the number is long.
		{"12345", "12346 12400", Policy{}, "12400"},
		{"12345", "20240115 1234567", Policy{}, ""},
		{"17", "20240115", together, ""},
		{"17", "1234567", together, ""},
		{"99", "100", together, "100"},
		// Prefixes stay.
		{"v1.2.3", "v1.2.4 1.2.5", Policy{}, "v1.2.4"},
		{"1.2.3", "v1.2.4", Policy{}, ""},
		{"V1.2", "V1.3 v1.4", Policy{}, "V1.3"},
		{"release-1.2.3", "release-1.3.0 1.4.0 release-candidate", Policy{}, "release-1.3.0"},
		{"nginx-0.47.0-rancher1", "nginx-0.48.0-rancher1 nginx-0.48.1-rancher2 nginx-1.0.0-rancher1", Policy{}, "nginx-0.48.1-rancher2"},
		{"alpine3.19", "alpine3.20 3.21 debian12", Policy{}, "alpine3.20"},
		{"version-1.2", "version-1.3", Policy{}, "version-1.3"},
		{"v1", "v2", together, "v2"},
		// Suffixes are compatibility.
		{"1.2-alpine", "1.3-alpine 1.4 1.4-slim", Policy{}, "1.3-alpine"},
		{"1.2", "1.3-alpine", Policy{}, ""},
		{"1.2.3-alpine3.19", "1.2.4-alpine3.19", Policy{}, "1.2.4-alpine3.19"},
		{"1.2.3-alpine3.19", "1.2.3-alpine3.20", Policy{}, "1.2.3-alpine3.20"},
		{"1.2.3-alpine3.19", "1.2.4-alpine3.19 1.2.4-alpine3.20", Policy{}, "1.2.4-alpine3.20"},
		{"1.2.3-alpine3.19", "1.2.4-alpine3.18", Policy{}, ""},
		{"1.2.3-alpine3.19", "1.2.4-alpine3.18 1.2.4-alpine3.19", Policy{}, "1.2.4-alpine3.19"},
		{"1.2.3-alpine3.19", "1.2.4-alpine", Policy{}, ""},
		{"1.2.3-alpine3.19", "1.2.4-alpine4.0", Policy{}, ""},
		{"1.2.3-alpine3.19", "1.2.4-alpine4.0", together, "1.2.4-alpine4.0"},
		{"3.9.6-eclipse-temurin-17", "3.9.7-eclipse-temurin-17 3.9.7-eclipse-temurin-21", Policy{}, "3.9.7-eclipse-temurin-17"},
		{"3.9.6-eclipse-temurin-17", "3.9.7-eclipse-temurin-21", Policy{}, ""},
		{"8.3.1-fpm-bookworm", "8.3.2-fpm-bookworm 8.3.3-fpm-trixie 8.3.3-cli-bookworm", Policy{}, "8.3.2-fpm-bookworm"},
		{"1.25.3-debian-11-r5", "1.25.4-debian-11-r0", Policy{}, "1.25.4-debian-11-r0"},
		{"1.25.3-debian-11-r5", "1.25.3-debian-11-r6 1.25.3-debian-11-r10", Policy{}, "1.25.3-debian-11-r10"},
		{"1.25.3-debian-11-r5", "1.25.3-debian-11-r4 1.25.4-debian-12-r0", Policy{}, ""},
		{"2.4.0-1", "2.4.0-2 2.4.0-10", Policy{}, "2.4.0-10"},
		{"4.0.9-ls123", "4.0.9-ls124 4.1.0-ls1", Policy{}, "4.1.0-ls1"},
		{"12.2.0-cudnn8-runtime-ubuntu22.04", "12.3.0-cudnn8-runtime-ubuntu22.04 12.4.0-cudnn9-runtime-ubuntu22.04", Policy{}, "12.3.0-cudnn8-runtime-ubuntu22.04"},
		{"2019-CU18-ubuntu-20.04", "2019-CU19-ubuntu-20.04 2022-CU1-ubuntu-20.04", Policy{}, "2019-CU19-ubuntu-20.04"},
		{"amd64-4.0.8", "amd64-4.0.9 amd64-5.0.0 arm64v8-4.1.0", Policy{}, "amd64-4.0.9"},
		{"amd64-4.0.8", "amd64-5.0.0", Policy{}, ""},
		{"amd64-4.0.8", "amd64-5.0.0", together, "amd64-5.0.0"},
		{"python3.11-0.5.1", "python3.12-0.5.0", Policy{}, ""},
		{"python3.11-0.5.1", "python3.12-0.5.1 python3.11-0.6.0", Policy{}, "python3.12-0.5.1"},
		{"9.4-947.1714667021", "9.5-1733.1730000000", Policy{}, "9.5-1733.1730000000"},
		{"17.1.0-ce.0", "17.1.1-ce.0 17.1.2-ee.0", Policy{}, "17.1.1-ce.0"},
		{"21.0.3_9-jre-alpine", "21.0.4_7-jre-alpine", Policy{}, "21.0.4_7-jre-alpine"},
		{"8u402-b06-jre", "8u412-b08-jre", Policy{}, "8u412-b08-jre"},
		{"16.3-alpine3.20", "17beta1-alpine3.20 16.4-alpine3.20 17.0-alpine3.20", Policy{}, "16.4-alpine3.20"},
		{"v1.15.0", "v1.15.1 v1.16.0-alpha.0 v1.16.0-beta.0", Policy{}, "v1.15.1"},
		{"8.4.0-oraclelinux8", "8.4.1-oraclelinux9", Policy{}, ""},
		{"1.2-debian-20240101", "1.2-debian-20250202", Policy{}, "1.2-debian-20250202"},
		{"1.2.3-abc1234", "1.2.4-def5678", Policy{}, "1.2.4-def5678"},
		{"1.2.3-abc1234", "1.2.3-def5678", Policy{}, ""},
		{"v1.2.3-4-gabc1234", "v1.2.3-5-gdef5678", Policy{}, "v1.2.3-5-gdef5678"},
		{"3.19-slim", "3.20-SLIM", Policy{}, ""},
		{"1.2.3_build5", "1.2.3_build6", Policy{}, "1.2.3_build6"},
		{"v1.2.3_k3s1", "v1.2.4_k3s1 v1.2.4", Policy{}, "v1.2.4_k3s1"},
		{"1.21-dev", "1.22-dev 1.23", Policy{}, "1.22-dev"},
		{"1.2", "1.3-dev", Policy{}, ""},
		// Prereleases.
		{"1.2.3", "1.3.0-rc.1 1.3.0-beta2 1.3.0-alpha 1.3.0rc1 1.3.0-RC1 1.3.0-M2", Policy{}, ""},
		{"1.2.3", "1.3.0-rc.1", Policy{Prerelease: true}, "1.3.0-rc.1"},
		{"1.2.3", "1.3.0-rc.1 1.3.0", Policy{Prerelease: true}, "1.3.0"},
		{"1.3.0-rc.1", "1.3.0-rc.2", Policy{}, "1.3.0-rc.2"},
		{"1.3.0-rc.1", "1.3.0-rc.10 1.3.0-rc.9", Policy{}, "1.3.0-rc.10"},
		{"1.3.0-rc.1", "1.3.0", Policy{}, "1.3.0"},
		{"1.3.0-rc.1", "1.4.0-rc.1", Policy{}, ""},
		{"1.3.0-rc.1", "1.4.0-rc.1 1.3.1", Policy{}, "1.3.1"},
		{"1.3.0-rc.2", "1.3.0-rc.1 1.3.0-beta.9 1.3.0-alpha.9", Policy{}, ""},
		{"1.3.0-alpha.2", "1.3.0-beta.1", Policy{}, "1.3.0-beta.1"},
		{"1.3.0-beta", "1.3.0-beta.1", Policy{}, "1.3.0-beta.1"},
		{"3.13.0rc1", "3.13.0rc2 3.13.0b9 3.13.0a9", Policy{}, "3.13.0rc2"},
		{"3.13.0b1", "3.13.0b2 3.13.0a9", Policy{}, "3.13.0b2"},
		{"8.4.0RC1-fpm-alpine", "8.4.0RC2-fpm-alpine 8.4.0RC3-fpm 8.4.0-fpm-alpine", Policy{}, "8.4.0-fpm-alpine"},
		{"3.13-rc-alpine", "3.13-alpine 3.14-rc-alpine", Policy{}, "3.13-alpine"},
		{"3.0.0-M1", "3.0.0-M2 3.0.0-RC1", Policy{}, "3.0.0-RC1"},
		{"1.0.0-dev.3", "1.0.0-dev.4 1.0.0-alpha.1", Policy{}, "1.0.0-alpha.1"},
		{"2.0.0-preview.1", "2.0.0-preview.2", Policy{}, "2.0.0-preview.2"},
		// Semantic versions, strictly.
		{"1.2.3", "1.2.4 1.3 v1.9.0 1.05.0", semver, "1.2.4"},
		{"1.2.3", "1.2.4-alpine", semver, ""},
		{"1.2.3-alpine", "1.2.3", semver, "1.2.3"},
		{"v1.2.3", "v1.2.4", semver, "v1.2.4"},
		{"1.0.0-alpha", "1.0.0-alpha.1 1.0.0-alpha.beta", semver, "1.0.0-alpha.beta"},
		{"1.0.0-rc.1", "1.0.0-beta.11 1.0.0-rc.1.1", semver, "1.0.0-rc.1.1"},
		{"1.0.0-2", "1.0.0-10 1.0.0-9", semver, "1.0.0-10"},
		{"1.0.0-1", "1.0.0-a", semver, "1.0.0-a"},
		{"1.2.3", "1.2.4_build1", semver, ""},
		{"1.2.3_build1", "1.2.3_build2 1.2.4_a", semver, "1.2.4_a"},
		{"1.2.3+build1", "1.2.4_a-b", semver, "1.2.4+a-b"},
		{"1.2.3", "2.0.0", semver, ""},
		// Dates.
		{"2024.01.15", "2024.02.01 2025.01.01", Policy{}, "2025.01.01"},
		{"2024.01.15", "2024.1.16", Policy{}, "2024.1.16"},
		{"2024.01.15", "2024.1.15 2024.01.14 1.2.3 20250101", Policy{}, ""},
		{"2024-01-15", "2024-01-16 2024.02.01", Policy{}, "2024-01-16"},
		{"20240115", "20240116 20231231 17", Policy{}, "20240116"},
		{"20240115", "20250101", Policy{}, "20250101"},
		{"20240115", "202501011200", Policy{}, ""},
		{"202401151200", "202401151300", Policy{}, "202401151300"},
		{"20240115.1", "20240115.2 20240115.10", Policy{}, "20240115.10"},
		{"2024.1.3", "2024.2.0 2025.1.0b3", Policy{}, "2024.2.0"},
		{"2024.1", "2024.3.1 2024.2 2025.1", Policy{}, "2025.1"},
		{"24.04", "24.10", Policy{}, "24.10"},
		{"24.04", "26.04", Policy{}, ""},
		{"24.04", "26.04", calver, "26.04"},
		{"2024.01.15", "2025.01.01", docker, ""},
		{"2024.01.15", "2024.02.01", docker, "2024.02.01"},
		{"RELEASE.2024-01-15T00-00-00Z", "RELEASE.2024-12-18T13-15-44Z RELEASE.2025-01-01T00-00-00Z RELEASE.2025-02-02T00-00-00Z.fips", Policy{}, "RELEASE.2025-01-01T00-00-00Z"},
		{"bookworm-20240110-slim", "bookworm-20240211-slim bookworm-20240311 trixie-20240311-slim", Policy{}, "bookworm-20240211-slim"},
		{"20240115-abc1234", "20240116-def5678", Policy{}, "20240116-def5678"},
		{"2019-latest", "2022-latest", Policy{}, ""},
		{"2024.99.1", "2024.100.1", Policy{}, ""}, // no month has three digits
		// Ranges.
		{"1.2.3", "1.2.9 1.3.0", rng("~1.2"), "1.2.9"},
		{"1.2.3", "1.2.9 1.9.0 2.0.0", rng("^1.2"), "1.9.0"},
		{"1.2.3", "1.2.9 1.9.0 2.0.0", rng("1.x"), "1.9.0"},
		{"1.2.3", "1.2.9 1.9.0 2.0.0", rng(">=1.2 <2"), "1.9.0"},
		{"1.2.3", "1.2.9 1.9.0 2.0.0 3.1.0", rng("1.2.x || 3"), "3.1.0"},
		{"1.2.3", "1.1.9", rng("~1.1"), ""},
		{"1.2.3", "1.2.9 1.3.0", Policy{Range: "~1.2", Versioning: "semver"}, "1.2.9"},
		{"1.2.3", "2.0.0", Policy{Range: "<3"}, ""},
		// What comes into question.
		{"1.2", "1.3 1.4", Policy{Ignore: []string{"1.4"}}, "1.3"},
		{"1.2", "1.3 1.4", Policy{Ignore: []string{"1.*"}}, ""},
		{"1.2", "1.3 1.4", Policy{Tags: []string{"1.3"}}, "1.3"},
		// Names.
		{"latest", "latest 1.2", Policy{}, ""},
		{"stable", "stable-1 1.2", Policy{}, ""},
	} {
		got := Choose("reg.example:5000/a/b:"+c.from, c.p, newRegistry(c.tags+" "+strings.ReplaceAll(c.from, "+", "_")).facts())
		want := ""
		if c.want != "" {
			want = "reg.example:5000/a/b:" + c.want
		}
		if got.To != want || (got.State == Newer) != (want != "") {
			t.Errorf("%s of %q by %+v: %s %q (%s), want %q", c.from, c.tags, c.p, got.State, got.To, got.Reason, want)
		}
		if got.Reason == "" {
			t.Errorf("%s of %q: no reason", c.from, c.tags)
		}
	}
}

func TestExpressions(t *testing.T) {
	for _, c := range []struct{ expr, from, tags, want string }{
		{`v(?P<major>\d+)-(?P<minor>\d+)`, "v1-2", "v1-3 v1-10 v2-0 w1-99", "v1-10"},
		{`(?P<minor>\d+)`, "17", "18 200", "200"}, // no group major: no major version
		{`(?P<major>\d+)\.(?P<minor>\d+)(?:\.(?P<patch>\d+))?`, "1.2", "1.2.0 1.2.1", "1.2.1"},
		{`(?P<compatibility>\w+)-(?P<major>\d+)\.(?P<minor>\d+)`, "jdk-1.2", "jre-1.9 jdk-1.3", "jdk-1.3"},
		{`(?P<major>\d+)\.(?P<minor>\d+)(?P<prerelease>rc\d+)?`, "1.2", "1.3rc1", ""},
		{`(?P<major>\d+)\.(?P<minor>\d+)(?P<prerelease>rc\d+)?`, "1.3rc1", "1.3rc10 1.3rc9", "1.3rc10"},
		{`(?P<major>\d+)\.(?P<minor>\d+)-b(?P<build>\d+)`, "1.2-b9", "1.2-b10", "1.2-b10"},
		{`(?P<major>\d+)`, "1", "2", ""},
		{`(?P<minor>.*)`, "1", "2 x3", "2"},
	} {
		got := Choose("a:"+c.from, Policy{Versioning: "regex:" + c.expr}, newRegistry(c.from+" "+c.tags).facts())
		want := ""
		if c.want != "" {
			want = "a:" + c.want
		}
		if got.To != want {
			t.Errorf("%s of %q by %s: %s %q (%s), want %q", c.from, c.tags, c.expr, got.State, got.To, got.Reason, want)
		}
	}
	if got := Choose("a:x", Policy{Versioning: `regex:(?P<major>\d+)`}, newRegistry("x 1").facts()); got.State != Unversioned {
		t.Errorf("a tag that does not match: %+v", got)
	}
}

func TestPushes(t *testing.T) {
	pushed := func(tags string, ages ...int) *registry {
		r := newRegistry(tags)
		for i := range r.tags {
			d := time.Duration(ages[i]) * time.Hour
			r.edit(r.tags[i].Name, func(t *catalog.Tag, img *catalog.Image) {
				t.Pushed, t.Since, img.Since = true, now.Add(-d), now.Add(-d)
			})
		}
		return r
	}
	const long, other = "da39a3ee5e6b4b0d3255bfef95601890afd80709", "aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d"
	for name, c := range map[string]struct {
		from string
		p    Policy
		r    *registry
		want string
	}{
		"hash":              {"abc1234", Policy{}, pushed("abc1234 def5678 0aa1111", 9, 3, 12), "def5678"},
		"digits only":       {"abc1234", Policy{}, pushed("abc1234 1234567", 9, 3), "1234567"},
		"whole hash":        {long, Policy{}, pushed(long+" "+other+" abc1234", 9, 3, 1), other},
		"prefix":            {"sha-abc1234", Policy{}, pushed("sha-abc1234 sha-def5678 def5678 main-def5678", 9, 5, 3, 1), "sha-def5678"},
		"branch":            {"main-abc1234", Policy{}, pushed("main-abc1234 feature-def5678", 9, 3), ""},
		"time":              {"main-abc1234-1700000000", Policy{}, pushed("main-abc1234-1700000000 main-def5678-1700000001", 9, 3), "main-def5678-1700000001"},
		"older":             {"abc1234", Policy{}, pushed("abc1234 def5678", 9, 12), ""},
		"same time":         {"abc1234", Policy{}, pushed("abc1234 def5678", 9, 9), ""},
		"latest is no hash": {"abc1234", Policy{}, pushed("abc1234 latest 1.2.3 main", 9, 1, 1, 1), ""},
		"gone":              {"abc1234", Policy{}, pushed("def5678", 3), ""},
		"any name":          {"blue-otter", Policy{Versioning: "pushed"}, pushed("blue-otter red-fox old-owl latest", 9, 3, 12, 1), "red-fox"},
		"version by push":   {"1.9", Policy{Versioning: "pushed"}, pushed("1.9 1.2 1.20.1", 9, 3, 1), "1.2"},
		"globs":             {"blue", Policy{Versioning: "pushed", Tags: []string{"g*"}}, pushed("blue red green", 9, 1, 3), "green"},
		"cooldown":          {"abc1234", Policy{Cooldown: 2 * time.Hour}, pushed("abc1234 def5678 def5679", 9, 3, 1), "def5678"},
		"first look":        {"abc1234", Policy{}, newRegistry("abc1234 def5678 0aa1111"), ""},
		"seen later":        {"abc1234", Policy{}, newRegistry("abc1234 def5678 0aa1111").age("def5678", day).age("0aa1111", 2*day), "def5678"},
		"never seen":        {"abc1234", Policy{}, newRegistry("abc1234 def5678").edit("def5678", func(t *catalog.Tag, _ *catalog.Image) { t.Since = time.Time{} }), "def5678"},
		"all never seen": {"abc1234", Policy{}, newRegistry("abc1234 def5678").edit("def5678", func(t *catalog.Tag, _ *catalog.Image) { t.Since = time.Time{} }).
			edit("abc1234", func(t *catalog.Tag, _ *catalog.Image) { t.Since = time.Time{} }), ""},
		"two sorts of time": {"abc1234", Policy{}, newRegistry("abc1234 def5678").age("def5678", day).edit("def5678", func(t *catalog.Tag, _ *catalog.Image) { t.Pushed = true }), ""},
		"same image":        {"abc1234", Policy{}, pushed("abc1234 def5678 0aa1111", 9, 1, 3).edit("def5678", func(_ *catalog.Tag, i *catalog.Image) { i.Digest = digestOf("abc1234") }), ""},
	} {
		got := Choose("a:"+c.from, c.p, c.r.facts())
		want := ""
		if c.want != "" {
			want = "a:" + c.want
		}
		if got.To != want || got.Reason == "" {
			t.Errorf("%s: %s %q (%s), want %q", name, got.State, got.To, got.Reason, want)
		}
	}
	// A tag that is gone, of our registry, pinned: its image says when.
	r := pushed("def5678 0aa1111", 3, 12)
	r.old[digestOf("x")] = catalog.Image{Digest: digestOf("x"), Since: now.Add(-9 * time.Hour), Platforms: platforms("linux/amd64")}
	if got := Choose("a:abc1234@"+string(digestOf("x")), Policy{}, r.facts()); got.Tag != "def5678" || got.Digest != digestOf("def5678") {
		t.Errorf("gone and pinned: %+v", got)
	}
}

func TestStates(t *testing.T) {
	flaky := errors.New("503")
	armed := newRegistry("1.2 1.3 1.4").has("1.2", "linux/amd64 linux/arm64").has("1.3", "linux/amd64 linux/arm64")
	for name, c := range map[string]struct {
		ref  string
		p    Policy
		r    *registry
		want State
		to   string
		say  string
	}{
		"newest":            {"a:1.2", Policy{}, newRegistry("1.2 1.1"), Current, "", "1.2 is the newest of 2 tags"},
		"none alike":        {"a:1.2-x", Policy{}, newRegistry("1.2 1.1 1.2-x"), Current, "", "none of the other 2 tags is written like 1.2-x"},
		"major off":         {"a:1.2", Policy{}, newRegistry("1.2 2.0"), Current, "", "2.0: a new major version; major: separate would propose it"},
		"latest":            {"a:latest", Policy{}, newRegistry("latest 1.2"), Unversioned, "", "pin: always"},
		"no tag":            {"a", Policy{}, newRegistry("latest 1.2"), Unversioned, "", "the tag latest is no version"},
		"cooldown":          {"a:1.2", Policy{Cooldown: 3 * day}, newRegistry("1.2 1.3").age("1.3", day), Held, "", "1.3 waits: due 2026-11-25 12:00 UTC, after a cooldown of 3d"},
		"cooldown over":     {"a:1.2", Policy{Cooldown: 3 * day}, newRegistry("1.2 1.3").age("1.3", 3*day), Newer, "a:1.3", ""},
		"older is ripe":     {"a:1.2", Policy{Cooldown: 3 * day}, newRegistry("1.2 1.3 1.4").age("1.4", day), Newer, "a:1.3", "passed over: 1.4: due"},
		"never seen":        {"a:1.2", Policy{Cooldown: 3 * day}, newRegistry("1.2 1.3").edit("1.3", func(t *catalog.Tag, _ *catalog.Image) { t.Since = time.Time{} }), Held, "", "due 2026-11-26"},
		"old tag new image": {"a:1.2", Policy{Cooldown: 3 * day}, newRegistry("1.2 1.3").edit("1.3", func(_ *catalog.Tag, i *catalog.Image) { i.Since = now.Add(-day) }), Held, "", "due 2026-11-25"},
		"old image new tag": {"a:1.2", Policy{Cooldown: 3 * day}, newRegistry("1.2 1.3").edit("1.3", func(t *catalog.Tag, _ *catalog.Image) { t.Since = now.Add(-day) }), Held, "", "due 2026-11-25"},
		"first due":         {"a:1.2", Policy{Cooldown: 3 * day}, newRegistry("1.2 1.3 1.4").age("1.3", 2*day).age("1.4", day), Held, "", "1.3 waits: due 2026-11-24"},
		"first image due": {"a:1.2", Policy{Cooldown: 3 * day}, newRegistry("1.2 1.3 1.4").edit("1.3", func(_ *catalog.Tag, i *catalog.Image) { i.Since = now.Add(-2 * day) }).
			edit("1.4", func(_ *catalog.Tag, i *catalog.Image) { i.Since = now.Add(-day) }), Held, "", "1.3 waits: due 2026-11-24"},
		"unsigned": {"a:1.2", Policy{Signed: true}, newRegistry("1.2 1.3"), Blocked, "", "1.3 is newer, but not signed"},
		"an older is signed": {"a:1.2", Policy{Signed: true}, newRegistry("1.2 1.3 1.4").edit("1.3", func(_ *catalog.Tag, i *catalog.Image) { i.Signed = true }),
			Newer, "a:1.3", "passed over: 1.4: not signed"},
		"platform":          {"a:1.2", Policy{}, newRegistry("1.2 1.3").has("1.2", "linux/amd64 linux/arm64"), Blocked, "", "1.3 is newer, but lacks linux/arm64"},
		"an older has it":   {"a:1.2", Policy{}, armed, Newer, "a:1.3", "1.4: lacks linux/arm64"},
		"nodes":             {"a:1.2", Policy{Platforms: platforms("linux/arm64")}, newRegistry("1.2 1.3"), Blocked, "", "lacks linux/arm64"},
		"nodes have it":     {"a:1.2", Policy{Platforms: platforms("linux/arm64")}, newRegistry("1.2 1.3").has("1.3", "linux/arm64/v8 linux/amd64"), Newer, "a:1.3", ""},
		"needed":            {"a:1.2", Policy{Needed: platforms("linux/amd64")}, armed, Newer, "a:1.4", ""},
		"lower level":       {"a:1.2", Policy{Needed: platforms("linux/arm/v7 linux/amd64/v3")}, newRegistry("1.2 1.3").has("1.3", "linux/arm/v6 linux/amd64"), Newer, "a:1.3", ""},
		"higher level":      {"a:1.2", Policy{Needed: platforms("linux/arm/v6")}, newRegistry("1.2 1.3").has("1.3", "linux/arm/v7"), Blocked, "", "lacks linux/arm/v6"},
		"attestations":      {"a:1.2", Policy{}, newRegistry("1.2 1.3").has("1.2", "linux/amd64 unknown/unknown"), Newer, "a:1.3", ""},
		"chart":             {"a:1.2.0", Policy{Versioning: "semver"}, newRegistry("1.2.0 1.3.0").has("1.2.0", "").has("1.3.0", ""), Newer, "a:1.3.0", ""},
		"no platforms":      {"a:1.2", Policy{}, newRegistry("1.2 1.3").has("1.2", ""), Unknown, "", "platforms: [linux/amd64] would say it"},
		"gone":              {"a:1.2", Policy{}, newRegistry("1.3"), Unknown, "", "the tag 1.2 is gone"},
		"gone, known nodes": {"a:1.2", Policy{Nodes: platforms("linux/amd64")}, newRegistry("1.3"), Newer, "a:1.3", ""},
		"gone, other nodes": {"a:1.2", Policy{Nodes: platforms("linux/amd64 linux/arm64")}, newRegistry("1.3"), Blocked, "", "lacks linux/arm64"},
		"other nodes":       {"a:1.2", Policy{Nodes: platforms("linux/arm64")}, newRegistry("1.2 1.3"), Newer, "a:1.3", ""},
		"gone, needed":      {"a:1.2", Policy{Needed: platforms("linux/amd64")}, newRegistry("1.3"), Newer, "a:1.3", ""},
		"gone, no newer":    {"a:1.2", Policy{}, newRegistry("1.1 1.0"), Current, "", "gone from the registry"},
		"no answer":         {"a:1.2", Policy{}, failing(newRegistry("1.2 1.3 1.4"), "1.4", flaky), Unknown, "", "1.4 is newer, but the registry does not describe it: 503"},
		"none about now":    {"a:1.2", Policy{}, failing(newRegistry("1.2 1.3"), "1.2", flaky), Unknown, "", "503"},
		"listed only":       {"a:1.2", Policy{}, failing(newRegistry("1.2 1.3 1.4"), "1.4", catalog.ErrNotFound), Newer, "a:1.3", "1.4: listed, but not there"},
		"no reference":      {"${var.x}", Policy{}, newRegistry("1.2"), Unknown, "", "${var.x}"},
		"bad range":         {"a:1.2", Policy{Range: ">"}, newRegistry("1.2"), Unknown, "", "nothing follows >"},
		"bad versioning":    {"a:1.2", Policy{Versioning: "semvar"}, newRegistry("1.2"), Unknown, "", "semvar"},
		"wrong scheme":      {"a:1.2", Policy{Versioning: "semver"}, newRegistry("1.2 1.3"), Unversioned, "", "no version by semver"},
		"bad tag listed":    {"a:1.2", Policy{}, newRegistry("1.2 1.3$(x)"), Current, "", ""},
		"signatures":        {"a:sha256-" + strings.Repeat("a", 64), Policy{}, newRegistry("sha256-" + strings.Repeat("b", 64) + ".sig"), Current, "", ""},
	} {
		got := Choose(c.ref, c.p, c.r.facts())
		if got.State != c.want && name != "signatures" || got.To != c.to || !strings.Contains(got.Reason, c.say) || got.Reason == "" {
			t.Errorf("%s: %s %q (%s), want %s %q (…%s…)", name, got.State, got.To, got.Reason, c.want, c.to, c.say)
		}
		if (got.State == Held) != !got.Until.IsZero() || (got.To != "") != (got.State == Newer) {
			t.Errorf("%s: %+v contradicts itself", name, got)
		}
	}
}
