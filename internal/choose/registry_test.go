package choose

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"cairn.dev/cairn/internal/catalog"
	"cairn.dev/cairn/internal/image"
)

func digestOf(s string) image.Digest {
	sum := sha256.Sum256([]byte(s))
	return image.Digest("sha256:" + hex.EncodeToString(sum[:]))
}

// registry is a repository for tests: every tag has an image of its own, for
// linux/amd64, known for a year, unless something else is said.
type registry struct {
	tags   []catalog.Tag
	images map[string]catalog.Image // by tag
	old    map[image.Digest]catalog.Image
	errs   map[string]error
	looks  []string
}

func newRegistry(tags string) *registry {
	r := &registry{images: map[string]catalog.Image{}, old: map[image.Digest]catalog.Image{}, errs: map[string]error{}}
	for name := range strings.FieldsSeq(tags) {
		r.tags = append(r.tags, catalog.Tag{Name: name, Since: now.Add(-365 * day)})
		r.images[name] = catalog.Image{Digest: digestOf(name), Platforms: platforms("linux/amd64"), Since: now.Add(-365 * day)}
	}
	return r
}

func (r *registry) facts() Facts {
	return Facts{Now: now, Tags: r.tags, Look: func(tag string) (catalog.Image, error) {
		r.looks = append(r.looks, tag)
		if err := r.errs[tag]; err != nil {
			return catalog.Image{}, err
		}
		img, ok := r.images[tag]
		if !ok {
			return catalog.Image{}, catalog.ErrNotFound
		}
		return img, nil
	}, Inspect: func(d image.Digest) (catalog.Image, error) {
		if img, ok := r.old[d]; ok {
			return img, nil
		}
		for _, img := range r.images {
			if img.Digest == d {
				return img, nil
			}
		}
		return catalog.Image{}, catalog.ErrNotFound
	}}
}

// edit changes a tag and its image.
func (r *registry) edit(tag string, f func(*catalog.Tag, *catalog.Image)) *registry {
	for i := range r.tags {
		if r.tags[i].Name == tag {
			img := r.images[tag]
			f(&r.tags[i], &img)
			r.images[tag] = img
			return r
		}
	}
	panic("no tag " + tag)
}

// age says when a tag and its image were pushed or seen.
func (r *registry) age(tag string, d time.Duration) *registry {
	return r.edit(tag, func(t *catalog.Tag, i *catalog.Image) { t.Since, i.Since = now.Add(-d), now.Add(-d) })
}

// moves says when a tag was moved to the image that it names.
func (r *registry) moves(tag string, d time.Duration) *registry {
	return r.edit(tag, func(t *catalog.Tag, _ *catalog.Image) { t.Since = now.Add(-d) })
}

func (r *registry) has(tag, list string) *registry {
	return r.edit(tag, func(_ *catalog.Tag, i *catalog.Image) { i.Platforms = platforms(list) })
}

func platforms(list string) (out []image.Platform) {
	for s := range strings.FieldsSeq(list) {
		p := strings.Split(s+"/", "/")
		out = append(out, image.Platform{OS: p[0], Architecture: p[1], Variant: p[2]})
	}
	return out
}

func failing(r *registry, tag string, err error) *registry {
	r.errs[tag] = err
	return r
}
