package catalog_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"cairn.dev/cairn/internal/catalog"
	"cairn.dev/cairn/internal/catalog/catalogtest"
	"cairn.dev/cairn/internal/image"
)

func TestMemories(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) catalog.Memory{
		"process":  func(*testing.T) catalog.Memory { return catalog.NewMemory() },
		"database": func(t *testing.T) catalog.Memory { return database(t, t.TempDir()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Run("tags", func(t *testing.T) { memoryOfTags(t, open(t)) })
			t.Run("digests", func(t *testing.T) { memoryOfDigests(t, open(t)) })
			t.Run("together", func(t *testing.T) { memoryTogether(t, open(t)) })
		})
	}
}

func memoryOfTags(t *testing.T, m catalog.Memory) {
	t0 := catalogtest.Start.Add(123456 * time.Nanosecond)
	see := func(repo string, at time.Time, want map[string]time.Time, names ...string) {
		t.Helper()
		got, err := m.Tags(t.Context(), repo, names, at)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) {
			t.Errorf("%d tags, want %d", len(got), len(want))
		}
		for n, w := range want {
			if !got[n].Equal(w.Truncate(time.Millisecond)) {
				t.Errorf("%s is there since %v, want %v", n, got[n], w)
			}
		}
	}
	type m0 = map[string]time.Time
	t1, t2 := t0.Add(time.Hour), t0.Add(2*time.Hour)
	see("r/a", t0, m0{"1": t0, "2": t0}, "1", "2", "2")
	see("r/a", t1, m0{"1": t0, "2": t0, "3": t1}, "1", "2", "3")
	see("r/b", t2, m0{"1": t2}, "1")
	see("r/a", t2, m0{"1": t0, "3": t1}, "1", "3")
	see("r/a", t2, m0{"1": t0, "2": t2, "3": t1}, "1", "2", "3") // back again
	see("r/a", t2, m0{})
	many := make([]string, 2500)
	all := m0{}
	for i := range many {
		many[i] = fmt.Sprint("t", i)
		all[many[i]] = t1
	}
	see("r/c", t1, all, many...)
	see("r/c", t2, all, many...)
}

func memoryOfDigests(t *testing.T, m catalog.Memory) {
	d, other := catalogtest.Dig([]byte("d")), catalogtest.Dig([]byte("other"))
	t0 := catalogtest.Start
	see := func(repo string, d image.Digest, at, want time.Time) {
		t.Helper()
		if got, err := m.Digest(t.Context(), repo, d, at); err != nil || !got.Equal(want) {
			t.Errorf("known since %v, %v; want %v", got, err, want)
		}
	}
	im := catalog.Image{Digest: d, Platforms: []image.Platform{{OS: "linux", Architecture: "arm64", Variant: "v9"}}, Size: 5, Created: t0, Source: "s", Revision: "r", Version: "v"}
	facts := func(repo string, d image.Digest, want bool) {
		t.Helper()
		got, ok, err := m.Facts(t.Context(), repo, d)
		if err != nil || ok != want {
			t.Fatalf("facts: %v, %v; want %v", ok, err, want)
		}
		if ok && fmt.Sprint(got) != fmt.Sprint(im) {
			t.Errorf("got %+v, want %+v", got, im)
		}
	}
	facts("r/a", d, false)
	see("r/a", d, t0, t0)
	see("r/a", d, t0.Add(time.Hour), t0)
	see("r/b", d, t0.Add(time.Hour), t0.Add(time.Hour))
	facts("r/a", d, false)
	kept := im
	kept.Since, kept.Signed, kept.Signer = t0, true, "k" // those are not kept
	if err := m.Keep(t.Context(), "r/a", kept); err != nil {
		t.Fatal(err)
	}
	facts("r/a", d, true)
	facts("r/b", d, false) // what one repository shows, another may hide
	see("r/a", d, t0.Add(2*time.Hour), t0)
	im2 := im
	im2.Digest = other
	if err := m.Keep(t.Context(), "r/a", im2); err != nil {
		t.Fatal(err)
	}
	facts("r/a", other, false) // it was not noted
}

func memoryTogether(t *testing.T, m catalog.Memory) {
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			repo := fmt.Sprint("r/", i%3)
			if _, err := m.Tags(t.Context(), repo, []string{"1", "2"}, catalogtest.Start); err != nil {
				t.Error(err)
			}
			if _, err := m.Digest(t.Context(), repo, catalogtest.Dig([]byte("d")), catalogtest.Start); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// What was seen survives the process; a damaged row is as good as none.
func TestDatabaseSurvives(t *testing.T) {
	dir := t.TempDir()
	d := catalogtest.Dig([]byte("d"))
	first := database(t, dir)
	if _, err := first.Tags(t.Context(), "r/a", []string{"1"}, catalogtest.Start); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Digest(t.Context(), "r/a", d, catalogtest.Start); err != nil {
		t.Fatal(err)
	}
	later := catalogtest.Start.Add(time.Hour)
	second := database(t, dir)
	if got, err := second.Tags(t.Context(), "r/a", []string{"1"}, later); err != nil || !got["1"].Equal(catalogtest.Start) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := second.Digest(t.Context(), "r/a", d, later); err != nil || !got.Equal(catalogtest.Start) {
		t.Errorf("%v, %v", got, err)
	}
}

// A tag that moves every minute does not fill the disk.
func TestDatabaseIsBounded(t *testing.T) {
	m := database(t, t.TempDir())
	at := func(i int) time.Time { return catalogtest.Start.Add(time.Duration(i) * time.Minute) }
	dig := func(i int) image.Digest { return catalogtest.Dig(fmt.Append(nil, i)) }
	other, err := m.Digest(t.Context(), "r/b", dig(0), at(0))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2005 {
		if got, err := m.Digest(t.Context(), "r/a", dig(i), at(i)); err != nil || !got.Equal(at(i)) {
			t.Fatal(got, err)
		}
	}
	// Looked at from the new end: a look at a forgotten one forgets another.
	for i, want := range map[int]time.Time{2004: at(2004), 5: at(5)} {
		if got, err := m.Digest(t.Context(), "r/a", dig(i), at(9999)); err != nil || !got.Equal(want) {
			t.Errorf("%d is known since %v, %v; want %v", i, got, err, want)
		}
	}
	if got, err := m.Digest(t.Context(), "r/a", dig(4), at(9999)); err != nil || !got.Equal(at(9999)) {
		t.Errorf("one of too many is known since %v, %v", got, err)
	}
	if got, err := m.Digest(t.Context(), "r/b", dig(0), at(9999)); err != nil || !got.Equal(other) {
		t.Errorf("one of another repository is known since %v, %v", got, err)
	}
}
