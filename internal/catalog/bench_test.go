package catalog_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"cairn.dev/cairn/internal/catalog"
	"cairn.dev/cairn/internal/catalog/catalogtest"
	"cairn.dev/cairn/internal/clock"
)

// BenchmarkOwn is a whole check against our registry: the tags of 1,000
// repositories with 50 images each, and the newest image of each described.
func BenchmarkOwn(b *testing.B) {
	const repositories, images = 1000, 50
	store, _ := catalogtest.NewStore(b, nil)
	var g errgroup.Group
	g.SetLimit(64)
	for r := range repositories {
		g.Go(func() error {
			for i := range images {
				catalogtest.Put(b, store, fmt.Sprint("team/app", r), catalogtest.Linux("amd64", nil, fmt.Sprint(r, " ", i)), fmt.Sprint("1.", i))
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		own, err := catalog.NewOwn(store, nil) // remembers nothing
		if err != nil {
			b.Fatal(err)
		}
		for r := range repositories {
			name := fmt.Sprint("registry.example/team/app", r)
			tags, err := own.Tags(b.Context(), name)
			if err != nil || len(tags) != images {
				b.Fatal(len(tags), err)
			}
			if _, err := own.Image(b.Context(), name, tags[len(tags)-1].Digest); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(repositories*images), "images/op")
}

// BenchmarkManyTags lists the largest repository that is accepted, with what
// was seen of it in a database: the first time, and when nothing changed.
func BenchmarkManyTags(b *testing.B) {
	const all, size = 200_000, 1000
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		last, next := -1, ""
		fmt.Sscanf(r.URL.Query().Get("last"), "t%d", &last)
		tags := make([]string, min(size, all-1-last))
		for i := range tags {
			last++
			tags[i] = fmt.Sprint("t", last)
		}
		if last < all-1 {
			next = fmt.Sprintf("/?last=t%d", last)
		}
		list(w, next, tags...)
	}))
	defer s.Close()
	open := func(m catalog.Memory) *catalog.Remote {
		r, err := catalog.NewRemote(catalog.RemoteConfig{Clock: clock.Real(), Memory: m, TTL: time.Nanosecond,
			Registries: []catalog.Registry{{Host: "r.example", URL: s.URL}}})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { r.Close() })
		return r
	}
	look := func(b *testing.B, r *catalog.Remote) {
		if tags, err := r.Tags(b.Context(), "r.example/a/b"); err != nil || len(tags) != all {
			b.Fatal(len(tags), err)
		}
	}
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			look(b, open(database(b, b.TempDir())))
		}
	})
	b.Run("again", func(b *testing.B) {
		r := open(database(b, b.TempDir()))
		look(b, r)
		for b.Loop() {
			look(b, r)
		}
	})
}
