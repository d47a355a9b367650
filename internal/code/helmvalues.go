package code

import (
	"slices"
	"strings"
)

// HelmImages returns the images of a chart's values, in their order. Charts
// agree on nothing, but nearly all follow one of these, at any depth:
//
//	image: {registry: R, repository: N, tag: T, digest: D}   each but repository may be missing
//	image: {name: N, tag: T}
//	image: N:T
//	image: N, tag: T        (or imageTag, imageDigest)
//	sidecarImage: N:T       (or sidecarImage: N, sidecarImageTag: T)
//	sidecarRepository: N, sidecarTag: T
//
// global.imageRegistry goes before the registry of those that name one.
func HelmImages(values *Node) []Found {
	w := &walk{left: maxNodes}
	w.maps("", "", values, maxDepth, w.values(values))
	return w.found
}

func (w *walk) values(values *Node) func(path, key string, m *Node) {
	registry := first(values.Get("global"), []string{"imageRegistry"})
	return func(path, key string, m *Node) {
		if w.container(path, key, m) {
			return
		}
		before := len(w.found)
		w.convention(path, key, m, registry)
		for i, k := range m.Keys {
			if k == "image" || strings.HasSuffix(k, "Image") {
				w.known(join(path, k), m.Items[i], before)
			}
		}
	}
}

// A split is one way to keep the parts of a reference apart: the keys of its
// parts within one map, and of each the first that is there counts.
type split struct {
	name             string
	registry         []string
	tag              []string
	digest           []string
	inImage          bool // only in a map that is called image
	evenWithoutParts bool // name alone is an image whose tag the chart knows
}

// convention adds the image of a map that keeps the parts of a reference
// apart.
func (w *walk) convention(path, key string, m *Node, global *Node) {
	inImage := key == "image" || strings.HasSuffix(key, "Image") || key == "images"
	any := false
	for _, k := range m.Keys {
		s, ok := splitBy(k)
		if !ok || s.inImage && !inImage {
			continue
		}
		if w.parts(path, m, s, global, inImage) {
			any = true
		}
	}
	if !any && inImage {
		w.tagOnly(path, m)
	}
}

// splitBy returns the convention that a key of a map announces.
func splitBy(k string) (split, bool) {
	switch {
	case k == "repository":
		return split{name: k, registry: []string{"registry"}, tag: []string{"tag", "version"}, digest: []string{"digest", "sha", "sha256"}, evenWithoutParts: true}, true
	case k == "name":
		return split{name: k, registry: []string{"registry"}, tag: []string{"tag", "version"}, digest: []string{"digest", "sha", "sha256"}, inImage: true}, true
	case k == "image":
		return split{name: k, registry: []string{"registry", "imageRegistry"}, tag: []string{"tag", "imageTag"}, digest: []string{"digest", "imageDigest"}}, true
	case strings.HasSuffix(k, "Image"):
		return split{name: k, tag: []string{k + "Tag", strings.TrimSuffix(k, "Image") + "Tag"}, digest: []string{k + "Digest"}}, true
	case strings.HasSuffix(k, "Repository"):
		stem := strings.TrimSuffix(k, "Repository")
		return split{name: k, registry: []string{stem + "Registry"}, tag: []string{stem + "Tag"}, digest: []string{stem + "Digest"}}, true
	}
	return split{}, false
}

// first returns the first of the keys that says something.
func first(m *Node, keys []string) *Node {
	for _, k := range keys {
		if n := m.Get(k); n != nil {
			if n.Kind == Unknown {
				return n
			}
			if s, ok := n.text(); ok && s != "" {
				return n
			}
		}
	}
	return nil
}

func (w *walk) parts(path string, m *Node, s split, global *Node, inImage bool) bool {
	name := m.Get(s.name)
	if name.Kind != String && name.Kind != Unknown {
		return false
	}
	registry, tag, digest := first(m, s.registry), first(m, s.tag), first(m, s.digest)
	if registry != nil && global != nil {
		registry = global
	}
	at := join(path, s.name)
	if s.name == "repository" || s.name == "name" {
		at = path
	}
	if tag == nil && digest == nil {
		if _, err := ParseReference(name.Text); name.Kind == Unknown || err != nil || !s.evenWithoutParts || !inImage {
			return false
		}
		w.found = append(w.found, Found{Path: at, Parts: []*Node{name}, Fixed: "no tag is set, so the chart's own is used: set one to have it followed"})
		return true
	}
	var parts []*Node
	for _, n := range []*Node{registry, name, tag, digest} {
		if n != nil {
			parts = append(parts, n)
		}
	}
	if i := slices.IndexFunc(parts, func(n *Node) bool { return n.Kind == Unknown }); i >= 0 {
		w.found = append(w.found, Found{Path: at, Parts: parts, Fixed: parts[i].Text})
		return true
	}
	v := name.Text
	if registry != nil {
		v = strings.TrimSuffix(registry.Text, "/") + "/" + v
	}
	if tag != nil {
		v += ":" + tag.Text
	}
	if digest != nil {
		v += "@" + withAlgorithm(digest.Text)
	}
	r, err := ParseReference(v)
	if err != nil || sourceHost(r.Name) {
		return false
	}
	w.found = append(w.found, Found{Path: at, Value: v, Parts: parts})
	return true
}

// tagOnly adds the image of a map that sets a tag and leaves the repository to
// the chart.
func (w *walk) tagOnly(path string, m *Node) {
	tag := first(m, []string{"tag", "digest"})
	if tag == nil || m.Get("repository") != nil || m.Get("name") != nil {
		return
	}
	w.found = append(w.found, Found{Path: path, Parts: []*Node{tag},
		Fixed: "the repository is the chart's default, which is not in the code: set repository too, or write the comment # cairn: image=REPOSITORY above the tag"})
}

// withAlgorithm spells a digest out: some charts take the bare hex digits.
func withAlgorithm(d string) string {
	if !strings.Contains(d, ":") {
		return "sha256:" + d
	}
	return d
}

// sourceHost reports whether the name is of a place for source code, where
// repository and tag mean Git's.
func sourceHost(name string) bool {
	host, _ := splitHost(name)
	return host == "github.com" || host == "gitlab.com" || host == "bitbucket.org"
}
