package image

import (
	"errors"
	"strings"
	"testing"
)

const (
	hex64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	sha   = "sha256:" + hex64
)

func TestCheckRepository(t *testing.T) {
	for _, s := range []string{
		"a", "app", "app/web", "a/b/c/d/e/f/g", "a.b", "a_b", "a__b", "a-b", "a--b", "a---b", "0", "1.2.3", "a/b-c/d__e",
		strings.Repeat("a", 255), strings.Repeat("a/", 127) + "a",
	} {
		if err := CheckRepository(s); err != nil {
			t.Errorf("%.40q: %v", s, err)
		}
	}
	for _, s := range []string{
		"", "/", "a/", "/a", "a//b", "A", "app/Web", ".", "..", "a/../b", "../a", "a/./b", ".a", "a.", "a..b", "-a", "a-", "_a", "a_", "a___b",
		"a._b", "a b", "a\n", "a\x00", "ä", "a:b", "a@b", "a%2fb", `a\b`, "a?b", "a+b", strings.Repeat("a", 256),
	} {
		err := CheckRepository(s)
		if e, ok := errors.AsType[*NameError](err); !ok || e.Kind != "repository" || e.Value != s {
			t.Errorf("%.40q: %v, want a NameError", s, err)
		}
		if err != nil && len(err.Error()) > 400 {
			t.Errorf("an error of %d characters", len(err.Error()))
		}
	}
	if err := CheckRepository("App"); err == nil || !strings.Contains(err.Error(), "upper-case") {
		t.Errorf("%v does not say that it is about upper case", err)
	}
}

func TestCheckTag(t *testing.T) {
	for _, s := range []string{"a", "latest", "v1.0", "1", "_", "A.B-C_d", strings.Repeat("a", 128), "sha256-" + hex64} {
		if err := CheckTag(s); err != nil {
			t.Errorf("%.40q: %v", s, err)
		}
	}
	for _, s := range []string{"", ".a", "-a", "a/b", "a:b", "a b", "ä", "a\n", "..", sha, strings.Repeat("a", 129)} {
		if e, ok := errors.AsType[*NameError](CheckTag(s)); !ok || e.Kind != "tag" {
			t.Errorf("%.40q was allowed", s)
		}
	}
}

func TestParseDigest(t *testing.T) {
	for _, s := range []string{sha, "sha512:" + hex64 + hex64} {
		d, err := ParseDigest(s)
		if err != nil || string(d) != s {
			t.Errorf("%.40q: %q, %v", s, d, err)
		}
		if err == nil {
			_ = d.Verifier() // panics when the hash is not linked in
		}
	}
	for _, s := range []string{
		"", "sha256", "sha256:", ":" + hex64, "sha256:" + hex64[1:], sha + "0", "sha256:" + strings.ToUpper(hex64), "SHA256:" + hex64,
		"sha512:" + hex64, "md5:" + hex64[:32], "sha384:" + hex64[:48], "sha256:" + hex64[:63] + "g", "sha256:" + hex64[:63] + "/", "sha256::" + hex64[1:],
		"sha256:../" + hex64[3:], " " + sha, sha + "\n",
	} {
		if d, err := ParseDigest(s); err == nil {
			t.Errorf("%.40q was allowed as %q", s, d)
		} else if e, ok := errors.AsType[*NameError](err); !ok || e.Kind != "digest" {
			t.Errorf("%.40q: %v, want a NameError", s, err)
		}
	}
}

func TestFallbackSubject(t *testing.T) {
	for tag, want := range map[string]string{
		"sha256-" + hex64:                  sha,
		"sha256-" + hex64 + ".sig":         sha,
		"sha256-" + hex64 + ".att":         sha,
		"sha256-" + hex64 + ".sbom":        sha,
		"sha512-" + hex64 + hex64:          "sha512:" + hex64 + hex64,
		"sha256-" + hex64 + "sig":          "",
		"sha256-" + hex64 + ".":            "",
		"sha256-" + hex64[1:]:              "",
		"sha512-" + hex64:                  "",
		"sha256-" + strings.ToUpper(hex64): "",
		"x-sha256-" + hex64:                "",
		"latest":                           "",
		"":                                 "",
	} {
		if d, ok := FallbackSubject(tag); string(d) != want || ok != (want != "") {
			t.Errorf("%q: %q, %v; want %q", tag, d, ok, want)
		}
	}
}

func TestParseReference(t *testing.T) {
	for s, want := range map[string]Reference{
		"app":                {Repository: "app", Tag: "latest"},
		"app/web:1.0":        {Repository: "app/web", Tag: "1.0"},
		"app/web@" + sha:     {Repository: "app/web", Digest: sha},
		"app/web:1.0@" + sha: {Repository: "app/web", Tag: "1.0", Digest: sha},
	} {
		r, err := ParseReference(s)
		if err != nil || r != want {
			t.Errorf("%q: %+v, %v; want %+v", s, r, err, want)
		}
		if again, err := ParseReference(r.String()); err != nil || again != r {
			t.Errorf("%q reads back as %+v, %v", r, again, err)
		}
	}
	for _, s := range []string{"", ":", "@", "app:", "app@", "app@latest", ":tag", "@" + sha, "app:a:b", "App:1", "localhost:5000/app", "app:1@sha256:x", "app@" + sha + "@" + sha} {
		if r, err := ParseReference(s); err == nil {
			t.Errorf("%q was read as %+v", s, r)
		}
	}
}

func FuzzParseReference(f *testing.F) {
	f.Add("app/web:1.0@" + sha)
	f.Add("a__b/c-d:_")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseReference(s)
		if err != nil {
			if _, ok := errors.AsType[*NameError](err); !ok {
				t.Errorf("%q: %v is no NameError", s, err)
			}
			return
		}
		if CheckRepository(r.Repository) != nil || r.Tag != "" && CheckTag(r.Tag) != nil {
			t.Errorf("%q was read as %+v", s, r)
		}
		// What is in a name can be used as a path.
		for _, part := range strings.Split(r.Repository, "/") {
			if part == "" || part == "." || part == ".." {
				t.Errorf("%q has the part %q", s, part)
			}
		}
		if again, err := ParseReference(r.String()); err != nil || again != r {
			t.Errorf("%q reads back as %+v, %v", r, again, err)
		}
	})
}
