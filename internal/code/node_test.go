package code

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// node makes a node of JSON; {"?": "why"} is an unknown.
func node(t testing.TB, text string) *Node {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return nodeOf(v)
}

func nodeOf(v any) *Node {
	switch v := v.(type) {
	case map[string]any:
		if why, is := v["?"].(string); is {
			return &Node{Kind: Unknown, Text: why}
		}
		n := &Node{Kind: Map}
		for _, k := range slices.Sorted(maps.Keys(v)) {
			n.Keys, n.Items = append(n.Keys, k), append(n.Items, nodeOf(v[k]))
		}
		return n
	case []any:
		n := &Node{Kind: List}
		for _, item := range v {
			n.Items = append(n.Items, nodeOf(item))
		}
		return n
	case string:
		return &Node{Kind: String, Text: v}
	case nil:
		return &Node{}
	}
	return &Node{Kind: Scalar, Text: fmt.Sprint(v)}
}

func lines(found []Found) string {
	var out []string
	for _, f := range found {
		s := f.Path + " = " + f.Value
		if f.Fixed != "" {
			s = f.Path + " ! " + strings.SplitN(f.Fixed, ":", 2)[0]
		}
		out = append(out, s)
	}
	return strings.Join(out, "\n")
}

var hex64 = strings.Repeat("ab", 32)

