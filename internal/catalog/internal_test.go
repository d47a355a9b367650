package catalog

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"cairn.dev/cairn/internal/image"
)

// Whatever an answer of Google's holds, what is taken from it is sound.
func FuzzUploads(f *testing.F) {
	f.Add([]byte(`{"sha256:4bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459a":{"tag":["1"],"timeUploadedMs":"1597767277119"}}`))
	f.Add([]byte(`{"x":{"timeUploadedMs":1}}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		for name, tag := range uploads(json.RawMessage(text)) {
			if _, err := image.ParseDigest(string(tag.Digest)); err != nil || tag.Name != name || tag.Since.IsZero() {
				t.Errorf("%q: %+v", name, tag)
			}
		}
	})
}

// Nobody but the holder of a key can sign, whatever is written there.
func FuzzSignatures(f *testing.F) {
	d := digest.FromString("x")
	f.Add([]byte(`{"critical":{"image":{"docker-manifest-digest":"`+string(d)+`"},"type":"cosign container image signature"}}`), "AAAA")
	f.Add([]byte(`{"dsseEnvelope":{"payload":"e30=","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"AAAA"}]}}`), "")
	f.Add([]byte(`{"dsseEnvelope":{"signatures":null}}`), "=")
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		f.Fatal(err)
	}
	v := newVerifier([]Key{{"k", public}})
	f.Fuzz(func(t *testing.T, text []byte, signature string) {
		if v.simple(text, signature, d) != "" || v.bundle(text, d) != "" {
			t.Errorf("signed by %q in %q", text, signature)
		}
	})
}

// one is a repository with one manifest and one blob under every name.
type one struct {
	body, config []byte
}

func (o one) manifest(context.Context, string) (image.Digest, *image.Manifest, error) {
	m, err := image.ParseManifest("", o.body)
	return digest.FromBytes(o.body), m, err
}
func (o one) blob(context.Context, image.Descriptor) ([]byte, error) { return o.config, nil }
func (o one) referrers(context.Context, image.Digest) ([]image.Descriptor, error) {
	return nil, nil
}

// What an image says of itself ends, whatever it is, and fits into a page.
func FuzzDescribe(f *testing.F) {
	config := `{"os":"linux","architecture":"arm64","variant":"v8","created":"2026-10-01T00:00:00Z","config":{"Labels":{"org.opencontainers.image.source":"s"}}}`
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"`+string(digest.FromString(config))+`","size":1},"layers":[]}`), []byte(config))
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"`+string(digest.FromString("x"))+`","size":1}]}`), []byte(config))
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"`+string(digest.FromString(config))+`","size":9223372036854775807},"layers":[
		{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"`+string(digest.FromString("l"))+`","size":9223372036854775807}],"annotations":{"org.opencontainers.image.created":"9999-12-31T23:59:59-12:00"}}`),
		[]byte(`{"os":"<script>","architecture":"a"}`))
	f.Fuzz(func(t *testing.T, body, config []byte) {
		im, err := describe(t.Context(), one{body, config}, digest.FromBytes(body))
		if err != nil {
			return
		}
		for i, p := range im.Platforms {
			if p.OS == "" || i > 0 && comparePlatforms(im.Platforms[i-1], p) >= 0 {
				t.Errorf("platforms %v", im.Platforms)
			}
		}
		if _, err := json.Marshal(im); err != nil {
			t.Error(err)
		}
		if strings.Contains(fmt.Sprint(im.Platforms), "<") || len(im.Source)+len(im.Revision)+len(im.Version) > 3*maxNote || im.Size < 0 {
			t.Errorf("described as %+v", im)
		}
	})
}
