package catalog

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"cairn.dev/cairn/internal/image"
)

// A source is one repository as it can be read. What is not there is
// [ErrNotFound]; what comes has the digest that was asked for.
type source interface {
	// manifest of a tag or digest.
	manifest(ctx context.Context, reference string) (image.Digest, *image.Manifest, error)
	// blob of at most maxBlob bytes.
	blob(ctx context.Context, d image.Descriptor) ([]byte, error)
	// referrers are descriptors of what refers to a digest. None where the
	// registry has no such list.
	referrers(ctx context.Context, d image.Digest) ([]image.Descriptor, error)
}

const (
	// maxBlob bounds what is read of configs and signatures. Configs of real
	// images have some ten kilobytes.
	maxBlob = 8 << 20
	// maxChildren bounds the manifests that are read to learn what the index
	// does not say about them, and maxDepth how far indexes lead to indexes.
	maxChildren = 32
	maxDepth    = 3
)

// Annotations and labels of images (image-spec, annotations.md).
const (
	noteSource   = "org.opencontainers.image.source"
	noteRevision = "org.opencontainers.image.revision"
	noteVersion  = "org.opencontainers.image.version"
	noteCreated  = "org.opencontainers.image.created"
)

// variant is an image for one platform.
type variant struct {
	platform image.Platform
	digest   image.Digest
}

// describe reads what an image is. Nothing of it can change, so it is asked
// once.
func describe(ctx context.Context, s source, d image.Digest) (Image, error) {
	im := Image{Digest: d}
	_, m, err := s.manifest(ctx, string(d))
	if err != nil {
		return Image{}, err
	}
	im.note(m.Annotations)
	if !m.Index {
		p, err := im.read(ctx, s, m)
		if p.OS != "" {
			im.Platforms = []image.Platform{p}
		}
		return im, err
	}
	reads := 0
	all, err := variants(ctx, s, m, maxDepth, &reads)
	if err != nil {
		return Image{}, err
	}
	slices.SortFunc(all, func(a, b variant) int { return comparePlatforms(a.platform, b.platform) })
	for _, v := range all {
		if n := len(im.Platforms); n == 0 || im.Platforms[n-1] != v.platform {
			im.Platforms = append(im.Platforms, v.platform)
		}
	}
	if len(all) == 0 {
		return im, nil
	}
	best := all[0]
	for _, v := range all {
		if v.platform == (image.Platform{OS: "linux", Architecture: "amd64"}) {
			best = v
			break
		}
	}
	_, child, err := s.manifest(ctx, string(best.digest))
	if err != nil {
		return Image{}, fmt.Errorf("read its image for %s: %w", best.platform, err)
	}
	im.note(child.Annotations)
	_, err = im.read(ctx, s, child)
	return im, err
}

// read takes in the manifest of one platform, and its config, and returns the
// platform that this names.
func (im *Image) read(ctx context.Context, s source, m *image.Manifest) (image.Platform, error) {
	for _, b := range m.Layers {
		im.weigh(b.Size)
	}
	if m.Config == nil {
		return image.Platform{}, nil
	}
	im.weigh(m.Config.Size)
	if !runs(m) {
		return image.Platform{}, nil
	}
	c, err := readConfig(ctx, s, *m.Config)
	if err != nil {
		return image.Platform{}, err
	}
	im.note(c.Config.Labels)
	im.date(c.Created)
	return c.platform(), nil
}

// weigh adds to the size. Nobody stops a manifest from naming sizes without
// end.
func (im *Image) weigh(n int64) {
	if im.Size += n; im.Size < 0 {
		im.Size = math.MaxInt64
	}
}

// date takes the publisher's time if none is known yet and it is one.
func (im *Image) date(t time.Time) {
	if t = t.UTC(); im.Created.IsZero() && t.Year() >= 1 && t.Year() <= 9999 {
		im.Created = t
	}
}

