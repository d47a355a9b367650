package terraform

import (
	"strings"

	"cairn.dev/cairn/internal/code"
)

// declaration is the sink for virtual machines of Google that run a container:
// YAML in a field of their metadata.
func declaration(b *finder) {
	n := b.root.Get("metadata").Get("gce-container-declaration")
	if n == nil {
		return
	}
	b.decoded("metadata.gce-container-declaration", n, func(n *code.Node) []code.Found { return code.PodImages("", n) })
}

// azapi is the sink for resources of Azure written as its API has them, as a
// value or as JSON.
func azapi(b *finder) {
	b.follow("body", func(at string, n *code.Node) {
		if n.Kind != code.Unknown { // most resources of Azure have no image
			b.decoded(at, n, func(n *code.Node) []code.Found { return code.PodImages("", n) })
		}
	})
}

// webApp is the sink for web and function apps of Azure. They have had four
// ways to name an image.
func webApp(b *finder) {
	b.follow("site_config.linux_fx_version", b.prefixed)
	b.follow("site_config.application_stack", func(at string, stack *code.Node) {
		if name := stack.Get("docker_image_name"); name != nil {
			b.joined(at+".docker_image_name", stack.Get("docker_registry_url"), name, nil)
		} else if name := stack.Get("docker_image"); name != nil {
			b.joined(at+".docker_image", nil, name, stack.Get("docker_image_tag"))
		} else if name := stack.Get("docker_container_name"); name != nil {
			b.joined(at+".docker_container_name", stack.Get("docker_container_registry"), name, stack.Get("docker_container_tag"))
		}
		follow(stack, at, []string{"docker"}, func(at string, d *code.Node) {
			b.joined(at, d.Get("registry_url"), d.Get("image_name"), d.Get("image_tag"))
		})
	})
}

// prefixed adds the image of DOCKER|nginx:1.2. Other prefixes name runtimes.
func (b *finder) prefixed(at string, n *code.Node) {
	image, ok := strings.CutPrefix(n.Text, "DOCKER|")
	if !ok || n.Kind != code.String {
		return
	}
	if f, ok := spelled(at, &code.Node{Kind: code.String, Text: image, Origin: n.Origin}); ok {
		b.add(f)
	}
}

// digitalocean is the sink for apps, whose components all have the same block.
func digitalocean(b *finder) {
	for _, kind := range []string{"service", "worker", "job"} {
		b.follow("spec."+kind+"[].image", func(at string, n *code.Node) {
			if n.Kind == code.Map {
				b.joined(at, n.Get("registry"), n.Get("repository"), n.Get("tag"))
			}
		})
	}
}

// joined adds an image whose parts are apart. registry and tag may be missing.
func (b *finder) joined(at string, registry, name, tag *code.Node) {
	f := code.Found{Path: at}
	for _, n := range []*code.Node{registry, name, tag} {
		switch {
		case n == nil || n.Kind == code.Null || n.Text == "":
			continue
		case n.Kind == code.Unknown:
			f.Fixed = n.Text
		case n == registry:
			_, host, scheme := strings.Cut(n.Text, "://")
			if !scheme {
				host = n.Text
			}
			f.Value = strings.TrimSuffix(host, "/") + "/"
		case n == tag:
			f.Value += ":" + n.Text
		default:
			f.Value += n.Text
		}
		f.Parts = append(f.Parts, n)
	}
	if len(f.Parts) == 0 {
		return
	}
	if _, err := code.ParseReference(f.Value); err != nil && f.Fixed == "" {
		f.Fixed = "its parts do not read as a reference: write the registry, repository and tag that are pulled"
	}
	if f.Fixed != "" {
		f.Value = ""
	}
	b.add(f)
}
