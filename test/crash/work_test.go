package crash_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"cairn.dev/cairn/internal/image"
)

// A world is everything the workers share.
type world struct {
	repos []*repo
	pool  []content // what every worker pushes again and again
	grace time.Duration

	mu sync.Mutex
	// told is when a client was last told that a blob is there, and in which
	// repository: for the grace period it must be.
	told map[told]time.Time
}

type told struct {
	repo string
	blob image.Digest
}

func (w *world) tell(r *repo, g image.Digest) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told[told{r.name, g}] = time.Now()
}

// since is how long ago the oldest of these was told.
func (w *world) since(r *repo, gs []image.Digest) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	var d time.Duration
	for _, g := range gs {
		d = max(d, time.Since(w.told[told{r.name, g}]))
	}
	return d
}

// step does one thing a client of the registry does.
func (w *world) step(p *process, r *repo) error {
	pick := func(m map[digest.Digest]*manifest) digest.Digest {
		keys := slices.Sorted(maps.Keys(m))
		return keys[r.rng.IntN(len(keys))]
	}
	switch n := r.rng.IntN(20); {
	case n < 3 && len(r.tags) > 0:
		tags := slices.Sorted(maps.Keys(r.tags))
		return r.deleteTag(p, tags[r.rng.IntN(len(tags))])
	case n < 6 && len(r.manifests) > 0:
		return r.deleteManifest(p, pick(r.manifests))
	case n < 8 && len(r.manifests) > 0: // another tag
		m := r.manifests[pick(r.manifests)]
		return r.put(p, m.body, m.blobs, []string{w.tag(r)})
	case n < 10 && len(r.manifests) > 0: // a pull
		g := pick(r.manifests)
		a, err := p.want(http.MethodGet, r.url("manifests/%s", g), nil, []int{http.StatusOK})
		if err == nil && digest.FromBytes(a.body) != g {
			err = fmt.Errorf("manifest %s is served with other bytes", g)
		}
		if err != nil {
			return err
		}
		blobs := r.manifests[g].blobs
		return r.wantBlob(p, blobs[r.rng.IntN(len(blobs))])
	default:
		return w.pushImage(p, r)
	}
}

func (w *world) tag(r *repo) string { return "t" + strconv.Itoa(r.rng.IntN(12)) }

func (w *world) pushImage(p *process, r *repo) error {
	start := time.Now()
	type descriptor struct {
		MediaType string       `json:"mediaType"`
		Digest    image.Digest `json:"digest"`
		Size      int          `json:"size"`
	}
	var ds []descriptor
	var blobs []image.Digest
	for range 2 + r.rng.IntN(3) {
		c := content{r.rng.Uint64(), r.rng.IntN(1 << r.rng.IntN(18))}
		if r.rng.IntN(3) == 0 {
			c = w.pool[r.rng.IntN(len(w.pool))]
		}
		g, err := w.pushBlob(p, r, c)
		if err != nil {
			return err
		}
		ds = append(ds, descriptor{"application/octet-stream", g, c.size})
		blobs = append(blobs, g)
	}
	body, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": image.MediaTypeManifest, "config": ds[0], "layers": ds[1:],
	})
	if err != nil {
		return err
	}
	var tags []string
	for range r.rng.IntN(3) {
		if t := w.tag(r); !slices.Contains(tags, t) {
			tags = append(tags, t)
		}
	}
	err = r.put(p, body, blobs, tags)
	if err != nil && !errors.Is(err, errKilled) && strings.Contains(err.Error(), "MANIFEST_BLOB_UNKNOWN") && max(time.Since(start), w.since(r, blobs)) > w.grace/2 {
		// Too slow: the promise to keep the blobs has run out.
		r.maybe = nil
		return nil
	}
	return err
}

// pushBlob uploads in one of the ways there are.
func (w *world) pushBlob(p *process, r *repo, c content) (image.Digest, error) {
	b := c.bytes()
	alg := digest.SHA256
	if c.seed%17 == 0 {
		alg = digest.SHA512
	}
	g := alg.FromBytes(b)
	post := func(query string, body []byte, statuses ...int) (answer, error) {
		return p.want(http.MethodPost, r.url("blobs/uploads/")+query, body, statuses, "Content-Type", "application/octet-stream")
	}
	put := func(location string, body []byte) error {
		_, err := p.want(http.MethodPut, withQuery(location, "digest="+string(g)), body, []int{http.StatusCreated}, "Content-Type", "application/octet-stream")
		return err
	}
	var err error
	switch way := r.rng.IntN(5); way {
	case 0: // ask first
		var a answer
		if a, err = p.want(http.MethodHead, r.url("blobs/%s", g), nil, []int{http.StatusOK, http.StatusNotFound}); err == nil && a.status == http.StatusNotFound {
			_, err = post("?digest="+string(g), b, http.StatusCreated)
		}
	case 1:
		_, err = post("?digest="+string(g), b, http.StatusCreated)
	case 2:
		err = w.pushChunks(p, r, c, g)
	case 3:
		from := w.repos[r.rng.IntN(len(w.repos))]
		var a answer
		if a, err = post("?mount="+string(g)+"&from="+from.name, nil, http.StatusCreated, http.StatusAccepted); err == nil && a.status == http.StatusAccepted {
			err = put(a.header.Get("Location"), b)
		}
	default:
		var a answer
		if a, err = post("", nil, http.StatusAccepted); err == nil {
			err = put(a.header.Get("Location"), b)
		}
	}
	if err == nil {
		w.tell(r, g)
	}
	return g, err
}

