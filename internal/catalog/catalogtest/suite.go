package catalogtest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn.dev/cairn/internal/catalog"
	"cairn.dev/cairn/internal/image"
)

// Run runs the suite.
func Run(t *testing.T, open Open) {
	for name, f := range map[string]func(*Rig){
		"tags":       tags,
		"many tags":  manyTags,
		"unknown":    unknown,
		"bad names":  badNames,
		"lookup":     lookup,
		"since":      since,
		"image":      plainImage,
		"index":      index,
		"bare index": bareIndex,
		"chart":      chart,
		"damaged":    damaged,
		"together":   together,
	} {
		t.Run(name, func(t *testing.T) { f(open(t, nil)) })
	}
	t.Run("signatures", func(t *testing.T) { signatures(t, open) })
}

// list is the tags by name.
func (r *Rig) list() map[string]catalog.Tag {
	r.Helper()
	all, err := r.Tags(r.Context(), r.name(repo))
	r.ok(err)
	m := map[string]catalog.Tag{}
	for _, t := range all {
		if _, twice := m[t.Name]; twice {
			r.Errorf("tag %s is listed twice", t.Name)
		}
		m[t.Name] = t
	}
	return m
}

func tags(r *Rig) {
	r.put(Linux("amd64", nil, "a"), "1.0", "latest")
	r.Clock.Advance(time.Hour)
	eq(r, "tags", len(r.list()), 2)
	r.Clock.Advance(time.Hour)
	r.put(Linux("amd64", nil, "b"), "1.1")
	all := r.list()
	eq(r, "tags after a push", len(all), 3)
	if !all["1.1"].Since.After(all["1.0"].Since) || all["1.0"].Since.IsZero() || all["1.1"].Since.After(r.Clock.Now()) {
		r.Errorf("1.0 is there since %v, 1.1 since %v, and it is %v", all["1.0"].Since, all["1.1"].Since, r.Clock.Now())
	}
	first := all["1.0"].Since
	r.Clock.Advance(time.Hour)
	r.put(Linux("amd64", nil, "a"), "1.0") // the same again
	eq(r, "since, after the same was pushed", r.list()["1.0"].Since, first)
	r.ok(r.Store.DeleteTag(r.Context(), repo, "1.0", "test"))
	r.settle()
	all = r.list()
	eq(r, "tags after a deletion", len(all), 2)
	if _, there := all["1.0"]; there {
		r.Error("a deleted tag is listed")
	}
	r.Clock.Advance(time.Hour)
	r.put(Linux("amd64", nil, "c"), "1.0")
	eq(r, "since, after it came back", r.list()["1.0"].Since, r.Clock.Now())
}

func manyTags(r *Rig) {
	var names []string
	for i := range 2345 {
		names = append(names, fmt.Sprintf("v%04d", i))
	}
	r.put(Linux("amd64", nil, "a"), names...)
	all := r.list()
	eq(r, "tags", len(all), len(names))
	for _, n := range names {
		if all[n].Name != n {
			r.Fatalf("%s is missing", n)
		}
	}
}

func unknown(r *Rig) {
	d := r.put(Linux("amd64", nil, "a"), "1")
	for what, f := range map[string]func() error{
		"a repository": func() error { _, err := r.Tags(r.Context(), r.name("nobody/nothing")); return err },
		"its tag":      func() error { _, err := r.Lookup(r.Context(), r.name("nobody/nothing"), "1"); return err },
		"its image":    func() error { _, err := r.Image(r.Context(), r.name("nobody/nothing"), d); return err },
		"a tag":        func() error { _, err := r.Lookup(r.Context(), r.name(repo), "2"); return err },
		"a digest": func() error {
			_, err := r.Image(r.Context(), r.name(repo), Dig([]byte("x")))
			return err
		},
	} {
		if err := f(); !errors.Is(err, catalog.ErrNotFound) {
			r.Errorf("%s that is not there: %v", what, err)
		}
	}
}

