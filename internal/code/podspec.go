package code

import (
	"slices"
	"strconv"
	"strings"
)

// KubernetesImages returns the images of a Kubernetes object, in their order:
// of the containers of any pod template in it, of image volumes (KEP-4639),
// and, for kinds that Kubernetes itself does not have, of every field that is
// called image, ends in Image or imageName, or follows Helm's conventions.
// ConfigMaps and Secrets hold texts, not objects, and are not looked into.
func KubernetesImages(object *Node) []Found {
	w := &walk{left: maxNodes}
	w.object("", object, maxDepth)
	return w.found
}

func (w *walk) object(path string, n *Node, depth int) {
	kind, _ := n.Get("kind").text()
	version, _ := n.Get("apiVersion").text()
	if items := n.Get("items"); strings.HasSuffix(kind, "List") && items != nil && items.Kind == List && depth > 0 {
		for i, item := range items.Items {
			w.object(join(path, "items")+"["+strconv.Itoa(i)+"]", item, depth-1)
		}
		return
	}
	if kind == "ConfigMap" || kind == "Secret" {
		return
	}
	if builtin(version) {
		w.maps(path, "", n, depth, func(path, key string, m *Node) { w.container(path, key, m) })
		return
	}
	if kind == "HelmRelease" || kind == "HelmChart" { // Flux, k3s
		w.maps(path, "", n, depth, w.values(n.Get("spec").Get("values")))
		return
	}
	w.maps(path, "", n, depth, w.custom)
}

// builtin reports whether apiVersion is of a group of Kubernetes itself that
// has pods in it.
func builtin(version string) bool {
	group, _, grouped := strings.Cut(version, "/")
	return !grouped || group == "apps" || group == "batch" || group == "extensions"
}

// PodImages returns the images of a pod spec, a pod template, or anything else
// that has containers in it, at the given path.
func PodImages(path string, n *Node) []Found {
	w := &walk{left: maxNodes}
	w.maps(path, "", n, maxDepth, func(path, key string, m *Node) { w.container(path, key, m) })
	return w.found
}

// container looks at one map of an object of Kubernetes' own, and reports
// whether it is a container or an image volume.
func (w *walk) container(path, key string, m *Node) bool {
	switch key {
	case "containers", "initContainers", "ephemeralContainers":
		w.whole(join(path, "image"), m.Get("image"), anything)
		return true
	case "volumes":
		w.whole(join(path, "image.reference"), m.Get("image").Get("reference"), anything)
		return true
	}
	return false
}

// custom looks at one map of an object of a kind that is not Kubernetes' own.
func (w *walk) custom(path, key string, m *Node) {
	switch key {
	case "container", "script", "sidecars", "steps", "stepTemplate", "containerSets": // Argo, Tekton
		w.whole(join(path, "image"), m.Get("image"), anything)
		return
	}
	if w.container(path, key, m) {
		return
	}
	before := len(w.found)
	w.convention(path, key, m, nil)
	for i, k := range m.Keys {
		switch {
		case k == "image", strings.HasSuffix(k, "Image"), strings.HasSuffix(strings.ToLower(k), "imagename"):
			w.known(join(path, k), m.Items[i], before)
		}
	}
}

// known adds an image of a field that may hold other things as well, unless
// it is among those found since before.
func (w *walk) known(path string, n *Node, before int) {
	if n.Kind == String && !slices.ContainsFunc(w.found[before:], func(f Found) bool { return f.Path == path }) {
		w.whole(path, n, versioned)
	}
}

func anything(Reference) bool { return true }

func versioned(r Reference) bool { return r.Tag != "" || r.Digest != "" }
