package contenttest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
)

func manifests(h *H) {
	body := img("a").body()
	d := h.put("app/web", img("a"), "v1", "latest")
	for _, ref := range []string{"v1", "latest", string(d)} {
		for range 2 { // the second from the cache
			m, err := h.Manifest(h.ctx, "app/web", ref)
			h.ok(err)
			if m.Digest != d || m.Repository != "app/web" || m.MediaType != image.MediaTypeManifest || !bytes.Equal(m.Body, body) || !m.Pushed.Equal(h.Clock.Now()) {
				h.Fatalf("%s: got %+v", ref, m)
			}
		}
	}
	_, err := h.Manifest(h.ctx, "app/web", "v2")
	h.is(err, content.ErrManifestUnknown)
	_, err = h.Manifest(h.ctx, "app/web", string(Dig([]byte("x"))))
	h.is(err, content.ErrManifestUnknown)
	_, err = h.Manifest(h.ctx, "nowhere", "v1")
	h.is(err, content.ErrRepositoryUnknown)
	_, err = h.Manifest(h.ctx, "app/web", "sha256:zz")
	if ne := (*image.NameError)(nil); !errors.As(err, &ne) {
		h.Fatalf("nonsense as digest: %v", err)
	}

	im := h.peek("app/web", "latest")
	eq(h, "config", im.Config, Dig([]byte("config of a")))
	eq(h, "size", im.Size, int64(len(body)+len("config of a")+len("layer of a")))
	eq(h, "artifact type", im.ArtifactType, "application/vnd.oci.image.config.v1+json")
	same(h, "tags", tagNames(im), "latest", "v1")

	// Everything else that may be pushed.
	docker := []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.docker.container.image.v1+json","digest":%q,"size":11},"layers":[]}`,
		image.MediaTypeDockerManifest, Dig([]byte("config of a"))))
	m, err := image.ParseManifest(image.MediaTypeDockerManifest, docker)
	h.ok(err)
	h.ok(h.PutManifest(h.ctx, content.Push{Repository: "app/web", Digest: dig512(docker), MediaType: m.MediaType, Body: docker, Manifest: m}))
	got, err := h.Manifest(h.ctx, "app/web", string(dig512(docker)))
	h.ok(err)
	eq(h, "media type", got.MediaType, image.MediaTypeDockerManifest)
	eq(h, "artifact type", h.peek("app/web", string(dig512(docker))).ArtifactType, "application/vnd.docker.container.image.v1+json")
	artifact := h.put("app/web", doc{config: "{}", artifact: "application/x", subject: d})
	eq(h, "artifact type", h.peek("app/web", string(artifact)).ArtifactType, "application/x")
	eq(h, "config that names nothing", h.peek("app/web", string(artifact)).Config, "")
	eq(h, "subject", h.peek("app/web", string(artifact)).Subject, d)

	err = h.PutManifest(h.ctx, content.Push{Repository: "app/web", Digest: Dig(nil), MediaType: m.MediaType, Body: docker, Manifest: m})
	h.is(err, content.ErrDigestMismatch)
}

