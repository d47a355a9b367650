package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// filesPerService, the images' files included.
const filesPerService = 20

// A monorepo says what is in the tree that was generated.
type monorepo struct {
	files   int
	bytes   int64
	images  []string // the value of each sink; all are different
	literal int      // of them
	// one is a file with a literal image that can be changed, and the image.
	one, oneImage string
}

// A writer puts files of a service down and counts.
type writer struct {
	*monorepo
	root, dir string
	left      int // files of this service that are still to come
	err       error
}

func (w *writer) file(name, text string) {
	if w.err != nil {
		return
	}
	full := filepath.Join(w.root, w.dir, name)
	if w.err = os.MkdirAll(filepath.Dir(full), 0o755); w.err != nil {
		return
	}
	w.err = os.WriteFile(full, []byte(text), 0o644)
	w.files++
	w.left--
	w.bytes += int64(len(text))
}

// sink counts an image.
func (w *writer) sink(name string, service int, literal bool) string {
	v := fmt.Sprintf("registry.example.com/team-%02d/%s-%d:1.%d.%d", service%40, name, service, service%30, service%7)
	w.images = append(w.images, v)
	if literal {
		w.literal++
	}
	return v
}

// generate writes the monorepo below root.
func generate(root string, services int) (*monorepo, error) {
	w := &writer{monorepo: &monorepo{}, root: root}
	w.dir = "modules/workload"
	w.file("main.tf", workloadModule)
	w.file("variables.tf", workloadVariables)
	for i := range services {
		w.dir, w.left = fmt.Sprintf("services/team-%02d/service-%03d", i%40, i), filesPerService
		w.service(i)
		for n := 0; w.left > 0; n++ {
			w.file(fmt.Sprintf("%s.tf", []string{"network", "iam", "storage", "alarms", "dns", "queues", "secrets", "database", "logging"}[n%9]+fmt.Sprint(n/9)), filler(i, n))
		}
	}
	return w.monorepo, w.err
}

// split takes a reference apart for code that keeps its parts apart.
func split(ref string) (registry, path, tag string) {
	registry, rest, _ := strings.Cut(ref, "/")
	path, tag, _ = strings.Cut(rest, ":")
	return registry, path, tag
}

