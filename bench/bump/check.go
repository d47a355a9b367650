package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/bump"
	"cairn.dev/cairn/internal/catalog"
	"cairn.dev/cairn/internal/choose"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/forge/forgetest"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/scan"
)

// What a check is made over.
const (
	checkRepositories = 1000 // of code
	checkImages       = 50   // in each
	checkNames        = 500  // repositories of images, each with tags
	checkTags         = 20
	wantCheck         = 30 * time.Second
)

// check measures a look at many repositories of code against our registry. The
// forge is one in memory, so that it is our work that is measured: the first
// look fetches and reads everything, the second finds what changed.
func (s settings) check(ctx context.Context, b *strings.Builder, dir string) error {
	store, closeStore, err := fillRegistry(ctx, filepath.Join(dir, "registry"))
	if err != nil {
		return err
	}
	defer closeStore()
	own, err := catalog.NewOwn(store, nil)
	if err != nil {
		return err
	}
	strangers := &counted{}
	mux, err := catalog.NewMux(catalog.MuxConfig{Own: own, Hosts: []string{"registry.test"}, Others: strangers})
	if err != nil {
		return err
	}
	site := forgetest.NewMemory(clock.Real(), "cairn-bot")
	for i := range checkRepositories {
		files := map[string]string{}
		for dir := range 5 {
			var text strings.Builder
			for k := range checkImages / 5 {
				name := (i*7 + dir*11 + k*13) % checkNames
				fmt.Fprintf(&text, "resource \"kubernetes_pod\" \"p%d\" {\n  spec {\n    container {\n      image = \"registry.test/team/app-%d:1.%d.0\"\n    }\n  }\n}\n\n", k, name, checkTags-1)
			}
			files[fmt.Sprintf("envs/e%d/main.tf", dir)] = text.String()
		}
		site.AddRepository(fmt.Sprintf("team/infra-%d", i), files)
	}
	d, err := db.Open(ctx, db.Config{Path: filepath.Join(dir, "bump.db"), Schema: bump.Schema, Sync: db.Full})
	if err != nil {
		return err
	}
	defer d.Close()
	e, err := bump.New(ctx, bump.Config{Sources: []bump.Source{{Name: "memory", Repositories: []string{"team/*"}, Forge: site}}, Interval: 24 * time.Hour},
		bump.Deps{DB: d, Scanner: scan.New(), Rules: bump.ReadRules, Choose: choose.Choose, Catalog: mux, Clock: clock.Real()})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	start := time.Now()
	go func() { ended <- e.Run(ctx) }()
	for e.Counters().Passes < checkRepositories {
		time.Sleep(5 * time.Millisecond)
	}
	first := time.Since(start)
	start = time.Now()
	err = e.Check(ctx, "")
	again := time.Since(start)
	n := e.Counters()
	stop()
	if err := errors.Join(err, <-ended); err != nil {
		return err
	}
	if want := checkRepositories * checkImages; n.Images != want || n.Failing > 0 {
		return fmt.Errorf("%d images were found and %d repositories fail, want %d and none", n.Images, n.Failing, want)
	}
	fmt.Fprintf(b, `
## A check of many repositories

%d repositories of code with %d images each, all of our registry (%d repositories of images, %d tags each). The forge is one in memory.

| | time | requests to registries | wanted |
|---|---|---|---|
| first look: fetched, read, chosen | %s | %d | |
| check: chosen again | %s | %d | ≤ %s and none: %s |
`, checkRepositories, checkImages, checkNames, checkTags, rounded(first), strangers.n.Load(), rounded(again), strangers.n.Load(), wantCheck,
		verdict(again <= wantCheck && strangers.n.Load() == 0))
	return nil
}

// counted is every registry that is not ours: nobody is to be asked.
type counted struct{ n atomic.Int64 }

var errNobody = errors.New("another registry was asked")

func (c *counted) Tags(context.Context, string) ([]catalog.Tag, error) {
	c.n.Add(1)
	return nil, errNobody
}

func (c *counted) Lookup(context.Context, string, string) (image.Digest, error) {
	c.n.Add(1)
	return "", errNobody
}

func (c *counted) Image(context.Context, string, image.Digest) (catalog.Image, error) {
	c.n.Add(1)
	return catalog.Image{}, errNobody
}

// fillRegistry makes a registry with the images that the code names.
func fillRegistry(ctx context.Context, dir string) (*content.Store, func(), error) {
	disk, err := blob.OpenDisk(dir, blob.DiskConfig{})
	if err != nil {
		return nil, nil, err
	}
	d, err := db.Open(ctx, db.Config{Path: filepath.Join(dir, "registry.db"), Schema: content.Schema, Sync: db.Normal})
	if err != nil {
		return nil, nil, errors.Join(err, disk.Close())
	}
	closeAll := func() { _, _ = d.Close(), disk.Close() }
	store, err := content.New(ctx, content.Config{DB: d, Blobs: disk, Clock: clock.Real()})
	if err != nil {
		closeAll()
		return nil, nil, err
	}
	config := []byte(`{"os":"linux","architecture":"amd64"}`)
	for i := range checkNames {
		repo := fmt.Sprintf("team/app-%d", i)
		if _, err := store.PutBlob(ctx, repo, strings.NewReader(string(config)), digest.FromBytes(config)); err != nil {
			closeAll()
			return nil, nil, err
		}
		for tag := range checkTags {
			body := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[],"annotations":{"n":"%d.%d"}}`,
				image.MediaTypeManifest, digest.FromBytes(config), len(config), i, tag)
			m, err := image.ParseManifest(image.MediaTypeManifest, body)
			if err == nil {
				err = store.PutManifest(ctx, content.Push{Repository: repo, Digest: digest.FromBytes(body), Tags: []string{fmt.Sprintf("1.%d.0", tag)}, MediaType: image.MediaTypeManifest, Body: body, Manifest: m})
			}
			if err != nil {
				closeAll()
				return nil, nil, err
			}
		}
	}
	return store, closeAll, nil
}
