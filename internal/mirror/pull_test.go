package mirror_test

import (
	"net/http"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/mirror"
)

// Images fetched before anybody needs them are served without the upstream.
func TestPull(t *testing.T) {
	for _, c := range []struct {
		platforms []string
		want      string // of amd64 arm64 arm, those here in the end
		says      string
	}{
		{nil, "amd64 arm64 arm", ""},
		{[]string{"linux/amd64"}, "amd64", ""},
		{[]string{"linux/arm64", "linux/arm"}, "arm64 arm", ""},
		{[]string{"windows/amd64"}, "", "it has linux/amd64, linux/arm64, linux/arm"},
	} {
		t.Run(strings.Join(c.platforms, " "), func(t *testing.T) {
			r := newRig(t, nil)
			children := map[string]image.Digest{}
			var list []image.Descriptor
			for _, arch := range []string{"amd64", "arm64", "arm"} {
				children[arch] = r.push(t, "a/b", nil, "config "+arch, "layer "+arch, "common layer")
				list = append(list, on(arch, children[arch]))
			}
			d := r.put(t, "a/b", []string{"1"}, index(list...))
			var last [2]int64
			got, err := r.mirror.Pull(t.Context(), "docker.io/a/b:1", c.platforms, func(done, total int64) { last = [2]int64{done, total} })
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Fatalf("%v, want %q", err, c.says)
				}
				return
			}
			if err != nil || got.Digest != d || got.Repository != repo || got.Tag != "1" || got.Images != len(strings.Fields(c.want)) || last[0] != last[1] || last[1] != got.Bytes || got.Bytes == 0 {
				t.Fatalf("%+v, %v, progress %v", got, err, last)
			}
			r.set(func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) })
			for arch, child := range children {
				if want := strings.Contains(" "+c.want+" ", " "+arch+" "); r.here(repo, string(child)) != want {
					t.Errorf("%s is here: %v, want %v", arch, !want, want)
				} else if want {
					if a := r.pull(t, "1", arch); a.status != 200 || a.digest() != string(d) {
						t.Errorf("pull for %s: %d %s", arch, a.status, a.body)
					}
				}
			}
			// Again: nothing to do.
			before := len(r.all())
			if again, err := r.mirror.Pull(t.Context(), "docker.io/a/b:1", c.platforms, nil); err != nil || again.Images != got.Images || len(r.all()) != before {
				t.Errorf("again: %+v, %v, %d requests", again, err, len(r.all())-before)
			}
		})
	}
}

func TestPullRefuses(t *testing.T) {
	r := newRig(t, func(c *mirror.Config) { c.Upstreams[0].Allow = []string{"a/**"} })
	r.push(t, "a/b", []string{"1"}, "config")
	for ref, says := range map[string]string{
		"busybox":           "it has no host",
		"ghcr.io/a/b:1":     "ghcr.io is not mirrored here",
		"docker.io/x:1":     "library/x of docker.io may not be fetched",
		"docker.io/a/b:2":   "docker.io does not have a/b:2",
		"docker.io/A/b:2":   "upper-case",
		"docker.io/a/b:2@x": "invalid digest",
	} {
		if _, err := r.mirror.Pull(t.Context(), ref, nil, nil); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", ref, err, says)
		}
	}
	if got, err := r.mirror.Pull(t.Context(), "docker.io/a/b:1", nil, nil); err != nil || got.Images != 1 || !r.here(repo, "1") {
		t.Errorf("%+v, %v", got, err)
	}
}
