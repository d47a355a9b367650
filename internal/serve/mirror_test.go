package serve_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/serve/servetest"
)

// A copy of another registry's image lives like any image here: a pull keeps
// it, it expires when nothing used it, and comes back when it is asked for,
// whether its upstream answers or not.
func TestMirroredImagesExpireByLastUse(t *testing.T) {
	up := servetest.Start(t, nil, nil)
	up.Push(t, "app/web", "1.0", "kept")
	up.Push(t, "app/old", "1.0", "not kept")
	s := servetest.Start(t, nil, func(c *config.Config) {
		c.Mirrors = []config.Mirror{{Host: "up.example", URL: up.URL, TTL: config.Duration(time.Minute), Allow: []string{"**"}, MaxBlob: 1 << 30}}
	})
	pull := func(repo string) servetest.Response {
		t.Helper()
		r := s.Do(t, http.MethodGet, "/v2/"+repo+"/manifests/1.0?ns=up.example", "", nil)
		if r.Status != http.StatusOK {
			t.Fatalf("pull %s: %d %s", repo, r.Status, r.Body)
		}
		m, err := image.ParseManifest("", []byte(r.Body))
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range m.Blobs() {
			if b := s.Do(t, http.MethodGet, "/v2/"+repo+"/blobs/"+string(b.Digest)+"?ns=up.example", "", nil); b.Status != http.StatusOK {
				t.Fatalf("pull %s: %d %s", repo, b.Status, b.Body)
			}
		}
		return r
	}
	state := func(repo string) string {
		t.Helper()
		r := s.Do(t, http.MethodGet, "/api/v1/image?ref=up.example/"+repo+":1.0", "", nil)
		for _, st := range []content.State{content.Live, content.Expired, content.Deleted} {
			if strings.Contains(r.Body, `"state":"`+st.String()+`"`) {
				return st.String()
			}
		}
		return r.Body
	}
	pull("app/web")
	pull("app/old")
	for deadline := time.Now().Add(20 * time.Second); state("app/web") != "live" || state("app/old") != "live"; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the images are not here: %s, %s", state("app/web"), state("app/old"))
		}
	}
	s.Pass(t, 20*24*time.Hour)
	pull("app/web")
	s.Pass(t, 11*24*time.Hour)
	if a, b := state("app/web"), state("app/old"); a != "live" || b != "expired" {
		t.Fatalf("after 31 days: what was used is %s, what was not is %s", a, b)
	}
	if err := up.Stop(); err != nil {
		t.Fatal(err)
	}
	// The retries of the first question wait on the clock.
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				s.Clock.Advance(200 * time.Millisecond)
			}
		}
	}()
	if r := pull("app/old"); !strings.Contains(r.Header.Get("Warning"), "up.example does not answer") {
		t.Errorf("without the upstream: warning %q", r.Header.Get("Warning"))
	}
	if got := state("app/old"); got != "live" {
		t.Errorf("after a pull the expired image is %s", got)
	}
}
