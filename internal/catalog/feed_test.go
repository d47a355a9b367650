package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"cairn.dev/cairn/internal/catalog"
	"cairn.dev/cairn/internal/catalog/catalogtest"
	"cairn.dev/cairn/internal/image"
)

func TestFeed(t *testing.T) {
	f := catalog.NewFeed()
	f.Put()
	f.Put(catalog.Pushed{Repository: "r/a", Tag: "1", Digest: "x"}, catalog.Pushed{Repository: "r/b", Tag: "1", Digest: "x"})
	f.Put(catalog.Pushed{Repository: "r/a", Tag: "1", Digest: "y"}, catalog.Pushed{Repository: "r/a", Tag: "2", Digest: "y"})
	got, lost, err := f.Take(t.Context())
	if want := "[{r/a 1 y} {r/b 1 x} {r/a 2 y}]"; err != nil || lost || fmt.Sprint(got) != want {
		t.Errorf("took %v, %v, %v; want %s", got, lost, err, want)
	}
	// There is nothing left: who takes waits, until it leaves.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, _, err := f.Take(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("took %v, %v", got, err)
	}
	done := make(chan []catalog.Pushed)
	go func() { got, _, _ := f.Take(t.Context()); done <- got }()
	f.Put(catalog.Pushed{Repository: "r/c"})
	if got := <-done; len(got) != 1 || got[0].Repository != "r/c" {
		t.Errorf("took %v", got)
	}
}

func TestFeedForgetsAndSaysSo(t *testing.T) {
	f := catalog.NewFeed()
	for i := range 10_001 {
		f.Put(catalog.Pushed{Repository: "r/a", Tag: fmt.Sprint(i)})
	}
	f.Put(catalog.Pushed{Repository: "r/b"})
	got, lost, err := f.Take(t.Context())
	if len(got) != 0 || !lost || err != nil {
		t.Errorf("took %d, %v, %v", len(got), lost, err)
	}
	f.Put(catalog.Pushed{Repository: "r/b"})
	if got, lost, err := f.Take(t.Context()); len(got) != 1 || lost || err != nil {
		t.Errorf("took %d, %v, %v", len(got), lost, err)
	}
}

// Pushes to our registry arrive by the hook of content, under the name by
// which code knows the repository, and the catalog has them by then.
func TestPushesArrive(t *testing.T) {
	feed := catalog.NewFeed()
	var mux *catalog.Mux
	store, _ := catalogtest.NewStore(t, func(repo, tag string, d image.Digest) { feed.Put(mux.Pushed(repo, tag, d)) })
	own, err := catalog.NewOwn(store, nil)
	if err != nil {
		t.Fatal(err)
	}
	mux, err = catalog.NewMux(catalog.MuxConfig{Own: own, Hosts: []string{"registry.example", "localhost:5080"}, Others: nowhere{t}})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			catalogtest.Put(t, store, "team/app", catalogtest.Linux("amd64", nil, fmt.Sprint(i)), fmt.Sprint("1.", i), "latest")
		})
	}
	seen := map[string]image.Digest{}
	for len(seen) < 51 {
		got, lost, err := feed.Take(t.Context())
		if err != nil || lost {
			t.Fatal(lost, err)
		}
		for _, p := range got {
			if p.Repository != "registry.example/team/app" {
				t.Fatalf("pushed to %s", p.Repository)
			}
			seen[p.Tag] = p.Digest
			if d, err := mux.Lookup(t.Context(), "localhost:5080/team/app", p.Tag); err != nil || p.Tag != "latest" && d != p.Digest {
				t.Errorf("%s: %s, %v", p.Tag, d, err)
			}
		}
	}
	wg.Wait()
}
