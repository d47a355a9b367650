package registry

import (
	"strings"
	"testing"

	"cairn.dev/cairn/internal/image"
)

func TestParseRoute(t *testing.T) {
	for path, want := range map[string]route{
		"/v2/":                                   {kind: kindPing},
		"/v2":                                    {kind: kindPing},
		"/v2/_catalog":                           {kind: kindCatalog},
		"/v2/a/tags/list":                        {kindTags, "a", ""},
		"/v2/a/b/c/tags/list":                    {kindTags, "a/b/c", ""},
		"/v2/a/manifests/latest":                 {kindManifest, "a", "latest"},
		"/v2/a/b/manifests/sha256:abc":           {kindManifest, "a/b", "sha256:abc"},
		"/v2/a/referrers/sha256:abc":             {kindReferrers, "a", "sha256:abc"},
		"/v2/a/blobs/sha256:abc":                 {kindBlob, "a", "sha256:abc"},
		"/v2/a/blobs/uploads/":                   {kindUploads, "a", ""},
		"/v2/a/blobs/uploads":                    {kindUploads, "a", ""},
		"/v2/a/blobs/uploads/42":                 {kindUpload, "a", "42"},
		"/v2/a/b/blobs/uploads/42":               {kindUpload, "a/b", "42"},
		"/v2/manifests/manifests/manifests":      {kindManifest, "manifests", "manifests"},
		"/v2/a/blobs/b/manifests/latest":         {kindManifest, "a/blobs/b", "latest"},
		"/v2/a/blobs/uploads/manifests/latest":   {kindManifest, "a/blobs/uploads", "latest"},
		"/v2/a/blobs/blobs/uploads/":             {kindUploads, "a/blobs", ""},
		"/v2/a/blobs/uploads/blobs/uploads/42":   {kindUpload, "a/blobs/uploads", "42"},
		"/v2/tags/list/tags/list":                {kindTags, "tags/list", ""},
		"/v2/../manifests/latest":                {kindManifest, "..", "latest"}, // refused as a name
		"/v2//manifests/latest":                  {},
		"/v2/manifests/latest":                   {},
		"/v2/blobs/uploads/":                     {},
		"/v2/blobs/uploads/42":                   {},
		"/v2/a/uploads/42":                       {},
		"/v2/a/manifests/":                       {},
		"/v2/a/blobs/":                           {},
		"/v2/a/tags/":                            {},
		"/v2/a/tags/list/":                       {},
		"/v2/a/tags/other":                       {},
		"/v2/a":                                  {},
		"/v2/tags/list":                          {},
		"/v1/a/manifests/latest":                 {},
		"/v2x/a/manifests/latest":                {},
		"/":                                      {},
		"":                                       {},
		"/v2/a/blobs/uploads/42/":                {},
		"/v2/a/blobs/uploads/42/more":            {},
		"/v2/a/manifests/latest/":                {},
		"v2/a/manifests/latest":                  {},
		"/v2/_catalog/":                          {},
		"/v2/_catalog/manifests/latest":          {kindManifest, "_catalog", "latest"},
		"/v2/a/b/c/d/e/f/g/h/i/blobs/sha512:abc": {kindBlob, "a/b/c/d/e/f/g/h/i", "sha512:abc"},
	} {
		if got := parseRoute(path); got != want {
			t.Errorf("parseRoute(%q) = %+v, want %+v", path, got, want)
		}
	}
}

// path is the address of a route, as the specification writes it.
func (r route) path() string {
	switch r.kind {
	case kindPing:
		return "/v2/"
	case kindCatalog:
		return "/v2/_catalog"
	case kindTags:
		return "/v2/" + r.repository + "/tags/list"
	case kindManifest:
		return "/v2/" + r.repository + "/manifests/" + r.arg
	case kindReferrers:
		return "/v2/" + r.repository + "/referrers/" + r.arg
	case kindBlob:
		return "/v2/" + r.repository + "/blobs/" + r.arg
	case kindUploads:
		return "/v2/" + r.repository + "/blobs/uploads/"
	case kindUpload:
		return "/v2/" + r.repository + "/blobs/uploads/" + r.arg
	}
	return ""
}

// FuzzParseRoute looks for paths that are read as something else than what
// they say.
func FuzzParseRoute(f *testing.F) {
	for _, s := range []string{"", "/v2/", "/v2/a/manifests/x", "/v2/a/blobs/uploads/", "/v2/a/blobs/uploads", "/v2/blobs/blobs/uploads/42", "/v2/a//tags/list", "/v2/a/tags/list"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		r := parseRoute(path)
		if r.kind != kindNone {
			if got := r.path(); got != path && got != path+"/" {
				t.Fatalf("parseRoute(%q) = %+v, which is %q", path, r, got)
			}
			if r.kind > kindCatalog && r.repository == "" {
				t.Fatalf("parseRoute(%q) has no repository", path)
			}
			if strings.Contains(r.arg, "/") {
				t.Fatalf("parseRoute(%q) = %+v: a slash in the argument", path, r)
			}
		}
		// And the other way: what a client builds from a good name comes
		// back as that name.
		if image.CheckRepository(path) == nil {
			for k := kindTags; k <= kindUpload; k++ {
				want := route{k, path, ""}
				if k != kindTags && k != kindUploads {
					want.arg = "sha256:0123"
				}
				if got := parseRoute(want.path()); got != want {
					t.Fatalf("parseRoute(%q) = %+v, want %+v", want.path(), got, want)
				}
			}
		}
	})
}

func BenchmarkParseRoute(b *testing.B) {
	for b.Loop() {
		parseRoute("/v2/team/project/app/manifests/v1.2.3")
	}
}
