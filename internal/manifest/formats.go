package manifest

import (
	"slices"
	"strings"

	"cairn.dev/cairn/internal/code"
)

// object reads an object of Kubernetes, or of what speaks its language.
func (y *reading) object(root *code.Node) {
	objects := []*code.Node{root}
	if items := root.Get("items"); strings.HasSuffix(str(root.Get("kind")), "List") && items != nil && items.Kind == code.List {
		objects = items.Items
	}
	for _, o := range objects {
		address := addressOf(o)
		for _, f := range code.KubernetesImages(o) {
			y.add(y.from(code.Kubernetes, address, f))
		}
		y.charts(address, o)
	}
}

// addressOf is how people call the object: Deployment/web, or namespace and all.
func addressOf(o *code.Node) string {
	meta := o.Get("metadata")
	name := str(meta.Get("name"))
	if name == "" {
		name = str(meta.Get("generateName"))
	}
	if ns := str(meta.Get("namespace")); ns != "" {
		name = ns + "/" + name
	}
	return str(o.Get("kind")) + "/" + name
}

// charts reads the objects of Argo CD and Flux that name a chart, or another
// artifact, in an OCI registry.
func (y *reading) charts(address string, o *code.Node) {
	spec := o.Get("spec")
	switch str(o.Get("kind")) {
	case "Application":
		sources := []*code.Node{spec.Get("source")}
		if list := spec.Get("sources"); list != nil && list.Kind == code.List {
			sources = append(sources, list.Items...)
		}
		for _, s := range sources {
			// Argo CD leaves the scheme of an OCI registry out.
			if repo := s.Get("repoURL"); s.Get("chart") != nil && !strings.Contains(strings.TrimPrefix(str(repo), "oci://"), "://") {
				y.chartAt(code.Kubernetes, address, "spec.source", repo, s.Get("chart"), s.Get("targetRevision"))
			}
		}
	case "OCIRepository":
		if url := spec.Get("url"); strings.HasPrefix(str(url), "oci://") {
			y.chartAt(code.Kubernetes, address, "spec", url, nil, spec.Get("ref").Get("tag"))
		}
	}
}

// chartAt adds a chart that has its registry, its name and its version in
// different places. name may be nil: then the registry's address has it.
func (y *reading) chartAt(format code.Format, address, path string, repo, name, version *code.Node) {
	f := code.Found{Path: path, Chart: true}
	for _, n := range []*code.Node{repo, name, version} {
		if n != nil {
			f.Parts = append(f.Parts, n)
		}
	}
	at := strings.TrimSuffix(strings.TrimPrefix(str(repo), "oci://"), "/")
	if name != nil {
		at += "/" + str(name)
	}
	v := str(version)
	switch {
	case v == "":
		f.Fixed = "no version is set, so the newest is taken whenever it is installed; set one to have it followed"
	case strings.ContainsAny(v, "^~<>=*|, ") || strings.HasSuffix(v, ".x"):
		f.Fixed = "its version is a range, which is resolved elsewhere; write one version to have it followed"
	case strings.Contains(v, "+"):
		f.Fixed = "its version has a +, which registries cannot spell in a tag"
	default:
		if _, err := code.ParseReference(at + ":" + v); err != nil {
			f.Fixed = err.Error()
			break
		}
		f.Value = at + ":" + v
	}
	y.add(y.from(format, address, f))
}

// kustomization reads the images that Kustomize puts in place of others, and
// its charts.
func (y *reading) kustomization(root *code.Node) {
	address := "Kustomization"
	if images := root.Get("images"); images != nil && images.Kind == code.List {
		for _, m := range images.Items {
			y.kustomized(address, m)
		}
	}
	if charts := root.Get("helmCharts"); charts != nil && charts.Kind == code.List {
		for _, m := range charts.Items {
			name, repo := m.Get("name"), m.Get("repo")
			if strings.HasPrefix(str(repo), "oci://") {
				y.chartAt(code.Kustomize, address, "helmCharts["+str(name)+"]", repo, name, m.Get("version"))
			}
			for _, f := range code.HelmImages(m.Get("valuesInline")) {
				f.Path = "helmCharts[" + str(name) + "].valuesInline." + f.Path
				y.add(y.from(code.Kustomize, address, f))
			}
		}
	}
}

func (y *reading) kustomized(address string, m *code.Node) {
	name, newName, tag, digest := m.Get("name"), m.Get("newName"), m.Get("newTag"), m.Get("digest")
	f := code.Found{Path: "images[" + str(name) + "]"}
	if str(newName) != "" {
		name = newName
	}
	value := str(name)
	f.Parts = append(f.Parts, name)
	if str(tag) != "" {
		value += ":" + str(tag)
		f.Parts = append(f.Parts, tag)
	}
	if str(digest) != "" {
		value += "@" + str(digest)
		f.Parts = append(f.Parts, digest)
	}
	f.Parts = slices.DeleteFunc(f.Parts, func(n *code.Node) bool { return n == nil })
	unknown := slices.IndexFunc(f.Parts, func(n *code.Node) bool { return n.Kind == code.Unknown })
	switch {
	case unknown >= 0:
		f.Fixed = f.Parts[unknown].Text
	case value == "":
		return
	case str(tag) == "" && str(digest) == "":
		f.Fixed = "it has neither newTag nor digest, so the tag of the resource is used; set one to have it followed here"
	default:
		if _, err := code.ParseReference(value); err != nil {
			f.Fixed = err.Error()
			break
		}
		f.Value = value
	}
	y.add(y.from(code.Kustomize, address, f))
}

// chart reads the dependencies of a chart that come from OCI registries.
func (y *reading) chart(root *code.Node) {
	deps := root.Get("dependencies")
	if deps == nil || deps.Kind != code.List {
		return
	}
	for _, d := range deps.Items {
		if repo, name := d.Get("repository"), d.Get("name"); strings.HasPrefix(str(repo), "oci://") {
			y.chartAt(code.Helm, "chart "+str(root.Get("name")), "dependencies["+str(name)+"]", repo, name, d.Get("version"))
		}
	}
}

// values reads the values of a chart.
func (y *reading) values(root *code.Node) {
	for _, f := range code.HelmImages(root) {
		y.add(y.from(code.Helm, "values", f))
	}
}
