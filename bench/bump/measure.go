package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"cairn.dev/cairn/internal/code"
	"cairn.dev/cairn/internal/scan"
	"cairn.dev/cairn/test/parts"
)

// Wanted of the numbers.
const (
	wantCold   = 8 * time.Second
	wantMemory = 500 << 20
	wantWarm   = 200 * time.Millisecond
	wantFaster = 20.0
	wantMore   = 2.0
)

// A reading is what one program made of the tree.
type reading struct {
	took   time.Duration
	memory int64 // the largest resident set of the process and its children
	found  int   // of the tree's images
	others int   // that it has besides
}

// compare measures whole processes.
func (s settings) compare(ctx context.Context, b *strings.Builder, cairn, repo string, tree *monorepo) error {
	rounds := s.rounds
	ours, err := median(rounds, func() (reading, error) {
		return process(ctx, repo, tree, nil, cairnImages, cairn, "scan", "-o", "json", repo)
	})
	if err != nil {
		return fmt.Errorf("cairn: %w", err)
	}
	fmt.Fprintf(b, "| | time | memory (RSS) | images found |\n|---|---|---|---|\n| `cairn scan` | %s | %d MiB | %d |\n", rounded(ours.took), ours.memory>>20, ours.found)
	theirs := reading{}
	if s.renovate != "none" {
		program := s.renovate
		if program == "" {
			if program, err = parts.Build(ctx, "renovate", os.Stderr); err != nil {
				return fmt.Errorf("renovate: %w", err)
			}
		}
		if err := asRepository(ctx, repo); err != nil {
			return err
		}
		theirs, err = median(min(rounds, 3), func() (reading, error) {
			return process(ctx, repo, tree, []string{"LOG_FORMAT=json", "LOG_LEVEL=debug"}, renovateImages, program, "--platform=local", "--dry-run=extract")
		})
		if err != nil {
			return fmt.Errorf("renovate: %w", err)
		}
		fmt.Fprintf(b, "| `renovate --platform=local --dry-run=extract` | %s | %d MiB | %d |\n", rounded(theirs.took), theirs.memory>>20, theirs.found)
	}
	fmt.Fprintf(b, "\nThe median of %d rounds, each a process of its own; the files are in the cache of the system. An image counts as found when repository and version are known.\n\n", rounds)
	fmt.Fprintf(b, "| wanted | measured | |\n|---|---|---|\n")
	fmt.Fprintf(b, "| all images, nothing else | %d of %d, and %d others | %s |\n", ours.found, len(tree.images), ours.others, verdict(ours.found == len(tree.images) && ours.others == 0))
	fmt.Fprintf(b, "| cold ≤ %s | %s | %s |\n", wantCold, rounded(ours.took), verdict(ours.took <= wantCold))
	fmt.Fprintf(b, "| ≤ %d MiB | %d MiB | %s |\n", wantMemory>>20, ours.memory>>20, verdict(ours.memory <= wantMemory))
	if s.renovate != "none" {
		faster, more := theirs.took.Seconds()/ours.took.Seconds(), float64(ours.found)/float64(max(theirs.found, 1))
		fmt.Fprintf(b, "| ≥ %.0f× faster than Renovate | %.1f× | %s |\n", wantFaster, faster, verdict(faster >= wantFaster))
		fmt.Fprintf(b, "| ≥ %.0f× its images | %.2f× | %s |\n", wantMore, more, verdict(more >= wantMore))
	}
	return nil
}

// median runs f several times and returns the reading with the median time.
func median(rounds int, f func() (reading, error)) (reading, error) {
	var list []reading
	for range rounds {
		r, err := f()
		if err != nil {
			return reading{}, err
		}
		fmt.Fprintf(os.Stderr, "  %s, %d MiB, %d found\n", rounded(r.took), r.memory>>20, r.found)
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b reading) int { return int(a.took - b.took) })
	return list[len(list)/2], nil
}

// process runs a program on the tree, and has what it printed understood.
func process(ctx context.Context, repo string, tree *monorepo, env []string, images func([]byte) ([]string, error), argv ...string) (reading, error) {
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var out, log bytes.Buffer
	c.Dir, c.Env, c.Stdout, c.Stderr = repo, append(os.Environ(), env...), &out, &log
	began := time.Now()
	err := c.Run()
	r := reading{took: time.Since(began)}
	if err != nil {
		return r, fmt.Errorf("%s: %w: %s", argv[0], err, tail(append(out.Bytes(), log.Bytes()...)))
	}
	if u, ok := c.ProcessState.SysUsage().(*syscall.Rusage); ok {
		r.memory = u.Maxrss << 10 // kilobytes, on Linux
	}
	list, err := images(out.Bytes())
	if err != nil {
		return r, err
	}
	r.found, r.others = tree.count(list)
	return r, nil
}