func badNames(r *Rig) {
	for _, name := range []string{"", "/", r.Host + "/", r.name("UPPER"), r.name("a//b"), r.name("../etc"), r.name("a?b"), "exa mple.org/a", "example.org:port/a", "http://example.org/a", "a@b.example/c"} {
		if _, err := r.Tags(r.Context(), name); err == nil {
			r.Errorf("tags of %q: no error", name)
		}
	}
	for _, tag := range []string{"", "a/b", "../..", "-x", strings.Repeat("x", 200)} {
		if _, err := r.Lookup(r.Context(), r.name(repo), tag); err == nil {
			r.Errorf("tag %q: no error", tag)
		}
	}
	for _, d := range []image.Digest{"", "sha256:", "sha256:xyz", "md5:d41d8cd98f00b204e9800998ecf8427e", "../.."} {
		if _, err := r.Image(r.Context(), r.name(repo), d); err == nil {
			r.Errorf("digest %q: no error", d)
		}
	}
}

func lookup(r *Rig) {
	a := r.put(Linux("amd64", nil, "a"), "latest")
	got, err := r.Lookup(r.Context(), r.name(repo), "latest")
	r.ok(err)
	eq(r, "latest", got, a)
	b := r.put(Linux("amd64", nil, "b"), "latest")
	got, err = r.Lookup(r.Context(), r.name(repo), "latest")
	r.ok(err)
	eq(r, "latest after a push", got, b)
}

// A tag that moves to a new digest begins anew; an old digest keeps its time.
func since(r *Rig) {
	t0 := r.Clock.Now()
	a := r.put(Linux("amd64", nil, "a"), "1.0", "latest")
	look := func(d image.Digest) time.Time {
		r.Helper()
		im, err := r.Image(r.Context(), r.name(repo), d)
		r.ok(err)
		return im.Since
	}
	eq(r, "a", look(a), t0)
	r.Clock.Advance(time.Hour)
	b := r.put(Linux("amd64", nil, "b"), "latest")
	got, err := r.Lookup(r.Context(), r.name(repo), "latest")
	r.ok(err)
	t1 := r.Clock.Now()
	r.Clock.Advance(time.Minute)
	eq(r, "b", look(got), t1)
	eq(r, "b by its digest", look(b), t1)
	eq(r, "a, later", look(a), t0)
}

func plainImage(r *Rig) {
	doc := Linux("arm64", map[string]string{
		"org.opencontainers.image.source": "https://git.example/team/app", "org.opencontainers.image.revision": "abc123", "org.opencontainers.image.version": "1.2.3\n<!-- -->",
	}, "layer one", "layer two!")
	doc.Annotations = map[string]string{"org.opencontainers.image.revision": "def456"}
	d := r.put(doc, "1")
	im, err := r.Image(r.Context(), r.name(repo), d)
	r.ok(err)
	eq(r, "digest", im.Digest, d)
	eq(r, "platforms", fmt.Sprint(im.Platforms), "[linux/arm64]")
	eq(r, "size", im.Size, int64(len(doc.Config)+len("layer one")+len("layer two!")))
	eq(r, "created", im.Created, time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC))
	eq(r, "source", im.Source, "https://git.example/team/app")
	eq(r, "revision: the annotation goes before the label", im.Revision, "def456")
	eq(r, "version with a line break", im.Version, "")
	eq(r, "signed", im.Signed, false)
}

func index(r *Rig) {
	amd, arm := Linux("amd64", map[string]string{"org.opencontainers.image.source": "https://git.example/a"}, "amd layer"), Linux("arm64", nil, "arm")
	prov := Doc{Config: []byte(`{"architecture":"unknown","os":"unknown"}`)}
	for _, d := range []Doc{amd, arm, prov} {
		r.put(d)
	}
	provenance := child(prov, &image.Platform{OS: "unknown", Architecture: "unknown"})
	provenance.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	d := r.put(Doc{Children: []image.Descriptor{
		child(arm, &image.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}), child(amd, &image.Platform{OS: "linux", Architecture: "amd64", Variant: "v1"}), provenance,
	}, Annotations: map[string]string{"org.opencontainers.image.version": "2"}}, "2")
	im, err := r.Image(r.Context(), r.name(repo), d)
	r.ok(err)
	eq(r, "platforms", fmt.Sprint(im.Platforms), "[linux/amd64 linux/arm64]")
	eq(r, "size", im.Size, int64(len(amd.Config)+len("amd layer")))
	eq(r, "source", im.Source, "https://git.example/a")
	eq(r, "version", im.Version, "2")
}

