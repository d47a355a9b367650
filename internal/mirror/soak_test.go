package mirror_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/mirror"
	"cairn.dev/cairn/internal/registry/registrytest"
)

// Nodes pull, tags move, the upstream fails in every way it can, at random.
// Whatever a client believes to have is right; and when all is well again, what
// is here is what is there.
func TestSoak(t *testing.T) {
	rounds := 150
	if os.Getenv("CAIRN_SOAK") != "" {
		rounds *= 10
	}
	r := newRig(t, func(c *mirror.Config) { c.Timeout = 100 * time.Millisecond })
	r.run(t)
	archs := []string{"amd64", "arm64", "arm"}
	tags := []string{"1", "2", "latest"}
	version := 0
	var mu sync.Mutex // of version and the names there
	names := map[string]image.Digest{}
	ever := map[string]bool{}
	move := func(tag string) {
		mu.Lock()
		defer mu.Unlock()
		version++
		var d image.Digest
		switch version % 3 {
		case 0: // an image for one platform
			d = r.push(t, "a/b", []string{tag}, fmt.Sprint("config ", version), fmt.Sprint("layer ", version))
		default:
			var list []image.Descriptor
			for i, arch := range archs {
				v := version
				if i == version%2 { // this one did not change
					v = version / 4
				}
				list = append(list, on(arch, r.push(t, "a/b", nil, fmt.Sprintf("config %s %d", arch, v), fmt.Sprintf("layer %s %d", arch, v), noise(10_000))))
			}
			d = r.put(t, "a/b", []string{tag}, index(list...))
		}
		names[tag] = d
		ever[tag+string(d)] = true
	}
	for _, tag := range tags {
		move(tag)
	}

	var faults atomic.Int32 // in a hundred requests
	r.set(func(w http.ResponseWriter, q *http.Request) bool {
		if rand.IntN(100) >= int(faults.Load()) {
			return false
		}
		switch rand.IntN(8) {
		case 0:
			w.WriteHeader(http.StatusInternalServerError)
		case 1:
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		case 2:
			http.NotFound(w, q)
		case 3:
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<html>")
		case 4:
			_, _ = io.WriteString(w, "{}")
		case 5:
			<-q.Context().Done()
		case 6: // cut in the middle
			w.Header().Set("Content-Length", "10000")
			_, _ = io.WriteString(w, noise(5000))
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		default:
			panic(http.ErrAbortHandler)
		}
		return true
	})

	get := func(path string, blob bool) (answer, bool) {
		a := r.get(t, path)
		switch a.status {
		case 200:
		case 404, 429, 502, 503:
			return a, false
		default:
			t.Errorf("GET %s: %d %s", path, a.status, a.body)
			return a, false
		}
		if a.err != nil {
			return a, false // it knows
		}
		if d := registrytest.Digest(a.body); string(d) != a.digest() || blob && !strings.HasSuffix(path, string(d)) {
			t.Errorf("GET %s: %s with the bytes of %s", path, a.digest(), d)
		}
		return a, true
	}
	pull := func(tag, arch string) bool {
		a, ok := get("/v2/"+repo+"/manifests/"+tag, false)
		if !ok {
			return false
		}
		mu.Lock()
		known := ever[tag+a.digest()]
		mu.Unlock()
		if !known {
			t.Errorf("tag %s names %s, which it never did there", tag, a.digest())
		}
		for {
			m, err := image.ParseManifest("", a.body)
			if err != nil {
				t.Error(err)
				return false
			}
			if !m.Index {
				for _, b := range m.Blobs() {
					if _, ok := get(blobPath+string(b.Digest), true); !ok {
						return false
					}
				}
				return true
			}
			for _, c := range m.Children {
				if c.Platform.Architecture == arch {
					if a, ok = get("/v2/"+repo+"/manifests/"+string(c.Digest), false); !ok {
						return false
					}
				}
			}
		}
	}
	var all sync.WaitGroup
	var good, bad atomic.Int64
	for node := range 6 {
		all.Go(func() {
			for range rounds {
				switch rand.IntN(20) {
				case 0:
					move(tags[rand.IntN(len(tags))])
				case 1:
					faults.Store([]int32{0, 10, 40, 100}[rand.IntN(4)])
				case 2, 3:
					r.clock.Advance(time.Duration(rand.IntN(90)) * time.Second)
				}
				if pull(tags[rand.IntN(len(tags))], archs[node%len(archs)]) {
					good.Add(1)
				} else {
					bad.Add(1)
				}
			}
		})
	}
	all.Wait()
	t.Logf("%d pulls went well, %d did not; %d requests to the upstream", good.Load(), bad.Load(), len(r.all()))
	if good.Load() == 0 || bad.Load() == 0 {
		t.Error("this tells nothing")
	}
	faults.Store(0)
	for _, tag := range tags {
		until(t, "tag "+tag+" is here as it is there", func() bool {
			r.clock.Advance(2 * time.Minute)
			for _, arch := range archs {
				if !pull(tag, arch) {
					return false
				}
			}
			i, err := r.local.Peek(t.Context(), repo, tag)
			return err == nil && i.Digest == names[tag]
		})
	}
	r.mirror.Close()
	if st, err := r.local.Stats(t.Context()); err != nil || st.Uploads != 0 {
		t.Errorf("%d uploads are left over, %v", st.Uploads, err)
	}
	if rep, err := r.local.Scrub(t.Context(), nil); err != nil || len(rep.Corrupt)+len(rep.Missing)+len(rep.CorruptManifests)+len(rep.Orphans) > 0 {
		t.Errorf("scrub: %+v, %v", rep, err)
	}
}