func tail(b []byte) []byte { return b[max(len(b)-2000, 0):] }

// count says how many images of the tree are in the list, and how many are not.
func (m *monorepo) count(list []string) (found, others int) {
	in := map[string]bool{}
	for _, v := range m.images {
		in[v] = true
	}
	for _, v := range list {
		if in[v] {
			found++
			delete(in, v) // counted once
		} else {
			others++
		}
	}
	return found, others
}

func cairnImages(out []byte) ([]string, error) {
	var v struct {
		Images []code.Image `json:"images"`
	}
	if err := json.Unmarshal(out, &v); err != nil {
		return nil, fmt.Errorf("what cairn scan printed: %w", err)
	}
	return values(v.Images), nil
}

func values(images []code.Image) []string {
	var list []string
	for _, i := range images {
		list = append(list, i.Value)
	}
	return list
}

// renovateImages reads its log, in which one line has what was extracted.
func renovateImages(out []byte) ([]string, error) {
	var list []string
	seen := false
	for line := range bytes.Lines(out) {
		var l struct {
			PackageFiles map[string][]struct {
				Deps []struct {
					DepName, PackageName, CurrentValue, CurrentDigest, Datasource, SkipReason string
				} `json:"deps"`
			} `json:"packageFiles"`
		}
		if !bytes.Contains(line, []byte(`"packageFiles"`)) || json.Unmarshal(line, &l) != nil || l.PackageFiles == nil {
			continue
		}
		seen, list = true, nil // the last one counts
		for _, files := range l.PackageFiles {
			for _, f := range files {
				for _, d := range f.Deps {
					if d.Datasource == "docker" && d.SkipReason == "" {
						list = append(list, d.DepName+":"+d.CurrentValue)
					}
				}
			}
		}
	}
	if !seen {
		return nil, fmt.Errorf("no line of its log has what was extracted: %s", tail(out))
	}
	return list, nil
}

// asRepository makes the tree a repository of git, which Renovate asks for.
func asRepository(ctx context.Context, dir string) error {
	if _, err := os.Stat(filepath.Join(dir, ".git")); err == nil {
		return nil
	}
	for _, args := range [][]string{{"init", "-q"}, {"add", "."}, {"-c", "user.name=bench", "-c", "user.email=bench@example.com", "commit", "-q", "-m", "tree"}} {
		c := exec.CommandContext(ctx, "git", args...)
		c.Dir = dir
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("git %s: %w: %s", args[0], err, out)
		}
	}
	return nil
}

// warm measures a process that has read the tree, after one file changed.
func (s settings) warm(ctx context.Context, b *strings.Builder, repo string, tree *monorepo) error {
	folder, err := scan.OpenFolder(repo, nil, nil)
	if err != nil {
		return err
	}
	scanner := scan.New()
	read := func() (load, whole time.Duration, images []code.Image, err error) {
		began := time.Now()
		l, err := folder.Load(ctx)
		if err != nil {
			return 0, 0, nil, err
		}
		load = time.Since(began)
		r, err := scanner.Scan(ctx, l.Tree, code.Options{})
		if err != nil {
			return 0, 0, nil, err
		}
		return load, time.Since(began), r.Images, nil
	}
	if _, _, _, err := read(); err != nil {
		return err
	}
	type pair struct{ load, whole time.Duration }
	var list []pair
	name := filepath.Join(repo, tree.one)
	was, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	repository := tree.oneImage[:strings.LastIndexByte(tree.oneImage, ':')]
	for i := range s.rounds {
		want := fmt.Sprintf("%s:9.%d.0", repository, i)
		if err := os.WriteFile(name, bytes.Replace(was, []byte(tree.oneImage), []byte(want), 1), 0o644); err != nil {
			return err
		}
		load, whole, images, err := read()
		if err != nil {
			return err
		}
		if !slices.Contains(values(images), want) {
			return fmt.Errorf("%s was not found after %s changed", want, tree.one)
		}
		list = append(list, pair{load, whole})
	}
	if err := os.WriteFile(name, was, 0o644); err != nil {
		return err
	}
	slices.SortFunc(list, func(a, b pair) int { return int(a.whole - b.whole) })
	m := list[len(list)/2]
	fmt.Fprintf(b, "| warm, one file changed, ≤ %s | %s, of which %s looks for changed files | %s |\n", wantWarm, rounded(m.whole), rounded(m.load), verdict(m.whole <= wantWarm))
	return nil
}
