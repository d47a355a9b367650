package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

const (
	shaB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	shaC = "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
)

func desc(d string) string { return fmt.Sprintf(`{"mediaType":"x/y","digest":"%s","size":3}`, d) }

func digests(ds []Descriptor) string {
	var out []string
	for _, d := range ds {
		out = append(out, string(d.Digest))
	}
	return strings.Join(out, " ")
}

func TestParseManifest(t *testing.T) {
	manifest := `{"schemaVersion":2,"mediaType":"` + MediaTypeManifest + `","config":` + desc(sha) + `,"layers":[` + desc(shaB) + `,` + desc(shaC) + `,` + desc(shaB) + `]}`
	for _, c := range []struct {
		name, contentType, body  string
		mediaType, artifact      string
		blobs, children, subject string
		credit                   string
		index                    bool
	}{
		{name: "image", contentType: MediaTypeManifest, body: manifest, mediaType: MediaTypeManifest, artifact: "x/y", blobs: sha + " " + shaB + " " + shaC, credit: sha},
		{name: "no Content-Type", body: manifest, mediaType: MediaTypeManifest, artifact: "x/y", blobs: sha + " " + shaB + " " + shaC, credit: sha},
		{name: "parameters", contentType: MediaTypeManifest + "; charset=utf-8", body: manifest, mediaType: MediaTypeManifest, artifact: "x/y", blobs: sha + " " + shaB + " " + shaC, credit: sha},
		{name: "by shape", body: `{"schemaVersion":2,"config":` + desc(sha) + `}`, mediaType: MediaTypeManifest, artifact: "x/y", blobs: sha, credit: sha},
		{name: "docker", contentType: MediaTypeDockerManifest, body: `{"schemaVersion":2,"config":` + desc(sha) + `,"layers":[]}`, mediaType: MediaTypeDockerManifest, artifact: "x/y", blobs: sha, credit: sha},
		{name: "artifact", contentType: MediaTypeManifest, body: `{"schemaVersion":2,"artifactType":"a/b","config":{"mediaType":"` + MediaTypeEmpty + `","digest":"` + string(EmptyDigest) + `","size":2},"layers":[],"subject":` + desc(shaC) + `}`,
			mediaType: MediaTypeManifest, artifact: "a/b", blobs: string(EmptyDigest), subject: shaC},
		{name: "empty by digest only", contentType: MediaTypeManifest, body: `{"schemaVersion":2,"config":{"mediaType":"x/y","digest":"` + string(EmptyDigest) + `","size":2}}`, mediaType: MediaTypeManifest, artifact: "x/y", blobs: string(EmptyDigest)},
		{name: "foreign layer", contentType: MediaTypeManifest, body: `{"schemaVersion":2,"config":` + desc(sha) + `,"layers":[{"digest":"` + shaB + `","size":1,"urls":["https://example.org/x"]}]}`, mediaType: MediaTypeManifest, artifact: "x/y", blobs: sha, credit: sha},
		{name: "index", contentType: MediaTypeIndex, body: `{"schemaVersion":2,"artifactType":"a/b","manifests":[` + desc(shaB) + `,` + desc(shaC) + `],"subject":` + desc(sha) + `}`, mediaType: MediaTypeIndex, artifact: "a/b", children: shaB + " " + shaC, subject: sha, index: true},
		{name: "index by shape", body: `{"schemaVersion":2,"manifests":[]}`, mediaType: MediaTypeIndex, index: true},
		{name: "docker list", contentType: MediaTypeDockerList, body: `{"schemaVersion":2,"mediaType":"` + MediaTypeDockerList + `","manifests":[` + desc(shaB) + `]}`, mediaType: MediaTypeDockerList, children: shaB, index: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := ParseManifest(c.contentType, []byte(c.body))
			if err != nil {
				t.Fatal(err)
			}
			if m.MediaType != c.mediaType || m.ArtifactType != c.artifact || m.Index != c.index {
				t.Errorf("media type %q, artifact type %q, index %v", m.MediaType, m.ArtifactType, m.Index)
			}
			if got := digests(m.Blobs()); got != c.blobs {
				t.Errorf("blobs %s, want %s", got, c.blobs)
			}
			if got := digests(m.Children); got != c.children {
				t.Errorf("children %s, want %s", got, c.children)
			}
			if (m.Subject != nil) != (c.subject != "") || m.Subject != nil && string(m.Subject.Digest) != c.subject {
				t.Errorf("subject %v, want %q", m.Subject, c.subject)
			}
			if got := m.CreditConfig(); string(got) != c.credit {
				t.Errorf("credit for %q, want %q", got, c.credit)
			}
		})
	}
}

