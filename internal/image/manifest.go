package image

import (
	"encoding/json"
	"fmt"
	"mime"
)

// Media types of what can be pushed as a manifest.
const (
	MediaTypeManifest       = "application/vnd.oci.image.manifest.v1+json"
	MediaTypeIndex          = "application/vnd.oci.image.index.v1+json"
	MediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	MediaTypeEmpty          = "application/vnd.oci.empty.v1+json"
)

// MaxManifest is the largest manifest accepted, in bytes. The specification
// asks for at least 4 MiB.
const MaxManifest = 4 << 20

// A Platform is where an image runs.
type Platform struct {
	OS           string `json:"os,omitempty"`
	Architecture string `json:"architecture,omitempty"`
	Variant      string `json:"variant,omitempty"`
}

func (p Platform) String() string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// A Descriptor points at content (image-spec, descriptor.md).
type Descriptor struct {
	MediaType    string            `json:"mediaType,omitempty"`
	Digest       Digest            `json:"digest"`
	Size         int64             `json:"size"`
	URLs         []string          `json:"urls,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Platform     *Platform         `json:"platform,omitempty"`
}

// A Manifest is what Cairn needs to know of one: the edges it has.
type Manifest struct {
	MediaType string
	// ArtifactType is the manifest's own, or else its config's media type:
	// what the referrers list shows (distribution-spec, "Listing Referrers").
	ArtifactType string
	Annotations  map[string]string
	Config       *Descriptor  // nil for an index
	Layers       []Descriptor // nil for an index
	Children     []Descriptor // the manifests of an index; nil otherwise
	Subject      *Descriptor
	Index        bool
}

// A ManifestError says why a manifest was refused (MANIFEST_INVALID).
type ManifestError struct{ Why string }

func (e *ManifestError) Error() string { return "invalid manifest: " + e.Why }

func manifestErrorf(format string, args ...any) error {
	return &ManifestError{fmt.Sprintf(format, args...)}
}

// ParseManifest reads a manifest that was sent with the given Content-Type,
// which may be empty. It validates what Cairn relies on: the media type, that
// the body is one JSON object, and every digest and size in it.
func ParseManifest(contentType string, body []byte) (*Manifest, error) {
	if len(body) > MaxManifest {
		return nil, manifestErrorf("it has %d bytes, the limit is %d", len(body), MaxManifest)
	}
	var raw struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		ArtifactType  string            `json:"artifactType"`
		Annotations   map[string]string `json:"annotations"`
		Config        *Descriptor       `json:"config"`
		Layers        []Descriptor      `json:"layers"`
		Manifests     []Descriptor      `json:"manifests"`
		Subject       *Descriptor       `json:"subject"`
	}
	if err := json.Unmarshal(body, &raw); err != nil {
		return nil, manifestErrorf("it is not JSON of the right shape: %v", err)
	}
	if contentType != "" {
		ct, _, err := mime.ParseMediaType(contentType)
		if err != nil {
			return nil, manifestErrorf("Content-Type %q cannot be read", contentType)
		}
		contentType = ct
	}
	mt := contentType
	if mt == "" {
		mt = raw.MediaType
	}
	if mt == "" { // image-spec leaves mediaType optional: tell by shape
		switch {
		case raw.Manifests != nil:
			mt = MediaTypeIndex
		case raw.Config != nil:
			mt = MediaTypeManifest
		}
	}
	if raw.MediaType != "" && raw.MediaType != mt {
		return nil, manifestErrorf("its mediaType %q differs from the Content-Type %q", raw.MediaType, mt)
	}
	m := &Manifest{MediaType: mt, ArtifactType: raw.ArtifactType, Annotations: raw.Annotations, Subject: raw.Subject}
	switch mt {
	case MediaTypeManifest, MediaTypeDockerManifest:
		if raw.SchemaVersion != 2 {
			return nil, manifestErrorf("schemaVersion must be 2, it is %d", raw.SchemaVersion)
		}
		if raw.Config == nil {
			return nil, manifestErrorf("it has no config")
		}
		if raw.Manifests != nil {
			return nil, manifestErrorf("an image manifest cannot list manifests")
		}
		m.Config, m.Layers = raw.Config, raw.Layers
		if m.ArtifactType == "" {
			m.ArtifactType = raw.Config.MediaType
		}
	case MediaTypeIndex, MediaTypeDockerList:
		if raw.SchemaVersion != 2 {
			return nil, manifestErrorf("schemaVersion must be 2, it is %d", raw.SchemaVersion)
		}
		if raw.Config != nil || raw.Layers != nil {
			return nil, manifestErrorf("an index cannot have config or layers")
		}
		m.Children, m.Index = raw.Manifests, true
	default:
		return nil, manifestErrorf("media type %q is not supported; use %s, %s or Docker's schema 2", mt, MediaTypeManifest, MediaTypeIndex)
	}
	for _, d := range m.descriptors() {
		if _, err := ParseDigest(string(d.Digest)); err != nil {
			return nil, manifestErrorf("descriptor: %v", err)
		}
		if d.Size < 0 {
			return nil, manifestErrorf("descriptor %s has the size %d", d.Digest, d.Size)
		}
	}
	return m, nil
}

func (m *Manifest) descriptors() []Descriptor {
	var ds []Descriptor
	if m.Config != nil {
		ds = append(ds, *m.Config)
	}
	ds = append(ds, m.Layers...)
	ds = append(ds, m.Children...)
	if m.Subject != nil {
		ds = append(ds, *m.Subject)
	}
	return ds
}

// Blobs are the blobs the manifest needs: config and layers, each once.
// Layers that may come from elsewhere (with URLs: the non-distributable ones)
// are not needed.
func (m *Manifest) Blobs() []Descriptor {
	var ds []Descriptor
	seen := map[Digest]bool{}
	add := func(d Descriptor) {
		if !seen[d.Digest] && len(d.URLs) == 0 {
			seen[d.Digest] = true
			ds = append(ds, d)
		}
	}
	if m.Config != nil {
		add(*m.Config)
	}
	for _, l := range m.Layers {
		add(l)
	}
	return ds
}

// CreditConfig is the digest by which some runtimes name this image, or "":
// the config's, unless it is the empty descriptor, which names nothing.
func (m *Manifest) CreditConfig() Digest {
	if m.Config == nil || m.Config.MediaType == MediaTypeEmpty || m.Config.Digest == EmptyDigest {
		return ""
	}
	return m.Config.Digest
}

// EmptyDigest is the digest of "{}", the content of the empty descriptor
// (image-spec, "Guidance for an Empty Descriptor").
const EmptyDigest Digest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
