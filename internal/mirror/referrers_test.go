package mirror_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/registry/registrytest"
)

// Signatures that the upstream has are listed here, beside those that are
// here, and can be pulled.
func TestReferrers(t *testing.T) {
	r := newRig(t, nil)
	d := r.push(t, "a/b", []string{"1"}, "config")
	if _, err := r.store.PutBlob(t.Context(), "a/b", strings.NewReader("{}"), image.EmptyDigest); err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := range 300 { // more than a page
		want = append(want, string(r.put(t, "a/b", nil, registrytest.Artifact("x/sig", d, fmt.Sprint(i)))))
	}
	r.put(t, "a/b", nil, registrytest.Artifact("x/sbom", d, "other"))
	r.pull(t, "1", "")
	r.wait(t, "1", d)
	// One that is only here: somebody signed the copy.
	if _, err := r.local.PutBlob(t.Context(), repo, strings.NewReader("{}"), image.EmptyDigest); err != nil {
		t.Fatal(err)
	}
	body := registrytest.Artifact("x/sig", d, "ours")
	m, err := image.ParseManifest("", body)
	if err != nil {
		t.Fatal(err)
	}
	ours := registrytest.Digest(body)
	if err := r.local.PutManifest(t.Context(), content.Push{Repository: repo, Digest: ours, MediaType: m.MediaType, Body: body, Manifest: m, Actor: "test"}); err != nil {
		t.Fatal(err)
	}
	list := func(path string) (got []string) {
		t.Helper()
		for path != "" {
			a := r.get(t, path)
			m, err := image.ParseManifest(a.header.Get("Content-Type"), a.body)
			if a.status != 200 || err != nil {
				t.Fatalf("%s: %d %v", path, a.status, err)
			}
			for _, c := range m.Children {
				got = append(got, string(c.Digest))
			}
			link := a.header.Get("Link")
			path, _, _ = strings.Cut(strings.TrimPrefix(link, "<"), ">")
		}
		return got
	}
	got := list("/v2/" + repo + "/referrers/" + string(d) + "?artifactType=x/sig")
	all := append(slices.Clone(want), string(ours))
	slices.Sort(all)
	if !slices.Equal(got, all) {
		t.Fatalf("%d referrers, want %d", len(got), len(all))
	}
	if a := r.get(t, "/v2/"+repo+"/manifests/"+want[0]); a.status != 200 {
		t.Errorf("a signature: %d %s", a.status, a.body)
	}
	asked := r.count("GET /v2/a/b/referrers/")
	list("/v2/" + repo + "/referrers/" + string(d))
	if n := r.count("GET /v2/a/b/referrers/"); n != asked {
		t.Errorf("asked again within the ttl: %d, then %d", asked, n)
	}
	// Without the upstream, what is here.
	r.clock.Advance(time.Hour)
	r.run(t)
	r.set(func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) })
	if got := list("/v2/" + repo + "/referrers/" + string(d)); !slices.Contains(got, string(ours)) || len(got) > 2 {
		t.Errorf("without the upstream: %v", got)
	}
}
