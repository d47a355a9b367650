// Command bump measures how fast code is read: a generated monorepo of ten
// thousand files of Terraform with two thousand images, cold as a process of
// its own, and warm with one file changed; beside Renovate, which reads the
// same tree; then how long a check of a thousand repositories takes against our
// registry, and a push until it is a pull request on a Gitea.
//
// It owns the generated trees, which say which images are in them, and the
// report. It measures no registry, and nothing is fetched from other machines.
//
//	go run ./bench/bump -o bench/bump.md
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"cairn.dev/cairn/test/parts"
)

type settings struct {
	services int // of 20 files and 4 images each
	rounds   int
	renovate string // its program; "" builds it, "none" leaves it out
	keep     string // a folder for the tree that stays
	pushed   int    // how many tags are pushed to measure the way to a pull request
}

func main() {
	var s settings
	out := flag.String("o", "", "file to write the report to")
	flag.IntVar(&s.services, "services", 500, "services of the monorepo, of 20 files and 4 images each")
	flag.IntVar(&s.rounds, "rounds", 5, "how often each is measured; the median counts")
	flag.StringVar(&s.renovate, "renovate", "", `the program to measure against; built when empty, left out when "none"`)
	flag.StringVar(&s.keep, "keep", "", "leave the tree in this folder")
	flag.IntVar(&s.pushed, "pushes", 100, "tags pushed to measure the way to a pull request on a Gitea; 0 leaves it out")
	flag.Parse()
	if err := run(s, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench/bump:", err)
		os.Exit(1)
	}
}

func run(s settings, out string) error {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "cairn-bench-bump")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Fprintln(os.Stderr, "building cairn")
	cairn, err := parts.Compile(ctx, "cairn", dir)
	if err != nil {
		return err
	}
	repo := filepath.Join(dir, "monorepo")
	if s.keep != "" {
		repo = s.keep
	}
	tree, err := generate(repo, s.services)
	if err != nil {
		return fmt.Errorf("generate the monorepo: %w", err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `# Reading code, measured

    make bench-bump

On %d processors (%s/%s). A monorepo of Terraform: %d files, %.1f MiB, %d images, of which %d are written as one literal where they are used; the others come
through locals, variables, tfvars files, modules, maps with for_each, conditionals, templates and the values of Helm releases.

`, runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, tree.files, float64(tree.bytes)/(1<<20), len(tree.images), tree.literal)
	if err := s.compare(ctx, &b, cairn, repo, tree); err != nil {
		return err
	}
	if err := s.warm(ctx, &b, repo, tree); err != nil {
		return fmt.Errorf("warm: %w", err)
	}
	if err := s.check(ctx, &b, dir); err != nil {
		return fmt.Errorf("check: %w", err)
	}
	if s.pushed > 0 {
		if err := s.latency(&b, cairn); err != nil {
			return fmt.Errorf("latency: %w", err)
		}
	}
	if out == "" {
		_, err := io.WriteString(os.Stdout, b.String())
		return err
	}
	return os.WriteFile(out, []byte(b.String()), 0o644)
}

// verdict says whether a number is what was wanted.
func verdict(met bool) string {
	if met {
		return "met"
	}
	return "**missed**"
}

func rounded(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(time.Millisecond / 10).String()
}