// Some tools write indexes that do not say for what their images are.
func bareIndex(r *Rig) {
	amd, arm := Linux("amd64", nil, "amd"), Linux("arm", nil, "arm")
	inner := Doc{Children: []image.Descriptor{child(arm, nil)}}
	for _, d := range []Doc{amd, arm, inner} {
		r.put(d)
	}
	d := r.put(Doc{Children: []image.Descriptor{child(amd, nil), child(inner, nil)}}, "1")
	im, err := r.Image(r.Context(), r.name(repo), d)
	r.ok(err)
	eq(r, "platforms", fmt.Sprint(im.Platforms), "[linux/amd64 linux/arm]")
	empty := r.put(Doc{}, "2")
	im, err = r.Image(r.Context(), r.name(repo), empty)
	r.ok(err)
	eq(r, "platforms of an empty index", len(im.Platforms), 0)
	var many []image.Descriptor
	for i := range 40 {
		d := Linux("amd64", nil, fmt.Sprint(i))
		r.put(d)
		many = append(many, child(d, nil))
	}
	if _, err := r.Image(r.Context(), r.name(repo), r.put(Doc{Children: many}, "3")); err == nil {
		r.Error("an index of 40 images without platforms: no error")
	}
}

func chart(r *Rig) {
	d := r.put(Doc{Type: "application/vnd.cncf.helm.config.v1+json", Config: []byte(`{"name":"c","version":"0.1.0"}`),
		Layers: []Layer{{Type: "application/vnd.cncf.helm.chart.content.v1.tar+gzip", Data: []byte("tgz")}}, Annotations: map[string]string{"org.opencontainers.image.version": "0.1.0"}}, "0.1.0")
	im, err := r.Image(r.Context(), r.name(repo), d)
	r.ok(err)
	eq(r, "platforms", len(im.Platforms), 0)
	eq(r, "version", im.Version, "0.1.0")
}

func damaged(r *Rig) {
	for name, config := range map[string]string{"no JSON": "{", "another shape": `{"os":["linux"]}`} {
		d := r.put(Doc{Config: []byte(config)}, "x")
		if im, err := r.Image(r.Context(), r.name(repo), d); err == nil || errors.Is(err, catalog.ErrNotFound) {
			r.Errorf("%s: %+v, %v", name, im, err)
		}
	}
	d := r.put(Doc{Children: []image.Descriptor{child(Linux("amd64", nil, "never pushed"), &image.Platform{OS: "linux", Architecture: "amd64"})}}, "y")
	if im, err := r.Image(r.Context(), r.name(repo), d); err == nil {
		r.Errorf("an index whose image is not there: %+v", im)
	}
}

func together(r *Rig) {
	d := r.put(Linux("amd64", nil, "a"), "1", "2")
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			got, err := r.Lookup(r.Context(), r.name(repo), fmt.Sprint(1+i%2))
			if err != nil || got != d {
				r.Errorf("%s, %v", got, err)
			}
			if im, err := r.Image(r.Context(), r.name(repo), d); err != nil || len(im.Platforms) != 1 {
				r.Errorf("%+v, %v", im, err)
			}
			if all, err := r.Tags(r.Context(), r.name(repo)); err != nil || len(all) != 2 {
				r.Errorf("%v, %v", all, err)
			}
		})
	}
	wg.Wait()
}

