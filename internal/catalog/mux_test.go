package catalog_test

import (
	"context"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/catalog"
	"cairn.dev/cairn/internal/image"
)

// nowhere is a catalog that must not be asked.
type nowhere struct{ testing.TB }

func (n nowhere) Tags(_ context.Context, repository string) ([]catalog.Tag, error) {
	n.Errorf("asked for the tags of %s", repository)
	return nil, nil
}
func (n nowhere) Lookup(_ context.Context, repository, tag string) (image.Digest, error) {
	n.Errorf("looked up %s:%s", repository, tag)
	return "", nil
}
func (n nowhere) Image(_ context.Context, repository string, d image.Digest) (catalog.Image, error) {
	n.Errorf("asked about %s@%s", repository, d)
	return catalog.Image{}, nil
}

// echo answers with what it was asked.
type echo string

func (e echo) Tags(_ context.Context, repository string) ([]catalog.Tag, error) {
	return []catalog.Tag{{Name: string(e) + repository}}, nil
}
func (e echo) Lookup(_ context.Context, repository, tag string) (image.Digest, error) {
	return image.Digest(string(e) + repository + ":" + tag), nil
}
func (e echo) Image(_ context.Context, repository string, d image.Digest) (catalog.Image, error) {
	return catalog.Image{Source: string(e) + repository}, nil
}

func TestMux(t *testing.T) {
	m, err := catalog.NewMux(catalog.MuxConfig{Own: echo("own "), Hosts: []string{"registry.example:5000", "LOCALHOST:5080", "10.0.0.1:5080"}, Others: echo("others "),
		Mirrors: map[string]string{"docker.io": "docker.io", "registry.local_5000": "registry.local:5000"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"registry.example:5000/app":              "own registry.example:5000/app",
		"REGISTRY.example:5000/team/app":         "own registry.example:5000/team/app",
		"localhost:5080/team/app":                "own registry.example:5000/team/app",
		"10.0.0.1:5080/app":                      "own registry.example:5000/app",
		"registry.example/app":                   "others registry.example/app",
		"localhost:5081/app":                     "others localhost:5081/app",
		"localhost/app":                          "others localhost/app",
		"nginx":                                  "others docker.io/library/nginx",
		"team/app":                               "others docker.io/team/app",
		"registry-1.docker.io/library/nginx":     "others docker.io/library/nginx",
		"ghcr.io/a/b":                            "others ghcr.io/a/b",
		"localhost:5080/docker.io/library/nginx": "others docker.io/library/nginx",
		"registry.example:5000/registry.local_5000/team/x": "others registry.local:5000/team/x",
		"registry.example:5000/ghcr.io/a/b":                "own registry.example:5000/ghcr.io/a/b", // not mirrored
	} {
		full, err := m.Name(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, after, _ := strings.Cut(want, " "); full != after {
			t.Errorf("%s is called %s, want %s", name, full, after)
		}
		tags, _ := m.Tags(t.Context(), name)
		d, _ := m.Lookup(t.Context(), name, "1")
		im, _ := m.Image(t.Context(), name, "sha256:x")
		if tags[0].Name != want || string(d) != want+":1" || im.Source != want {
			t.Errorf("%s: asked %q, %q, %q; want %q", name, tags[0].Name, d, im.Source, want)
		}
	}
	for repo, want := range map[string]string{"team/app": "registry.example:5000/team/app", "docker.io/library/nginx": "docker.io/library/nginx"} {
		if p := m.Pushed(repo, "1", "d"); p != (catalog.Pushed{Repository: want, Tag: "1", Digest: "d"}) {
			t.Errorf("a push to %s is told as %+v", repo, p)
		}
	}
	if _, err := m.Name("registry.example:5000/UPPER"); err == nil {
		t.Error("a bad name was taken")
	}
	for what, c := range map[string]catalog.MuxConfig{
		"nobody to ask": {Own: echo(""), Hosts: []string{"a.example"}},
		"no name":       {Own: echo(""), Others: echo("")},
		"a bad name":    {Own: echo(""), Others: echo(""), Hosts: []string{"https://a.example"}},
	} {
		if _, err := catalog.NewMux(c); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

func FuzzNormal(f *testing.F) {
	for _, s := range []string{"nginx", "docker.io/nginx", "localhost:5000/a", "[::1]:5000/a/b", "a.b/c", "A.B/c", "index.docker.io/x", "1.2.3.4/a", ":/a", "a:b/c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := catalog.Normal(s)
		if err != nil {
			return
		}
		again, err := catalog.Normal(n)
		if err != nil || again != n {
			t.Errorf("%q is %q, and that is %q, %v", s, n, again, err)
		}
		host, repo, _ := strings.Cut(n, "/")
		if strings.ContainsAny(host, "@?# %\\") || image.CheckRepository(repo) != nil {
			t.Errorf("%q became %q", s, n)
		}
	})
}