// service writes two images as literals, and two in one of the ways that real
// code has: the shapes and their shares are those of a sample of public code.
func (w *writer) service(i int) {
	web := w.sink("web", i, true)
	w.file("deployment.tf", deployment("web", fmt.Sprintf("%q", web)))
	if w.one == "" {
		w.one, w.oneImage = filepath.Join(w.dir, "deployment.tf"), web
	}
	w.file("cron.tf", cronJob("cleanup", fmt.Sprintf("%q", w.sink("cleanup", i, true))))
	w.file("versions.tf", versions)
	w.file("outputs.tf", fmt.Sprintf("output \"service\" {\n  value = \"service-%03d\"\n}\n", i))
	a, b := w.sink("api", i, false), w.sink("worker", i, false)
	reg, path, tag := split(a)
	_, pathB, tagB := split(b)
	switch i % 10 {
	case 0, 1: // locals
		w.file("locals.tf", fmt.Sprintf("locals {\n  registry = %q\n  images = {\n    api    = \"${local.registry}/%s:%s\"\n    worker = { repository = %q, tag = %q }\n  }\n}\n", reg, path, tag, pathB, tagB))
		w.file("api.tf", deployment("api", "local.images.api"))
		w.file("worker.tf", deployment("worker", `"${local.registry}/${local.images.worker.repository}:${local.images.worker.tag}"`))
	case 2: // variables with defaults
		w.file("variables.tf", fmt.Sprintf("variable \"api_image\" {\n  type    = string\n  default = %q\n}\n\nvariable \"worker_tag\" {\n  type    = string\n  default = %q\n}\n", a, tagB))
		w.file("api.tf", deployment("api", "var.api_image"))
		w.file("worker.tf", deployment("worker", fmt.Sprintf(`"%s/%s:${var.worker_tag}"`, reg, pathB)))
	case 3, 4: // variables with tfvars
		w.file("variables.tf", "variable \"api_tag\" {\n  type = string\n}\n\nvariable \"worker\" {\n  type = object({ image = string, replicas = optional(number, 2) })\n}\n")
		w.file("terraform.tfvars", fmt.Sprintf("api_tag = %q\n", tag))
		w.file("worker.auto.tfvars", fmt.Sprintf("worker = {\n  image = %q\n}\n", b))
		w.file("api.tf", deployment("api", fmt.Sprintf(`"%s/%s:${var.api_tag}"`, reg, path)))
		w.file("worker.tf", deployment("worker", "var.worker.image"))
	case 5: // a module
		w.file("api.tf", fmt.Sprintf("module \"api\" {\n  source = \"../../../modules/workload\"\n  name   = \"api\"\n  image  = %q\n}\n", a))
		w.file("worker.tf", fmt.Sprintf("locals {\n  worker_tag = %q\n}\n\nmodule \"worker\" {\n  source = \"../../../modules/workload\"\n  name   = \"worker\"\n  image  = \"%s/%s:${local.worker_tag}\"\n}\n", tagB, reg, pathB))
	case 6: // Helm releases
		w.file("api.tf", fmt.Sprintf("resource \"helm_release\" \"api\" {\n  name  = \"api\"\n  chart = \"./charts/api\"\n\n  set {\n    name  = \"image.repository\"\n    value = \"%s/%s\"\n  }\n\n  set {\n    name  = \"image.tag\"\n    value = %q\n  }\n}\n", reg, path, tag))
		w.file("worker.tf", fmt.Sprintf("resource \"helm_release\" \"worker\" {\n  name  = \"worker\"\n  chart = \"./charts/worker\"\n  values = [yamlencode({\n    replicaCount = 2\n    image = {\n      registry   = %q\n      repository = %q\n      tag        = %q\n    }\n  })]\n}\n", reg, pathB, tagB))
	case 7: // a map with for_each
		w.file("workloads.tf", fmt.Sprintf("locals {\n  workloads = {\n    api    = { image = %q, replicas = 2 }\n    worker = { image = %q, replicas = 3 }\n  }\n}\n\n", a, b)+
			strings.Replace(deployment("workload", "each.value.image"), "{\n", "{\n  for_each = local.workloads\n", 1))
	case 8: // dynamic blocks and a conditional
		w.file("api.tf", fmt.Sprintf("locals {\n  containers = [{ name = \"api\", image = %q }]\n}\n\n", a)+dynamic)
		w.file("worker.tf", "variable \"canary\" {\n  type    = bool\n  default = false\n}\n\n"+
			deployment("worker", fmt.Sprintf(`var.canary ? "%s/%s:canary" : format("%%s/%%s:%%s", %q, %q, %q)`, reg, pathB, reg, pathB, tagB)))
	case 9: // manifests in YAML
		w.file("pod.yaml.tftpl", "apiVersion: v1\nkind: Pod\nmetadata:\n  name: api\nspec:\n  containers:\n    - name: api\n      image: ${image}\n")
		w.file("api.tf", fmt.Sprintf("resource \"kubectl_manifest\" \"api\" {\n  yaml_body = templatefile(\"${path.module}/pod.yaml.tftpl\", { image = %q })\n}\n", a))
		w.file("worker.tf", fmt.Sprintf("resource \"kubernetes_manifest\" \"worker\" {\n  manifest = yamldecode(<<-EOT\n    apiVersion: apps/v1\n    kind: Deployment\n    metadata:\n      name: worker\n      namespace: default\n    spec:\n      template:\n        spec:\n          containers:\n            - name: worker\n              image: %s\n  EOT\n  )\n}\n", b))
	}
}
