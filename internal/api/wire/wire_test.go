package wire_test

import (
	"strings"
	"testing"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/image"
)

func TestParseRef(t *testing.T) {
	full := "sha256:" + strings.Repeat("ab", 32)
	for in, want := range map[string]image.Reference{
		"app/web":                     {Repository: "app/web", Tag: "latest"},
		"app/web:1":                   {Repository: "app/web", Tag: "1"},
		"app/web@" + full:             {Repository: "app/web", Digest: image.Digest(full)},
		"app/web@sha256:abcdef":       {Repository: "app/web", Digest: "sha256:abcdef"},
		"app/web:1@sha256:abcdef1234": {Repository: "app/web", Tag: "1", Digest: "sha256:abcdef1234"},
		"latest@sha256:abcdef":        {Repository: "latest", Digest: "sha256:abcdef"},
		"a:latest@sha512:abcdef":      {Repository: "a", Tag: "latest", Digest: "sha512:abcdef"},
	} {
		got, err := wire.ParseRef(in)
		if err != nil || got != want {
			t.Errorf("%s reads as %+v, %v; want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "App", "app/web@sha256:abc", "app/web@sha256:ABCDEF", "app/web@md5:abcdef", "app/web@" + full + "0", "App@sha256:abcdef", "app/web@sha256:"} {
		if got, err := wire.ParseRef(in); err == nil {
			t.Errorf("%q reads as %+v, want an error", in, got)
		}
	}
}

func FuzzParseRef(f *testing.F) {
	for _, s := range []string{"app/web:1@sha256:abcdef", "a@b@c", "@sha256:abcdef", "a:b/c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := wire.ParseRef(s)
		if err != nil {
			return
		}
		if err := image.CheckRepository(r.Repository); err != nil {
			t.Errorf("%q: %v", s, err)
		}
		// What is read can be written and read again.
		if again, err := wire.ParseRef(r.String()); err != nil || again != r {
			t.Errorf("%q reads as %+v, which reads again as %+v, %v", s, r, again, err)
		}
	})
}