func TestKubernetesImages(t *testing.T) {
	for _, c := range []struct{ name, object, want string }{
		{"pod", `{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"image":"a:1"},{"image":"b"}],"initContainers":[{"image":"c:1"}],"ephemeralContainers":[{"image":"d:1"}]}}`,
			"spec.containers[0].image = a:1\nspec.containers[1].image = b\nspec.ephemeralContainers[0].image = d:1\nspec.initContainers[0].image = c:1"},
		{"image volume", `{"apiVersion":"v1","kind":"Pod","spec":{"volumes":[{"image":{"reference":"models/m:1"}},{"name":"x"}]}}`,
			"spec.volumes[0].image.reference = models/m:1"},
		{"cron job", `{"apiVersion":"batch/v1","kind":"CronJob","spec":{"jobTemplate":{"spec":{"template":{"spec":{"containers":[{"image":"a:1"}]}}}}}}`,
			"spec.jobTemplate.spec.template.spec.containers[0].image = a:1"},
		{"list", `{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"image":"a:1"}]}},{"apiVersion":"v1","kind":"ConfigMap","data":{"containers":[{"image":"x:1"}]}}]}`,
			"items[0].spec.containers[0].image = a:1"},
		{"an annotation called image is none", `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"annotations":{"image":"x:1"}},"spec":{"template":{"spec":{"containers":[{"env":[{"name":"IMAGE","value":"x:1"}],"image":"a:1"}]}}}}`,
			"spec.template.spec.containers[0].image = a:1"},
		{"knative", `{"apiVersion":"serving.knative.dev/v1","kind":"Service","spec":{"template":{"spec":{"containers":[{"image":"gcr.io/p/a:1"}]}}}}`,
			"spec.template.spec.containers[0].image = gcr.io/p/a:1"},
		{"argo workflow", `{"apiVersion":"argoproj.io/v1alpha1","kind":"Workflow","spec":{"templates":[{"container":{"image":"a"}},{"script":{"image":"b:1"},"sidecars":[{"image":"c:1"}]}]}}`,
			"spec.templates[0].container.image = a\nspec.templates[1].script.image = b:1\nspec.templates[1].sidecars[0].image = c:1"},
		{"tekton", `{"apiVersion":"tekton.dev/v1","kind":"Task","spec":{"steps":[{"image":"golang:1.26"},{"image":"alpine"}]}}`,
			"spec.steps[0].image = golang:1.26\nspec.steps[1].image = alpine"},
		{"prometheus, postgres", `{"apiVersion":"x.example/v1","kind":"X","spec":{"image":"quay.io/prometheus/prometheus:v2.1.0","imageName":"ghcr.io/cnpg/postgresql:16.1","baseImage":"nothing"}}`,
			"spec.image = quay.io/prometheus/prometheus:v2.1.0\nspec.imageName = ghcr.io/cnpg/postgresql:16.1"},
		{"parts in a custom resource", `{"apiVersion":"x.example/v1","kind":"X","spec":{"image":{"repository":"a/b","tag":"1"}}}`, "spec.image = a/b:1"},
		{"flux", `{"apiVersion":"helm.toolkit.fluxcd.io/v2","kind":"HelmRelease","spec":{"values":{"image":{"repository":"a/b","tag":"1"}}}}`, "spec.values.image = a/b:1"},
		{"unknown", `{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"image":{"?":"var.x has no default"}}]}}`, "spec.containers[0].image ! var.x has no default"},
		{"not an object", `[1,2]`, ""},
	} {
		if got := lines(KubernetesImages(node(t, c.object))); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
}

func TestHelmImages(t *testing.T) {
	for _, c := range []struct{ name, values, want string }{
		{"repository and tag", `{"image":{"repository":"nginx","tag":"1.2","pullPolicy":"Always"}}`, "image = nginx:1.2"},
		{"registry", `{"image":{"registry":"quay.io","repository":"a/b","tag":"1.2"}}`, "image = quay.io/a/b:1.2"},
		{"global registry", `{"global":{"imageRegistry":"r.example"},"image":{"registry":"quay.io","repository":"a/b","tag":"1.2"},"x":{"image":{"repository":"y","tag":"1"}}}`, "image = r.example/a/b:1.2\nx.image = y:1"},
		{"no registry said", `{"image":{"registry":"","repository":"a/b","tag":"1.2","digest":""}}`, "image = a/b:1.2"},
		{"a number", `{"image":{"repository":"postgres","tag":17}}`, "image = postgres:17"},
		{"digest", `{"image":{"repository":"a","digest":"sha256:` + hex64 + `"}}`, "image = a@sha256:" + hex64},
		{"bare digest", `{"image":{"repository":"a","tag":"1","sha":"` + hex64 + `"}}`, "image = a:1@sha256:" + hex64},
		{"name", `{"image":{"name":"a","tag":"1"},"service":{"name":"web","tag":"1"}}`, "image = a:1"},
		{"one string", `{"sidecar":{"image":"a:1"},"icon":{"image":"x.png"}}`, "sidecar.image = a:1"},
		{"string beside tag", `{"image":"a/b","tag":"1"}`, "image = a/b:1"},
		{"imageTag", `{"image":"a/b","imageTag":"1"}`, "image = a/b:1"},
		{"prefixed", `{"proxyImage":"a:1","initImage":"b","initImageTag":"2","web":{"apiRepository":"c","apiTag":"3"}}`, "initImage = b:2\nproxyImage = a:1\nweb.apiRepository = c:3"},
		{"containers", `{"extraContainers":[{"image":"a:1"}],"x":{"initContainers":[{"image":"b"}]}}`, "extraContainers[0].image = a:1\nx.initContainers[0].image = b"},
		{"the chart's tag", `{"image":{"repository":"a/b"}}`, "image ! no tag is set, so the chart's own is used"},
		{"the chart's repository", `{"image":{"tag":"1.2"}}`, "image ! the repository is the chart's default, which is not in the code"},
		{"unknown", `{"image":{"repository":"a","tag":{"?":"var.tag has no default"}}}`, "image ! var.tag has no default"},
		{"git is none", `{"git":{"repository":"github.com/a/b","tag":"v1"},"chart":{"repository":"https://x.example/charts","version":"1"}}`, ""},
		{"nothing of images", `{"replicas":2,"image":true,"a":{"tag":"x"},"image2":null}`, ""},
	} {
		if got := lines(HelmImages(node(t, c.values))); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
}

func TestOverlay(t *testing.T) {
	base := node(t, `{"image":{"repository":"a","tag":"1"},"list":[1],"gone":{"x":1}}`)
	got := Overlay(base, node(t, `{"image":{"tag":"2"},"list":[2,3],"gone":null,"new":"n"}`))
	if s := lines(HelmImages(got)); s != "image = a:2" {
		t.Errorf("got %s", s)
	}
	if n := got.Get("list"); len(n.Items) != 2 {
		t.Errorf("the list has %d items, want those of the upper layer", len(n.Items))
	}
	if got.Get("gone").Kind != Null || got.Get("new").Text != "n" {
		t.Error("null or a new key was lost")
	}
	if base.Get("image").Get("tag").Text != "1" {
		t.Error("the base was changed")
	}
}

func TestWalkIsBounded(t *testing.T) {
	deep := &Node{Kind: Map, Keys: []string{"image"}, Items: []*Node{{Kind: String, Text: "a:1"}}}
	for range 10_000 {
		deep = &Node{Kind: Map, Keys: []string{"x"}, Items: []*Node{deep}}
	}
	if got := HelmImages(deep); len(got) != 0 {
		t.Errorf("found %v ten thousand deep", got)
	}
	wide := &Node{Kind: String, Text: "x"}
	for range 30 { // 2^30 nodes to whoever follows them all
		wide = &Node{Kind: List, Items: []*Node{wide, wide}}
	}
	HelmImages(wide)
}

func TestParseReference(t *testing.T) {
	dig := "sha256:" + hex64
	for s, want := range map[string][3]string{
		"nginx":                      {"nginx", "", "docker.io/library/nginx"},
		"nginx:1.2":                  {"nginx", "1.2", "docker.io/library/nginx"},
		"docker.io/nginx:1":          {"docker.io/nginx", "1", "docker.io/library/nginx"},
		"index.docker.io/a/b:1":      {"index.docker.io/a/b", "1", "docker.io/a/b"},
		"localhost:5000/a":           {"localhost:5000/a", "", "localhost:5000/a"},
		"localhost:5000/a:1@" + dig:  {"localhost:5000/a", "1", "localhost:5000/a"},
		"ghcr.io/a/b/c:v1@" + dig:    {"ghcr.io/a/b/c", "v1", "ghcr.io/a/b/c"},
		"a/b":                        {"a/b", "", "docker.io/a/b"},
		"123456789012.dkr.ecr/a:1_2": {"123456789012.dkr.ecr/a", "1_2", "123456789012.dkr.ecr/a"},
	} {
		r, err := ParseReference(s)
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		if r.Name != want[0] || r.Tag != want[1] || r.Repository() != want[2] || r.String() != s {
			t.Errorf("%s: %+v, %s", s, r, r.Repository())
		}
	}
	for _, s := range []string{"", ":1", "a:", "a b", "${x}:1", "{{ .Values.x }}", "https://a.example/b", "A/b", "a:1@sha256:12", "a:1@", "a/b/", "oci://x.example/y", "x y.example/a", "nginx:1.2:3", "/a"} {
		if r, err := ParseReference(s); err == nil {
			t.Errorf("%q was taken as %+v", s, r)
		}
	}
}

func FuzzParseReference(f *testing.F) {
	f.Add("docker.io/library/nginx:1.2@sha256:" + hex64)
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseReference(s)
		if err == nil && r.String() != s {
			t.Errorf("%q is written back as %q", s, r)
		}
	})
}
