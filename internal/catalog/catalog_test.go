package catalog_test

import (
	"net/http"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/catalog"
	"cairn.dev/cairn/internal/catalog/catalogtest"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/registry"
	"cairn.dev/cairn/internal/registry/registrytest"
)

func TestOwn(t *testing.T) {
	catalogtest.Run(t, func(t testing.TB, keys []catalog.Key) *catalogtest.Rig {
		store, c := catalogtest.NewStore(t, nil)
		own, err := catalog.NewOwn(store, keys)
		if err != nil {
			t.Fatal(err)
		}
		return &catalogtest.Rig{TB: t, Catalog: own, Clock: c, Store: store, Host: "registry.example"}
	})
}

// remote is a catalog of a registry that is served over HTTP.
func remote(t testing.TB, keys []catalog.Key, memory catalog.Memory, wrap func(http.Handler) http.Handler) *catalogtest.Rig {
	t.Helper()
	store, c := catalogtest.NewStore(t, nil)
	h := http.Handler(registry.New(registry.Config{Content: store}))
	if wrap != nil {
		h = wrap(h)
	}
	addr := registrytest.Serve(t, h)
	r, err := catalog.NewRemote(catalog.RemoteConfig{Clock: c, Keys: keys, Memory: memory,
		Registries: []catalog.Registry{{Host: "registry.example", URL: "http://" + addr}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	// What was asked last holds for a while; a push is told of by a webhook.
	return &catalogtest.Rig{TB: t, Catalog: r, Clock: c, Store: store, Host: "registry.example", Settle: func() { r.Forget("registry.example/team/app") }}
}

func TestRemote(t *testing.T) {
	catalogtest.Run(t, func(t testing.TB, keys []catalog.Key) *catalogtest.Rig { return remote(t, keys, nil, nil) })
}

func TestRemoteWithDatabase(t *testing.T) {
	catalogtest.Run(t, func(t testing.TB, keys []catalog.Key) *catalogtest.Rig {
		return remote(t, keys, database(t, t.TempDir()), nil)
	})
}

// A registry without a list of referrers, as most are.
func TestRemoteWithoutReferrers(t *testing.T) {
	s := catalogtest.NewSigner(t, "ecdsa")
	r := remote(t, s.Keys(t, "ours"), nil, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if strings.Contains(req.URL.Path, "/referrers/") {
				http.NotFound(w, req)
				return
			}
			h.ServeHTTP(w, req)
		})
	})
	d := catalogtest.Put(t, r.Store, "team/app", catalogtest.Linux("amd64", nil, "a"), "1")
	bundle := s.Bundle(t, d, catalogtest.Statement(catalogtest.SignPredicate, d))
	catalogtest.Put(t, r.Store, "team/app", bundle)
	catalogtest.Put(t, r.Store, "team/app", catalogtest.FallbackIndex(bundle), catalogtest.FallbackTag(d))
	im, err := r.Image(t.Context(), "registry.example/team/app", d)
	if err != nil || im.Signer != "ours" {
		t.Errorf("signer %q, %v", im.Signer, err)
	}
}

func database(t testing.TB, dir string) *catalog.Store {
	t.Helper()
	d, err := db.Open(t.Context(), db.Config{Path: dir + "/catalog.db", Schema: catalog.Schema, Sync: db.Normal})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	s, err := catalog.NewStore(d)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
