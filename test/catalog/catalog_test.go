// Package catalog_test looks at a registry that is not ours, and hears of
// pushes to it, with the registry most people run and a client most people
// use.
//
// It owns that registry while a test runs. What catalog does with registries
// that misbehave is tested in its own folder, and not here.
package catalog_test

import (
	"archive/tar"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/catalog"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/test/parts"
	"cairn.dev/cairn/test/program"
)

// A hooked registry tells feed of pushes.
type hooked struct {
	addr string
	feed *catalog.Feed
}

// distribution runs a registry that calls a webhook with a secret.
func distribution(t *testing.T) hooked {
	t.Helper()
	h := hooked{addr: program.FreeAddress(t), feed: catalog.NewFeed()}
	hook := catalog.Hook{Kind: catalog.HookDistribution, Secret: "s3cret"}
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, catalog.MaxHook))
		if err != nil {
			t.Error(err)
		}
		pushes, err := hook.Read(r.Header, "", body)
		if err != nil {
			t.Errorf("%v\n%s", err, body)
		}
		h.feed.Put(pushes...)
	}))
	t.Cleanup(receiver.Close)

	program.Distribution(t, h.addr, fmt.Sprintf("[{name: cairn, url: %q, headers: {Authorization: [Bearer s3cret]}, timeout: 5s, threshold: 3, backoff: 1s}]", receiver.URL))
	return h
}

// crane runs the client and returns what it prints.
func crane(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(parts.Path(t, "crane"), append([]string{"--insecure"}, args...)...).Output()
	if err != nil {
		text := ""
		if e, ok := err.(*exec.ExitError); ok {
			text = string(e.Stderr)
		}
		t.Fatalf("crane %s: %v\n%s", strings.Join(args, " "), err, text)
	}
	return strings.TrimSpace(string(out))
}

// layer is a tar of one file.
func layer(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "layer.tar")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	if err := w.WriteHeader(&tar.Header{Name: "hello", Mode: 0o644, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return name
}

// A push is heard of, and found by looking.
func TestDistribution(t *testing.T) {
	h := distribution(t)
	name := h.addr + "/team/app"
	remote, err := catalog.NewRemote(catalog.RemoteConfig{Clock: clock.Real(), Log: slog.New(slog.DiscardHandler), Local: true, TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer remote.Close()
	if _, err := remote.Tags(t.Context(), name); err == nil {
		t.Error("a repository that is not there has tags")
	}
	var want []string
	for _, tag := range []string{"1.0", "1.1"} {
		base := crane(t, "append", "--new_layer", layer(t, tag), "--new_tag", h.addr+"/base:"+tag)
		sent := time.Now()
		crane(t, "mutate", base, "--set-platform", "linux/arm64", "--label", "org.opencontainers.image.source=https://git.example/team/app",
			"--annotation", "org.opencontainers.image.revision="+tag, "--tag", name+":"+tag)
		digest := crane(t, "digest", name+":"+tag)
		want = append(want, tag)

		var push catalog.Pushed
		for push.Repository != name {
			got, lost, err := h.feed.Take(t.Context())
			if err != nil || lost {
				t.Fatal(lost, err)
			}
			for _, p := range got {
				if p.Repository == name {
					push = p
				}
			}
		}
		t.Logf("heard of %s:%s %s after crane began", push.Repository, push.Tag, time.Since(sent).Round(time.Millisecond))
		if push.Tag != tag || string(push.Digest) != digest {
			t.Errorf("heard of %+v, want %s@%s", push, tag, digest)
		}
		remote.Forget(push.Repository)
		all, err := remote.Tags(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, tag := range all {
			got = append(got, tag.Name)
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("tags %q, want %q", got, want)
		}
		d, err := remote.Lookup(t.Context(), name, tag)
		if err != nil || string(d) != digest {
			t.Fatalf("%s names %s, %v; want %s", tag, d, err, digest)
		}
		im, err := remote.Image(t.Context(), name, d)
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(im.Platforms) != "[linux/arm64]" || im.Source != "https://git.example/team/app" || im.Revision != tag || im.Size == 0 || im.Since.IsZero() {
			t.Errorf("described as %+v", im)
		}
	}
}
