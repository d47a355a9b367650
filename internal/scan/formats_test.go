package scan

import (
	"context"
	"errors"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/code"
	"cairn.dev/cairn/internal/manifest"
)

// TestChangeFormats edits every format but Terraform, which has a corpus of its
// own: the bytes that change are those that say the version, and no others.
func TestChangeFormats(t *testing.T) {
	pod := func(image string) string {
		return "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - image: " + image + "\n"
	}
	for _, test := range []struct {
		name   string
		files  []string
		to     string   // for the first image whose value has its repository
		want   []string // files after it; nil: refused
		reason string
		moved  int // images; 1 when zero
	}{
		{name: "plain", files: []string{"p.yaml", pod("nginx:1.25   # the site")}, to: "nginx:1.27", want: []string{pod("nginx:1.27   # the site")}},
		{name: "quoted", files: []string{"p.yaml", pod(`"nginx:1.25"`)}, to: "nginx:1.27", want: []string{pod(`"nginx:1.27"`)}},
		{name: "CRLF and BOM", files: []string{"p.yaml", "\ufeff" + strings.ReplaceAll(pod("nginx:1.25"), "\n", "\r\n")}, to: "nginx:1.27",
			want: []string{"\ufeff" + strings.ReplaceAll(pod("nginx:1.27"), "\n", "\r\n")}},
		{name: "digest added", files: []string{"p.yaml", pod("nginx:1.25")}, to: "nginx:1.27@" + digestA, want: []string{pod("nginx:1.27@" + digestA)}},
		{name: "digest alone", files: []string{"p.yaml", pod("nginx@" + digestA)}, to: "nginx@" + digestB, want: []string{pod("nginx@" + digestB)}},
		{name: "block", files: []string{"p.yaml", pod("|-\n      nginx:1.25")}, to: "nginx:1.27", want: []string{pod("|-\n      nginx:1.27")}},
		{name: "a tag within the name", files: []string{"p.yaml", pod("x1.2/y1.2:1.2")}, to: "x1.2/y1.2:1.3", want: []string{pod("x1.2/y1.2:1.3")}},
		{name: "anchor", files: []string{"p.yaml", "apiVersion: v1\nkind: Pod\nspec:\n  containers: [{image: &i nginx:1.25}, {image: *i}]\n"}, to: "nginx:1.27",
			want: []string{"apiVersion: v1\nkind: Pod\nspec:\n  containers: [{image: &i nginx:1.27}, {image: *i}]\n"}, moved: 2},
		{name: "values apart", files: []string{"values.yaml", "image:\n  repository: nginx\n  tag: 1.25.1\n"}, to: "nginx:1.27.0",
			want: []string{"image:\n  repository: nginx\n  tag: 1.27.0\n"}},
		{name: "values with a digest", files: []string{"values.yaml", "image:\n  repository: nginx\n  tag: v1\n  digest: " + digestA + "\n"}, to: "nginx:v2@" + digestB,
			want: []string{"image:\n  repository: nginx\n  tag: v2\n  digest: " + digestB + "\n"}},
		{name: "a number that stays one", files: []string{"values.yaml", "image: {repository: nginx, tag: 17}\n"}, to: "nginx:18", want: []string{"image: {repository: nginx, tag: 18}\n"}},
		{name: "a number that would be another", files: []string{"values.yaml", "image:\n  repository: nginx\n  tag: 1.9\n"}, to: "nginx:1.10",
			want: []string{"image:\n  repository: nginx\n  tag: \"1.10\"\n"}},
		{name: "a number that is read as another", files: []string{"values.yaml", "image:\n  repository: nginx\n  tag: 1.10\n"}, to: "nginx:1.11", reason: "put it in quotes"},
		{name: "kustomize", files: []string{"kustomization.yaml", "images:\n- name: app\n  newName: ghcr.io/team/app\n  newTag: \"1.0\"\n"}, to: "ghcr.io/team/app:2.0",
			want: []string{"images:\n- name: app\n  newName: ghcr.io/team/app\n  newTag: \"2.0\"\n"}},
		{name: "chart", files: []string{"Chart.yaml", "dependencies:\n- {name: redis, repository: oci://ghcr.io/charts, version: 18.1.0}\n"}, to: "ghcr.io/charts/redis:18.2.0",
			want: []string{"dependencies:\n- {name: redis, repository: oci://ghcr.io/charts, version: 18.2.0}\n"}},
		{name: "compose default", files: []string{"compose.yaml", "services: {web: {image: 'nginx:${TAG:-1.25}'}}\n"}, to: "nginx:1.27",
			want: []string{"services: {web: {image: 'nginx:${TAG:-1.27}'}}\n"}},
		{name: "compose .env", files: []string{"compose.yaml", "services: {web: {image: 'nginx:${TAG}'}}\n", ".env", "OTHER=1.25\nTAG=1.25\n"}, to: "nginx:1.27",
			want: []string{"services: {web: {image: 'nginx:${TAG}'}}\n", "OTHER=1.25\nTAG=1.27\n"}},
		{name: "ARG", files: []string{"Dockerfile", "ARG GO=1.25\nFROM golang:${GO}-alpine\nRUN echo 1.25\n"}, to: "golang:1.26-alpine",
			want: []string{"ARG GO=1.26\nFROM golang:${GO}-alpine\nRUN echo 1.25\n"}},
		{name: "ARG of two images", files: []string{"Dockerfile", "ARG V=1\nFROM a/b:${V}\nFROM a/c:${V}\n"}, to: "a/b:2", reason: "a/c"},
		{name: "pulumi", files: []string{"Pulumi.yaml", "config: {tag: {default: \"1.4\"}}\nresources: {a: {type: 'kubernetes:core/v1:Pod', properties: {spec: {containers: [{image: 'team/x:${tag}'}]}}}}\n"}, to: "team/x:1.10",
			want: []string{"config: {tag: {default: \"1.10\"}}\nresources: {a: {type: 'kubernetes:core/v1:Pod', properties: {spec: {containers: [{image: 'team/x:${tag}'}]}}}}\n"}},
		{name: "marker", files: []string{"x.yaml", "a: 1.25\nb: v1.25 # cairn: image=nginx\n"}, to: "nginx:v1.27", want: []string{"a: 1.25\nb: v1.27 # cairn: image=nginx\n"}},
		{name: "a chart's + stays", files: []string{"Chart.yaml", "dependencies:\n- {name: redis, repository: oci://ghcr.io/charts, version: v1.2.3+build}\n"}, to: "ghcr.io/charts/redis:v1.2.4", reason: "+"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := Of(manifest.New())
			tree := treeOf(t, test.files...)
			ctx := context.Background()
			before, err := s.Scan(ctx, tree, code.Options{})
			if err != nil || len(before.Images) == 0 {
				t.Fatalf("%+v %v", before, err)
			}
			wanted, _ := code.ParseReference(test.to)
			id := before.Images[0].ID
			for _, i := range before.Images {
				if r, err := code.ParseReference(i.Value); err == nil && r.Repository() == wanted.Repository() {
					id = i.ID
					break
				}
			}
			change, err := s.Change(ctx, tree, code.Options{}, []code.Want{{Image: id, To: test.to}})
			if test.want == nil {
				var refused *code.RefusedError
				if !errors.As(err, &refused) || !strings.Contains(refused.Reason, test.reason) {
					t.Fatalf("%+v %v, want a refusal because of %q", change, err, test.reason)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			after, err := tree.With(change.Splices)
			if err != nil {
				t.Fatal(err)
			}
			for i, want := range test.want {
				f, _ := after.Read(test.files[2*i])
				if string(f.Data) != want {
					t.Errorf("%s is\n%q, want\n%q", f.Path, f.Data, want)
				}
			}
			if n := max(test.moved, 1); len(change.Effects) != n {
				t.Errorf("moved %+v, want %d", change.Effects, n)
			}
		})
	}
}