// signatures runs every way to sign, and ways to cheat, with every kind of key.
func signatures(t *testing.T, open Open) {
	for _, kind := range []string{"ecdsa", "ed25519", "rsa"} {
		t.Run(kind, func(t *testing.T) {
			s, other := NewSigner(t, kind), NewSigner(t, "ecdsa")
			r := open(t, slices.Concat(NewSigner(t, "ecdsa").Keys(t, "nobody's"), s.Keys(t, "ours")))
			n := 0
			for name, tc := range map[string]struct {
				signed bool
				sign   func(d, old image.Digest)
			}{
				"not at all": {false, func(d, old image.Digest) {}},
				"by tag":     {true, func(d, old image.Digest) { r.put(Simple(s.SimpleLayer(t, Payload("x", d))), SimpleTag(d)) }},
				"by tag, among others": {true, func(d, old image.Digest) {
					r.put(Simple(other.SimpleLayer(t, Payload("x", d)), Layer{Type: "text/plain", Data: []byte("hi")}, s.SimpleLayer(t, Payload("x", d))), SimpleTag(d))
				}},
				"by a key we do not know": {false, func(d, old image.Digest) {
					r.put(Simple(other.SimpleLayer(t, Payload("x", d))), SimpleTag(d))
				}},
				"another image": {false, func(d, old image.Digest) {
					r.put(Simple(s.SimpleLayer(t, Payload("x", old))), SimpleTag(d))
				}},
				"something of another type": {false, func(d, old image.Digest) {
					r.put(Simple(s.SimpleLayer(t, []byte(strings.Replace(string(Payload("x", d)), "cosign container", "some", 1)))), SimpleTag(d))
				}},
				"with a payload changed after": {false, func(d, old image.Digest) {
					l := s.SimpleLayer(t, Payload("x", old))
					l.Data = Payload("x", d)
					r.put(Simple(l), SimpleTag(d))
				}},
				"no base64": {false, func(d, old image.Digest) {
					l := s.SimpleLayer(t, Payload("x", d))
					l.Annotations["dev.cosignproject.cosign/signature"] = "%%%"
					r.put(Simple(l), SimpleTag(d))
				}},
				"as a referrer": {true, func(d, old image.Digest) {
					doc := Simple(s.SimpleLayer(t, Payload("x", d)))
					doc.Subject, doc.Artifact = d, "application/vnd.dev.cosign.artifact.sig.v1+json"
					r.put(doc)
				}},
				"in a bundle":               {true, func(d, old image.Digest) { r.put(s.Bundle(t, d, Statement(SignPredicate, d))) }},
				"in a bundle of another":    {false, func(d, old image.Digest) { r.put(other.Bundle(t, d, Statement(SignPredicate, d))) }},
				"in a bundle about another": {false, func(d, old image.Digest) { r.put(s.Bundle(t, d, Statement(SignPredicate, old))) }},
				"only its provenance":       {false, func(d, old image.Digest) { r.put(s.Bundle(t, d, Statement("https://slsa.dev/provenance/v1", d))) }},
			} {
				t.Run(name, func(t *testing.T) {
					n++
					old := r.put(Linux("amd64", nil, fmt.Sprint("old", n)))
					d := r.put(Linux("amd64", nil, fmt.Sprint("new", n)))
					tc.sign(d, old)
					im, err := r.Image(t.Context(), r.name(repo), d)
					if err != nil {
						t.Fatal(err)
					}
					if want := map[bool]string{true: "ours"}[tc.signed]; im.Signed != tc.signed || im.Signer != want {
						t.Errorf("signed: %v by %q", im.Signed, im.Signer)
					}
				})
			}
		})
	}
	t.Run("later", func(t *testing.T) {
		s := NewSigner(t, "ecdsa")
		r := open(t, s.Keys(t, "ours"))
		d := r.put(Linux("amd64", nil, "a"), "1")
		im, err := r.Image(t.Context(), r.name(repo), d)
		r.ok(err)
		eq(r, "signed", im.Signed, false)
		r.Clock.Advance(time.Hour)
		r.put(Simple(s.SimpleLayer(t, Payload("x", d))), SimpleTag(d))
		im, err = r.Image(t.Context(), r.name(repo), d)
		r.ok(err)
		eq(r, "signed, after it was", im.Signed, true)
	})
}