func withQuery(location, query string) string {
	if strings.Contains(location, "?") {
		return location + "&" + query
	}
	return location + "?" + query
}

func (w *world) pushChunks(p *process, r *repo, c content, g image.Digest) error {
	a, err := p.want(http.MethodPost, r.url("blobs/uploads/"), nil, []int{http.StatusAccepted})
	if err != nil {
		return err
	}
	r.upload = &upload{location: a.header.Get("Location"), c: c}
	return w.continueUpload(p, r, g)
}

// continueUpload sends what is left of the repository's upload.
func (w *world) continueUpload(p *process, r *repo, g image.Digest) error {
	u, b := r.upload, r.upload.c.bytes()
	for u.acked < len(b) && r.rng.IntN(4) != 0 {
		u.sent = min(len(b), u.acked+1+r.rng.IntN(len(b)/2+1))
		u.at = time.Now()
		a, err := p.want(http.MethodPatch, u.location, b[u.acked:u.sent], []int{http.StatusAccepted},
			"Content-Type", "application/octet-stream", "Content-Range", fmt.Sprintf("%d-%d", u.acked, u.sent-1))
		if err != nil {
			return err
		}
		u.acked, u.location = u.sent, a.header.Get("Location")
	}
	u.sent, u.finishing, u.at = len(b), true, time.Now()
	_, err := p.want(http.MethodPut, withQuery(u.location, "digest="+string(g)), b[u.acked:], []int{http.StatusCreated}, "Content-Type", "application/octet-stream")
	if err == nil {
		r.upload = nil
	}
	return err
}

// resume looks at the upload that was under way when the process died, and
// goes on with it.
func (w *world) resume(p *process, r *repo) error {
	u := r.upload
	if u == nil {
		return nil
	}
	path := u.location
	if i := strings.Index(path, "/v2/"); i > 0 { // the port is another now
		path = path[i:]
	}
	r.upload = nil
	a, err := p.want(http.MethodGet, path, nil, []int{http.StatusNoContent, http.StatusNotFound})
	if err != nil {
		return err
	}
	if a.status == http.StatusNotFound {
		if u.acked > 0 && !u.finishing && time.Since(u.at) < w.grace {
			return fmt.Errorf("the upload %s with %d answered bytes is gone", path, u.acked)
		}
		return nil
	}
	n := 0
	if _, last, ok := strings.Cut(a.header.Get("Range"), "-"); ok {
		if n, err = strconv.Atoi(last); err != nil {
			return fmt.Errorf("upload %s: Range %q", path, a.header.Get("Range"))
		}
		n++
	}
	if n == 1 && u.acked == 0 { // "0-0" says both nothing and one byte
		n = 0
		if u.sent > 0 && u.c.size > 0 {
			return nil
		}
	}
	if n == 0 && u.finishing {
		// It died between the rename and the commit: the bytes are where the
		// blob would be, and the upload, empty again, can be sent anew.
		u.acked = 0
	}
	if n < u.acked || n > u.sent {
		return fmt.Errorf("the upload %s has %d bytes; %d were answered, %d sent", path, n, u.acked, u.sent)
	}
	alg := digest.SHA256
	if u.c.seed%17 == 0 {
		alg = digest.SHA512
	}
	g := alg.FromBytes(u.c.bytes())
	r.upload = &upload{location: path, c: u.c, acked: n, sent: n, at: time.Now()}
	if err := w.continueUpload(p, r, g); err != nil {
		return fmt.Errorf("go on with the upload %s at byte %d: %w", path, n, err)
	}
	w.tell(r, g)
	return nil
}

// wantTold looks at what clients were told shortly before the process died.
func (w *world) wantTold(p *process) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for t, at := range w.told {
		if time.Since(at) > w.grace {
			delete(w.told, t)
			continue
		}
		a, err := p.want(http.MethodHead, "/v2/"+t.repo+"/blobs/"+string(t.blob), nil, []int{http.StatusOK, http.StatusNotFound})
		if err != nil {
			return err
		}
		if a.status == http.StatusNotFound && time.Since(at) < w.grace {
			return fmt.Errorf("%s in %s was acknowledged %v ago and is gone", t.blob, t.repo, time.Since(at))
		}
	}
	return nil
}

func newWorld(seed uint64, workers int, grace time.Duration) *world {
	w := &world{grace: grace, told: map[told]time.Time{}}
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 12 {
		w.pool = append(w.pool, content{rng.Uint64(), rng.IntN(64 << 10)})
	}
	for i := range workers {
		w.repos = append(w.repos, newRepo(fmt.Sprintf("team-%d/app", i), rand.New(rand.NewPCG(seed, uint64(i)+1))))
	}
	return w
}