func missing(h *H) {
	h.push("app", "config of a")
	h.push("other", "layer of a")
	_, err := h.putErr("app", img("a"), "v1")
	me := (*content.MissingBlobsError)(nil)
	if !errors.As(err, &me) || !slices.Equal(me.Digests, []image.Digest{Dig([]byte("layer of a"))}) {
		h.Fatalf("missing layer: %v", err)
	}
	_, err = h.Manifest(h.ctx, "app", "v1")
	h.is(err, content.ErrManifestUnknown)
	ok, err := h.Mount(h.ctx, "app", Dig([]byte("layer of a")), "other", nil)
	h.ok(err)
	eq(h, "mounted", ok, true)
	_, err = h.putErr("app", img("a"), "v1")
	h.ok(err)

	// An index may be sparse, a subject may be missing, a foreign layer is
	// not asked for.
	_, err = h.putErr("app", doc{children: []image.Digest{Dig([]byte("nowhere"))}}, "sparse")
	h.ok(err)
	h.put("app", doc{config: "c", subject: Dig([]byte("nowhere"))})
	body := []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"x/y","digest":%q,"size":1},"layers":[{"mediaType":"x/z","digest":%q,"size":1,"urls":["https://example.org/l"]}]}`,
		image.MediaTypeManifest, Dig([]byte("c")), Dig([]byte("elsewhere"))))
	m, err := image.ParseManifest("", body)
	h.ok(err)
	h.ok(h.PutManifest(h.ctx, content.Push{Repository: "app", Digest: Dig(body), MediaType: m.MediaType, Body: body, Manifest: m}))
}

func retag(h *H) {
	t0 := h.Clock.Now()
	a := h.put("app", img("a"), "latest")
	m, err := h.Manifest(h.ctx, "app", "latest")
	h.ok(err)
	eq(h, "latest", m.Digest, a)
	h.Clock.Advance(time.Minute)
	t1 := h.Clock.Now()
	b := h.put("app", img("b"), "latest", "b")
	m, err = h.Manifest(h.ctx, "app", "latest")
	h.ok(err)
	eq(h, "latest after the push", m.Digest, b)
	im := h.peek("app", string(a))
	eq(h, "state of the old one", im.State, content.Live)
	eq(h, "its tags", len(im.Tags), 0)
	eq(h, "its time began anew", im.Pushed.Equal(t1) && !im.Pushed.Equal(t0), true)

	h.Clock.Advance(time.Minute)
	h.ok(h.SetTag(h.ctx, "app", a, "latest", "bob"))
	m, err = h.Manifest(h.ctx, "app", "latest")
	h.ok(err)
	eq(h, "latest moved back", m.Digest, a)
	eq(h, "both times began anew", h.peek("app", string(a)).Pushed.Equal(h.Clock.Now()) && h.peek("app", string(b)).Pushed.Equal(h.Clock.Now()), true)
	h.is(h.SetTag(h.ctx, "app", Dig([]byte("x")), "t", "bob"), content.ErrManifestUnknown)

	h.Clock.Advance(time.Minute)
	h.ok(h.DeleteTag(h.ctx, "app", "latest", "bob"))
	_, err = h.Manifest(h.ctx, "app", "latest")
	h.is(err, content.ErrManifestUnknown)
	eq(h, "time of the untagged", h.peek("app", string(a)).Pushed.Equal(h.Clock.Now()), true)
	h.is(h.DeleteTag(h.ctx, "app", "latest", "bob"), content.ErrManifestUnknown)
	h.is(h.DeleteTag(h.ctx, "nowhere", "latest", "bob"), content.ErrRepositoryUnknown)
	_, err = h.Manifest(h.ctx, "app", string(a))
	h.ok(err)
	same(h, "tags", h.tags("app"), "b")
}

// A tag names an image since it began to, however often the same is pushed.
func taggings(h *H) {
	since := func(want map[string]time.Duration) {
		h.Helper()
		all, err := h.Taggings(h.ctx, "app")
		h.ok(err)
		eq(h, "taggings", len(all), len(want))
		for i, t := range all {
			age, ok := want[t.Name]
			eq(h, "listed: "+t.Name, ok, true)
			eq(h, "age of "+t.Name, h.Clock.Now().Sub(t.Since), age)
			if i > 0 && all[i-1].Name >= t.Name {
				h.Errorf("%s comes before %s", all[i-1].Name, t.Name)
			}
		}
	}
	_, err := h.Taggings(h.ctx, "app")
	h.is(err, content.ErrRepositoryUnknown)
	a := h.put("app", img("a"), "v1", "latest")
	h.Clock.Advance(time.Minute)
	b := h.put("app", img("b"), "v2", "latest")
	h.Clock.Advance(time.Minute)
	h.put("app", img("a"), "v1")
	h.put("app", img("a"))
	since(map[string]time.Duration{"v1": 2 * time.Minute, "v2": time.Minute, "latest": time.Minute})
	all, err := h.Taggings(h.ctx, "app")
	h.ok(err)
	eq(h, "digest of latest", all[0].Digest, b)
	eq(h, "digest of v1", all[1].Digest, a)
	h.ok(h.SetTag(h.ctx, "app", a, "latest", ""))
	since(map[string]time.Duration{"v1": 2 * time.Minute, "v2": time.Minute, "latest": 0})
	h.ok(h.DeleteTag(h.ctx, "app", "latest", ""))
	h.put("app", doc{config: "a", subject: a})
	since(map[string]time.Duration{"v1": 2 * time.Minute, "v2": time.Minute})

	age := func(d image.Digest) time.Duration {
		h.Helper()
		at, err := h.Since(h.ctx, "app", d)
		h.ok(err)
		return h.Clock.Now().Sub(at)
	}
	eq(h, "a is there for", age(a), 2*time.Minute)
	eq(h, "b is there for", age(b), time.Minute)
	h.Clock.Advance(time.Minute)
	eq(h, "what has no tag is there for", age(h.put("app", img("c"))), 0)
	_, err = h.Since(h.ctx, "app", Dig([]byte("x")))
	h.is(err, content.ErrManifestUnknown)
	_, err = h.Since(h.ctx, "nowhere", a)
	h.is(err, content.ErrRepositoryUnknown)

	// Rows from before that was noted.
	h.ok(h.DB.Write(h.ctx, func(tx *db.Tx) error {
		_, err := tx.Exec("UPDATE tags SET since = 0")
		return err
	}))
	since(map[string]time.Duration{"v1": time.Minute, "v2": 2 * time.Minute})
	h.put("app", img("a"), "v1")
	since(map[string]time.Duration{"v1": time.Minute, "v2": 2 * time.Minute})
	h.Clock.Advance(time.Minute)
	since(map[string]time.Duration{"v1": 2 * time.Minute, "v2": 3 * time.Minute})
	eq(h, "a is there for", age(a), 2*time.Minute)

	// The hook heard every push to a tag, and nothing else.
	h.mu.Lock()
	defer h.mu.Unlock()
	want := "app:v1@a app:latest@a app:v2@b app:latest@b app:v1@a app:latest@a app:v1@a"
	got := strings.NewReplacer(string(a), "a", string(b), "b").Replace(strings.Join(h.tagged, " "))
	eq(h, "the hook heard", got, want)
}

func versions(h *H) {
	a := h.put("app", img("a"), "v1")
	last := h.peek("app", string(a)).Version
	changed := func(what string, want bool) {
		h.Helper()
		v := h.peek("app", string(a)).Version
		eq(h, "changed by "+what, v != last, want)
		last = v
	}
	changed("nothing", false)
	_, err := h.Manifest(h.ctx, "app", "v1")
	h.ok(err)
	changed("a pull", false)
	h.put("app", img("a"))
	changed("a push", true)
	b := h.put("app", img("b"), "v1")
	changed("a tag that moves away", true)
	h.ok(h.SetTag(h.ctx, "app", a, "v1", ""))
	changed("a tag that moves here", true)
	h.ok(h.DeleteTag(h.ctx, "app", "v1", ""))
	changed("a deleted tag", true)
	h.ok(h.Pin(h.ctx, content.Pin{Repository: "app", Digest: a}))
	changed("a pin", true)
	h.ok(h.Unpin(h.ctx, "app", a))
	changed("an unpin", true)
	h.ok(h.Unpin(h.ctx, "app", a))
	changed("an unpin of nothing", false)
	_, err = h.putErr("app", doc{children: []image.Digest{a}}, "index")
	h.ok(err)
	changed("an index that lists it", true)
	h.hide("app", a)
	changed("expiry", true)
	h.ok(h.Revive(h.ctx, "app", a, "used"))
	changed("revival", true)
	h.ok(h.DeleteManifest(h.ctx, "app", a, "bob", ""))
	changed("deletion", true)
	_, err = h.Restore(h.ctx, "app", a, "bob")
	h.ok(err)
	changed("restore", true)
	h.put("app", img("b"), "v2")
	changed("a push of another", false)
	_ = b

	// Swept and pushed again it is another image.
	h.hide("app", a)
	old := h.peek("app", string(a))
	h.sweep("app", a)
	h.put("app", img("a"))
	for range 5 {
		if v := h.peek("app", string(a)).Version; v == old.Version || v == 1 {
			h.Fatalf("version %d comes again", v)
		}
	}
}

func lists(h *H) {
	var names []string
	for i := range 25 {
		names = append(names, fmt.Sprintf("t%02d", i))
	}
	names = append(names, "A", "_x", "z.1", "Z")
	slices.Sort(names)
	h.put("app", img("a"), names...)
	same(h, "all tags", h.tags("app"), names...)
	var got []string
	for after, more := "", true; more; {
		var page []string
		var err error
		page, more, err = h.Tags(h.ctx, "app", after, 7)
		h.ok(err)
		if len(page) > 7 || more && len(page) < 7 {
			h.Fatalf("page of %d, more %v", len(page), more)
		}
		got = append(got, page...)
		after = page[len(page)-1]
	}
	same(h, "pages", got, names...)
	page, more, err := h.Tags(h.ctx, "app", "", len(names))
	h.ok(err)
	eq(h, "exact page has no more", len(page) == len(names) && !more, true)
	page, _, err = h.Tags(h.ctx, "app", "", 0)
	h.ok(err)
	eq(h, "page of none", len(page), 0)
	page, more, err = h.Tags(h.ctx, "app", "zz", -1)
	h.ok(err)
	eq(h, "after the last", len(page) == 0 && !more, true)
	_, _, err = h.Tags(h.ctx, "nowhere", "", -1)
	h.is(err, content.ErrRepositoryUnknown)
	h.ok(h.DeleteTag(h.ctx, "app", "A", ""))
	eq(h, "a cached list follows", slices.Contains(h.tags("app"), "A"), false)

	for _, r := range []string{"b", "c/d", "a-b"} {
		h.put(r, img("a"))
	}
	h.push("only-blobs", "x")
	all, more, err := h.Repositories(h.ctx, "", -1)
	h.ok(err)
	same(h, "repositories", all, "a-b", "app", "b", "c/d")
	eq(h, "more", more, false)
	two, more, err := h.Repositories(h.ctx, "a-b", 2)
	h.ok(err)
	same(h, "page", two, "app", "b")
	eq(h, "more", more, true)
	none, _, err := h.Repositories(h.ctx, "", 0)
	h.ok(err)
	eq(h, "page of none", len(none), 0)
}

func referrers(h *H) {
	a := h.put("app", img("a"), "v1")
	list := func(typ string) []image.Digest {
		h.Helper()
		ds, more, err := h.Referrers(h.ctx, "app", a, typ, "", -1)
		h.ok(err)
		eq(h, "more", more, false)
		var out []image.Digest
		for _, d := range ds {
			out = append(out, d.Digest)
		}
		return out
	}
	eq(h, "none", len(list("")), 0)
	ds, _, err := h.Referrers(h.ctx, "nowhere", a, "", "", -1)
	h.ok(err)
	eq(h, "none in an unknown repository", len(ds), 0)

	sbom := h.put("app", doc{config: "{}", artifact: "application/sbom", subject: a, notes: map[string]string{"k": "v"}})
	sig := h.put("app", doc{config: "{}", artifact: "application/sig", subject: a})
	plain := h.put("app", doc{config: "plain", subject: a}) // its type is the config's
	index := h.put("app", doc{children: []image.Digest{a}, subject: a, artifact: "application/sbom"})
	h.put("app", doc{config: "{}", artifact: "application/sbom", subject: Dig([]byte("other"))})
	h.put("elsewhere", doc{config: "{}", artifact: "application/sbom", subject: a, notes: map[string]string{"x": "y"}})
	all := []image.Digest{sbom, sig, plain, index}
	slices.Sort(all)
	same(h, "all", list(""), all...)
	boms := []image.Digest{sbom, index}
	slices.Sort(boms)
	same(h, "by type", list("application/sbom"), boms...)
	same(h, "by type of the config", list("application/vnd.oci.image.config.v1+json"), plain)
	ds, _, err = h.Referrers(h.ctx, "app", a, "application/sbom", "", -1)
	h.ok(err)
	i := slices.IndexFunc(ds, func(d image.Descriptor) bool { return d.Digest == sbom })
	body := doc{config: "{}", artifact: "application/sbom", subject: a, notes: map[string]string{"k": "v"}}.body()
	got, _ := json.Marshal(ds[i])
	want, _ := json.Marshal(image.Descriptor{MediaType: image.MediaTypeManifest, Digest: sbom, Size: int64(len(body)), ArtifactType: "application/sbom", Annotations: map[string]string{"k": "v"}})
	eq(h, "descriptor", string(got), string(want))

	var paged []image.Digest
	for after, more := image.Digest(""), true; more; {
		var page []image.Descriptor
		page, more, err = h.Referrers(h.ctx, "app", a, "", after, 3)
		h.ok(err)
		for _, d := range page {
			paged = append(paged, d.Digest)
		}
		after = paged[len(paged)-1]
	}
	same(h, "pages", paged, all...)

	// Hidden ones are not listed. An index under the fallback tag adds what
	// it lists, if that is there.
	h.hide("app", sig)
	all = slices.DeleteFunc(all, func(d image.Digest) bool { return d == sig })
	same(h, "without the hidden", list(""), all...)
	old := h.put("app", doc{config: "{}", artifact: "application/old"})
	fallback := strings.Replace(string(a), ":", "-", 1)
	h.put("app", doc{children: []image.Digest{old, sbom, Dig([]byte("not here"))}}, fallback)
	all = append(all, old)
	slices.Sort(all)
	same(h, "with the fallback tag", list(""), all...)
	same(h, "with the fallback tag by type", list("application/old"), old)
	eq(h, "subject by tag", h.peek("app", fallback).Subject, a)
}

func audit(h *H) {
	a := h.put("app", img("a"), "v1", "v2")
	var uses []usage.Use
	for i := range 15 {
		uses = append(uses, usage.Use{Digest: a, Source: usage.Pull, Subject: fmt.Sprintf("host-%d", i), At: h.Clock.Now().Add(time.Duration(i) * time.Minute)})
	}
	errs, err := h.Expire(h.ctx, []content.Expiry{{Repository: "app", Digest: a, Version: h.peek("app", "v1").Version, Reason: "unused for 30d", Uses: uses}})
	h.ok(err)
	h.ok(errs[0])
	_, err = h.Manifest(h.ctx, "app", "v1")
	h.ok(err)
	h.ok(h.DeleteTag(h.ctx, "app", "v2", "bob"))
	h.ok(h.DeleteManifest(h.ctx, "app", a, "bob", "mistake"))
	_, err = h.Restore(h.ctx, "app", a, "eve")
	h.ok(err)
	h.hide("app", a)
	h.sweep("app", a)
	b := h.put("web", img("b"))
	h.ok(h.DeleteManifest(h.ctx, "web", b, "bob", ""))
	es, err := h.Audit(h.ctx, "app", 0, 100)
	h.ok(err)
	var got []string
	for _, e := range es {
		got = append(got, fmt.Sprint(e.Action, e.Tags, e.Actor, " ", e.Reason))
		eq(h, "digest", e.Digest, a)
	}
	same(h, "entries", got, "sweep[v1]retention time is over", "expire[v1]retention unused", "restore[v1]eve restored", "delete[v1]bob mistake",
		"untag[v2]bob tag deleted", "revive[v1 v2]cairn pulled by tag v1", "expire[v1 v2]retention unused for 30d")
	first := es[len(es)-1]
	eq(h, "uses", len(first.Uses), 10)
	eq(h, "the newest use", first.Uses[0].Subject, "host-14")
	page, err := h.Audit(h.ctx, "", es[0].ID+1, 2)
	h.ok(err)
	eq(h, "page", len(page) == 2 && page[0].ID == es[0].ID && page[1].ID == es[1].ID, true)
	all, err := h.Audit(h.ctx, "", 0, 100)
	h.ok(err)
	eq(h, "all", len(all) == len(es)+1 && all[0].Repository == "web", true)
}

func scan(h *H) {
	want := map[string]int{}
	for i := range 7 {
		repo := fmt.Sprintf("team/app-%d", i)
		for j := range i {
			d := h.put(repo, img(fmt.Sprint(i, j)), fmt.Sprintf("t%d", j), fmt.Sprintf("u%d", j))
			if j == 1 {
				h.hide(repo, d)
			}
			want[repo]++
		}
	}
	h.put("team/app-1", doc{children: []image.Digest{Dig([]byte("x")), dig512([]byte("y"))}}, "index")
	want["team/app-1"]++
	h.push("team/app-only-blobs", "x")
	var repos []string
	h.ok(h.Scan(h.ctx, "", func(repo string, images []content.Image) error {
		repos = append(repos, repo)
		eq(h, "images of "+repo, len(images), want[repo])
		of, err := h.ImagesOf(h.ctx, repo)
		h.ok(err)
		for i, im := range images {
			peeked := h.peek(repo, string(im.Digest))
			for _, other := range []content.Image{of[i], peeked} {
				if fmt.Sprint(im) != fmt.Sprint(other) {
					h.Fatalf("scan says\n%+v, alone it is\n%+v", im, other)
				}
			}
			if im.MediaType != image.MediaTypeIndex {
				eq(h, "tags", len(im.Tags), 2)
			}
		}
		return nil
	}))
	same(h, "repositories", repos, "team/app-1", "team/app-2", "team/app-3", "team/app-4", "team/app-5", "team/app-6")
	same(h, "children", h.peek("team/app-1", "index").Children, Dig([]byte("x")), dig512([]byte("y")))
	stop := errors.New("stop")
	n := 0
	h.is(h.Scan(h.ctx, "team/app-3", func(repo string, _ []content.Image) error {
		eq(h, "first after", repo, "team/app-4")
		n++
		return stop
	}), stop)
	eq(h, "calls", n, 1)
	_, err := h.ImagesOf(h.ctx, "nowhere")
	h.is(err, content.ErrRepositoryUnknown)

	sizes := map[image.Digest]int64{}
	h.ok(h.BlobsOf(h.ctx, "team/app-3", func(m, b image.Digest, size int64) error {
		sizes[m] += size
		return nil
	}))
	eq(h, "manifests", len(sizes), 3)
	for m, n := range sizes {
		body := 0
		if im := h.peek("team/app-3", string(m)); im.State == content.Live {
			mm, err := h.Manifest(h.ctx, "team/app-3", string(m))
			h.ok(err)
			body = len(mm.Body)
			eq(h, "size of blobs", n, im.Size-int64(body))
		}
	}
}