func TestParseManifestRefuses(t *testing.T) {
	ok := `{"schemaVersion":2,"config":` + desc(sha) + `}`
	for _, c := range []struct{ name, contentType, body, why string }{
		{"empty", "", "", "JSON"},
		{"not JSON", MediaTypeManifest, "{", "JSON"},
		{"not an object", MediaTypeManifest, "[]", "JSON"},
		{"null", MediaTypeManifest, "null", "schemaVersion"},
		{"two objects", MediaTypeManifest, ok + ok, "JSON"},
		{"wrong shape", MediaTypeManifest, `{"schemaVersion":2,"config":"x"}`, "JSON"},
		{"too large", MediaTypeManifest, ok + strings.Repeat(" ", MaxManifest), "limit"},
		{"schema 1", "application/vnd.docker.distribution.manifest.v1+json", `{"schemaVersion":1}`, "not supported"},
		{"schemaVersion 1", MediaTypeManifest, `{"schemaVersion":1,"config":` + desc(sha) + `}`, "schemaVersion"},
		{"no schemaVersion", MediaTypeManifest, `{"config":` + desc(sha) + `}`, "schemaVersion"},
		{"index without schemaVersion", MediaTypeIndex, `{"manifests":[]}`, "schemaVersion"},
		{"no config", MediaTypeManifest, `{"schemaVersion":2}`, "config"},
		{"config null", MediaTypeManifest, `{"schemaVersion":2,"config":null}`, "config"},
		{"other media type inside", MediaTypeManifest, `{"schemaVersion":2,"mediaType":"` + MediaTypeDockerManifest + `","config":` + desc(sha) + `}`, "differs"},
		{"both", MediaTypeManifest, `{"schemaVersion":2,"config":` + desc(sha) + `,"manifests":[]}`, "cannot list"},
		{"index with layers", MediaTypeIndex, `{"schemaVersion":2,"manifests":[],"layers":[]}`, "cannot have"},
		{"index with config", MediaTypeIndex, `{"schemaVersion":2,"manifests":[],"config":` + desc(sha) + `}`, "cannot have"},
		{"unknown type", "application/json", ok, "not supported"},
		{"no type at all", "", `{"schemaVersion":2}`, "not supported"},
		{"bad Content-Type", ";;", ok, "Content-Type"},
		{"digest of a layer", MediaTypeManifest, `{"schemaVersion":2,"config":` + desc(sha) + `,"layers":[` + desc("sha256:x") + `]}`, "digest"},
		{"layer null", MediaTypeManifest, `{"schemaVersion":2,"config":` + desc(sha) + `,"layers":[null]}`, "digest"},
		{"digest of the subject", MediaTypeManifest, `{"schemaVersion":2,"config":` + desc(sha) + `,"subject":{"size":1}}`, "digest"},
		{"digest of a child", MediaTypeIndex, `{"schemaVersion":2,"manifests":[` + desc("../../x") + `]}`, "digest"},
		{"negative size", MediaTypeManifest, `{"schemaVersion":2,"config":{"digest":"` + sha + `","size":-1}}`, "size"},
		{"size too large", MediaTypeManifest, `{"schemaVersion":2,"config":{"digest":"` + sha + `","size":9223372036854775808}}`, "JSON"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseManifest(c.contentType, []byte(c.body))
			if _, is := errors.AsType[*ManifestError](err); !is || !strings.Contains(err.Error(), c.why) {
				t.Errorf("got %v, want a ManifestError about %q", err, c.why)
			}
		})
	}
}

func TestPlatformString(t *testing.T) {
	for want, p := range map[string]Platform{"linux/amd64": {OS: "linux", Architecture: "amd64"}, "linux/arm/v7": {OS: "linux", Architecture: "arm", Variant: "v7"}} {
		if p.String() != want {
			t.Errorf("%q, want %q", p, want)
		}
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add("", []byte(`{"schemaVersion":2,"manifests":[`+desc(sha)+`],"annotations":{"a":"b"}}`))
	f.Add(MediaTypeManifest, []byte(`{"schemaVersion":2,"config":`+desc(sha)+`,"layers":[`+desc(shaB)+`],"subject":`+desc(shaC)+`}`))
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		m, err := ParseManifest(contentType, body)
		if err != nil {
			if _, ok := errors.AsType[*ManifestError](err); !ok {
				t.Errorf("%v is no ManifestError", err)
			}
			return
		}
		if !json.Valid(body) {
			t.Error("accepted what is not JSON")
		}
		if m.Index != (m.Config == nil) || m.Index && len(m.Blobs()) > 0 || !m.Index && len(m.Children) > 0 {
			t.Errorf("half an image, half an index: %+v", m)
		}
		if !slices.Contains([]string{MediaTypeManifest, MediaTypeIndex, MediaTypeDockerManifest, MediaTypeDockerList}, m.MediaType) {
			t.Errorf("media type %q", m.MediaType)
		}
		for _, d := range m.descriptors() {
			if _, err := ParseDigest(string(d.Digest)); err != nil || d.Size < 0 {
				t.Errorf("descriptor %+v: %v", d, err)
			}
		}
	})
}
