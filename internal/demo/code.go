package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/serve"
)

// registryName is what the story's code calls the registry, whose address is
// another one each time.
const registryName = "registry.example.org"

// codeFile is where the story's Terraform names its image.
const codeFile = "prod/main.tf"

const codeText = `locals {
  version = "1.0"
}

resource "kubernetes_deployment" "api" {
  spec {
    template {
      spec {
        container {
          image = "` + registryName + `/shop/api:${local.version}"
        }
      }
    }
  }
}
`

// code is a repository of git that the server watches.
type code struct {
	dir string // a bare repository
	git string // the program
}

// newCode makes a bare repository with one commit in the folder, and tells the
// configuration of it.
func newCode(ctx context.Context, git, dir string, c *config.Config) (*code, error) {
	k := &code{dir: filepath.Join(dir, "shop", "infra"), git: git}
	work := filepath.Join(dir, "work")
	file := filepath.Join(work, filepath.FromSlash(codeFile))
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, fmt.Errorf("make the demo's code: %w", err)
	}
	if err := os.WriteFile(file, []byte(codeText), 0o600); err != nil {
		return nil, fmt.Errorf("make the demo's code: %w", err)
	}
	for _, args := range [][]string{{"-C", work, "init", "-q", "-b", "main"}, {"-C", work, "add", "."}, {"-C", work, "commit", "-q", "-m", "the shop"}, {"clone", "-q", "--bare", work, k.dir}} {
		if _, err := k.run(ctx, args...); err != nil {
			return nil, err
		}
	}
	c.Bump.Aliases = []string{registryName}
	c.Bump.Forges = []config.Forge{{Name: "git", Kind: "git", URL: "file://" + filepath.ToSlash(dir), Repositories: []string{"shop/infra"}}}
	return k, nil
}

// run runs git, by nothing of this machine's configuration.
func (k *code) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, k.git, append([]string{"-c", "user.name=somebody", "-c", "user.email=somebody@example.org", "-c", "commit.gpgsign=false"}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_TERMINAL_PROMPT=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// moves tells how a push moves code: 1.1 is pushed, and a branch has the edit.
// It has a server of its own: the clock of the story passes weeks while git does
// its work.
func (s *story) moves(ctx context.Context, dir string) error {
	s.say("\n6. Terraform in a git repository, which the server is told of (bump.forges), runs")
	s.say("shop/api:1.0. 1.1 is pushed: a branch has the change; elsewhere, a pull request.")
	git, err := exec.LookPath("git")
	if err != nil {
		s.say("  (git is not installed here, so that there is no repository to show it on)")
		return nil
	}
	c := config.Default()
	c.Data, c.Listen, c.Open, c.Work.Pool = filepath.Join(dir, "moves"), "127.0.0.1:0", true, "off"
	k, err := newCode(ctx, git, filepath.Join(dir, "code"), c)
	if err != nil {
		return err
	}
	at, stop, err := s.another(ctx, c)
	if err != nil {
		return err
	}
	defer stop()
	for _, tag := range []string{"1.0", "1.1"} {
		if _, err := at.push(ctx, "shop/api", tag, "the api, "+tag+"\n"); err != nil {
			return err
		}
	}
	branch, err := k.branch(ctx)
	if err != nil {
		return err
	}
	s.say("  $ git diff --unified=0 main %s", branch)
	diff, err := k.run(ctx, "-C", k.dir, "diff", "--unified=0", "main", branch)
	if err != nil {
		return err
	}
	for line := range strings.Lines(diff) {
		if !strings.HasPrefix(line, "diff ") && !strings.HasPrefix(line, "index ") {
			s.say("  %s", strings.TrimRight(line, "\n"))
		}
	}
	if !strings.Contains(diff, "\n-  version = \"1.0\"\n+  version = \"1.1\"\n") {
		return errors.New("the branch does not hold the edit")
	}
	return nil
}

// another is the story with a server of its own, whose clock is the real one;
// stop ends that.
func (s *story) another(ctx context.Context, c *config.Config) (at *story, stop func(), err error) {
	srv, err := serve.New(ctx, serve.Config{Config: *c}, serve.Deps{Log: slog.New(slog.DiscardHandler), Version: serve.Version("")})
	if err != nil {
		return nil, nil, err
	}
	sctx, end := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- srv.Run(sctx) }()
	own := *s
	own.url = srv.URL()
	own.registry = registry{base: own.url, http: http.DefaultClient}
	if own.client, err = client.New(client.Config{Server: own.url}); err != nil {
		end()
		<-served
		return nil, nil, err
	}
	return &own, func() { end(); <-served }, nil
}

// branch waits for the branch with the edit.
func (k *code) branch(ctx context.Context) (string, error) {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		out, err := k.run(ctx, "-C", k.dir, "for-each-ref", "--format=%(refname:short)", "refs/heads/cairn")
		if err != nil {
			return "", err
		}
		if out = strings.TrimSpace(out); out != "" {
			return out, nil
		}
		if err := clock.Sleep(ctx, clock.Real(), 10*time.Millisecond); err != nil {
			return "", err
		}
	}
	return "", errors.New("no branch came within 20 s")
}