// note takes what is not known yet from annotations or labels.
func (im *Image) note(notes map[string]string) {
	for key, to := range map[string]*string{noteSource: &im.Source, noteRevision: &im.Revision, noteVersion: &im.Version} {
		if v := notes[key]; *to == "" && len(v) <= maxNote && strings.IndexFunc(v, unprintable) < 0 {
			*to = v
		}
	}
	if at, err := time.Parse(time.RFC3339, notes[noteCreated]); err == nil {
		im.date(at)
	}
}

// maxNote bounds what of an image's words goes into pull requests.
const maxNote = 2048

func unprintable(r rune) bool { return r < ' ' || r == 0x7f }

// runs reports whether a manifest is of an image that runs somewhere, and not
// of a chart or another artifact.
func runs(m *image.Manifest) bool {
	switch m.Config.MediaType {
	case "application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json":
		return true
	}
	return false
}

// config is what is read of the config of an image (image-spec, config.md).
type config struct {
	OS           string    `json:"os"`
	Architecture string    `json:"architecture"`
	Variant      string    `json:"variant"`
	Created      time.Time `json:"created"`
	Config       struct {
		Labels map[string]string `json:"Labels"`
	} `json:"config"`
}

func (c config) platform() image.Platform {
	return normalPlatform(image.Platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant})
}

// normalPlatform leaves out the variant that every machine of the architecture
// is: builders write it or do not. What cannot be a platform is none.
func normalPlatform(p image.Platform) image.Platform {
	for _, s := range []string{p.OS, p.Architecture, p.Variant} {
		if len(s) > maxWord || strings.IndexFunc(s, notInWord) >= 0 {
			return image.Platform{}
		}
	}
	if p.Architecture == "arm64" && p.Variant == "v8" || p.Architecture == "amd64" && p.Variant == "v1" {
		p.Variant = ""
	}
	return p
}

// maxWord bounds the parts of a platform. Those that exist have some ten
// letters.
const maxWord = 32

func notInWord(r rune) bool {
	return !('a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '.' || r == '_' || r == '-')
}

func readConfig(ctx context.Context, s source, d image.Descriptor) (config, error) {
	var c config
	b, err := s.blob(ctx, d)
	if err != nil {
		return c, fmt.Errorf("read its config: %w", err)
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("read its config %s: it is no config of an image: %w", d.Digest, err)
	}
	return c, nil
}

// variants are the images of an index. What is attached to them, such as
// provenance, has the platform unknown/unknown and is left out.
func variants(ctx context.Context, s source, index *image.Manifest, depth int, reads *int) ([]variant, error) {
	if depth == 0 {
		return nil, fmt.Errorf("it is an index of indexes of indexes, which no client resolves")
	}
	var out []variant
	for _, c := range index.Children {
		if c.Platform != nil && c.Platform.OS != "" {
			if p := normalPlatform(*c.Platform); p.OS != "unknown" && p.OS != "" {
				out = append(out, variant{p, c.Digest})
			}
			continue
		}
		if c.ArtifactType != "" {
			continue
		}
		// The index does not say: the child does.
		if *reads++; *reads > maxChildren {
			return nil, fmt.Errorf("its index names more than %d images and no platforms", maxChildren)
		}
		_, m, err := s.manifest(ctx, string(c.Digest))
		if err != nil {
			return nil, fmt.Errorf("read %s of its index: %w", c.Digest, err)
		}
		switch {
		case m.Index:
			more, err := variants(ctx, s, m, depth-1, reads)
			if err != nil {
				return nil, err
			}
			out = append(out, more...)
		case m.Config != nil && runs(m):
			cfg, err := readConfig(ctx, s, *m.Config)
			if err != nil {
				return nil, err
			}
			if p := cfg.platform(); p.OS != "" {
				out = append(out, variant{p, c.Digest})
			}
		}
	}
	return out, nil
}

func comparePlatforms(a, b image.Platform) int {
	return cmp.Or(cmp.Compare(a.OS, b.OS), cmp.Compare(a.Architecture, b.Architecture), cmp.Compare(a.Variant, b.Variant))
}
