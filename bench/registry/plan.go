package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/retention"
	"cairn.dev/cairn/internal/usage"
)

// planned is what a child found out by planning.
type planned struct {
	Seconds      float64
	PeakRSS      int64
	Opened       int64 // memory before the plan
	Images       int
	Repositories int
	Expire       int
}

// measurePlan fills a registry and plans its retention, each in a process of
// its own, so that the memory is the plan's.
func measurePlan(ctx context.Context, o options, _ *field) (result, error) {
	repos, images := 100_000, 10
	if o.small {
		repos = 1_000
	}
	dir := filepath.Join(o.dir, "plan")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return result{}, fmt.Errorf("plan: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return result{}, fmt.Errorf("find this program: %w", err)
	}
	fill := exec.CommandContext(ctx, self, "child-fill", dir, strconv.Itoa(repos), strconv.Itoa(images))
	fill.Stderr = os.Stderr
	if err := fill.Run(); err != nil {
		return result{}, fmt.Errorf("fill %d repositories: %w", repos, err)
	}
	var seconds, memory []float64
	var p planned
	for range min(o.rounds, 3) {
		cmd := exec.CommandContext(ctx, self, "child-plan", dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return result{}, fmt.Errorf("plan: %w", err)
		}
		if err := json.Unmarshal(out, &p); err != nil {
			return result{}, fmt.Errorf("read the outcome of a plan: %w", err)
		}
		seconds, memory = append(seconds, p.Seconds), append(memory, float64(p.PeakRSS))
	}
	s, m := median(seconds), median(memory)
	return result{
		name:  "Retention plan",
		title: fmt.Sprintf("Retention plan over %s images in %s repositories, from a cold start", number(float64(p.Images)), number(float64(p.Repositories))),
		rows: []row{
			{"time", s, " s", fmt.Sprintf("%s to expire", number(float64(p.Expire)))},
			{"peak memory", m / (1 << 20), " MiB", fmt.Sprintf("%s with the ledger open, before the plan", bytesText(p.Opened))},
		},
		verdicts: []verdict{{"≤ 10 s and ≤ 1 GiB", fmt.Sprintf("%.1f s, %.0f MiB", s, m/(1<<20)), s <= 10 && m <= 1<<30}},
	}, nil
}

// childFill fills a folder with repositories of ordinary images: a
// configuration and a layer, a tag each, and a use of every other one. ARGS:
// folder, repositories, images in each.
func childFill(ctx context.Context, args []string) error {
	repos, err1 := strconv.Atoi(args[1])
	images, err2 := strconv.Atoi(args[2])
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("sizes: %w", err)
	}
	c := clock.NewFake(time.Now().Add(-40 * 24 * time.Hour))
	r, err := openRooms(ctx, args[0], c)
	if err != nil {
		return err
	}
	defer r.Close()
	put := func(repo string, b []byte) (image.Digest, error) {
		d := image.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(b)))
		_, err := r.content.PutBlob(ctx, repo, bytes.NewReader(b), d)
		return d, err
	}
	config, layer := []byte("{}"), []byte("layer")
	configDigest, err := put("bench/base", config)
	if err != nil {
		return err
	}
	layerDigest, err := put("bench/base", layer)
	if err != nil {
		return err
	}

	var next, done atomic.Int64
	const writers = 128
	errs := make(chan error, writers)
	var mu sync.Mutex
	var uses []usage.Use
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= repos {
					return
				}
				repo := fmt.Sprintf("team-%d/app-%d", i/100, i%100)
				for _, d := range []image.Digest{configDigest, layerDigest} {
					if ok, err := r.content.Mount(ctx, repo, d, "bench/base", nil); err != nil || !ok {
						errs <- fmt.Errorf("mount into %s: %t, %w", repo, ok, err)
						return
					}
				}
				for j := range images {
					d, err := putImage(ctx, r.content, repo, j, configDigest, len(config), layerDigest, len(layer))
					if err != nil {
						errs <- err
						return
					}
					if j%2 == 0 {
						mu.Lock()
						uses = append(uses, usage.Use{Digest: d, Repository: repo, Source: usage.Container, Subject: "host/" + repo, At: c.Now().Add(time.Duration(j) * 3 * 24 * time.Hour)})
						mu.Unlock()
					}
				}
				if n := done.Add(1); n%20_000 == 0 {
					say(fmt.Sprintf("filled %d of %d repositories", n, repos))
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
	}
	// A use from the future would be refused: first the days pass.
	c.Advance(40 * 24 * time.Hour)
	for part := range slices.Chunk(uses, 10_000) {
		if _, err := r.ledger.Report(ctx, usage.Identity{Name: "bench", Scope: []string{"**"}}, usage.Statement{Uses: part}); err != nil {
			return fmt.Errorf("report uses: %w", err)
		}
	}
	return nil
}

func putImage(ctx context.Context, s *content.Store, repo string, j int, config image.Digest, configSize int, layer image.Digest, layerSize int) (image.Digest, error) {
	body := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":%q,"size":%d}],"annotations":{"n":"%s-%d"}}`,
		mediaType, config, configSize, layer, layerSize, repo, j)
	m, err := image.ParseManifest(mediaType, body)
	if err != nil {
		return "", fmt.Errorf("make an image: %w", err)
	}
	d := image.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(body)))
	err = s.PutManifest(ctx, content.Push{Repository: repo, Digest: d, Tags: []string{fmt.Sprintf("v%d", j)}, MediaType: mediaType, Body: body, Manifest: m, Actor: "bench"})
	return d, err
}

// childPlan plans and prints what that took. ARGS: folder.
func childPlan(ctx context.Context, args []string) error {
	c := clock.NewFake(time.Now())
	r, err := openRooms(ctx, args[0], c)
	if err != nil {
		return err
	}
	defer r.Close()
	e := retention.New(retention.Config{
		Explicit: true,
		Policies: []retention.Policy{{Repositories: []string{"**"}, After: 30 * 24 * time.Hour, KeepLast: 2}},
	}, retention.Deps{Content: r.content, Ledger: r.ledger, Clock: c})
	opened, err := peakRSS(os.Getpid())
	if err != nil {
		return err
	}
	start := time.Now()
	sum, err := e.Plan(ctx, c.Now(), nil)
	if err != nil {
		return err
	}
	p := planned{Seconds: time.Since(start).Seconds(), Opened: opened, Images: sum.Images, Repositories: sum.Repositories, Expire: sum.Expire}
	if p.PeakRSS, err = peakRSS(os.Getpid()); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(p)
}
