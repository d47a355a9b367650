package api_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/serve/servetest"
)

// A scenario is one call and what it must answer. The calls of a table follow
// one another on one server.
type scenario struct {
	name         string
	method, path string
	body         string
	as           string // account whose secret is used; "" is the server's
	status       int
	wants        []string // in the body
	lacks        []string
}

func (sc scenario) run(t *testing.T, s *servetest.Server, secrets map[string]string) {
	t.Helper()
	name := sc.name
	if name == "" {
		name = sc.method + " " + sc.path
	}
	t.Run(strings.ReplaceAll(name, "/", "|"), func(t *testing.T) {
		h := http.Header{"Content-Type": {"application/json"}}
		secret := s.Secret
		if sc.as != "" {
			secret = secrets[sc.as]
		}
		if secret != "" {
			h.Set("Authorization", "Bearer "+secret)
		}
		r := s.Send(t, sc.method, sc.path, h, []byte(sc.body))
		if r.Status != sc.status {
			t.Errorf("status %d, want %d: %s", r.Status, sc.status, r.Body)
		}
		for _, w := range sc.wants {
			if !strings.Contains(r.Body, w) {
				t.Errorf("the answer lacks %q: %s", w, r.Body)
			}
		}
		for _, w := range sc.lacks {
			if strings.Contains(r.Body, w) {
				t.Errorf("the answer holds %q: %s", w, r.Body)
			}
		}
		if r.Status < 400 {
			return
		}
		if ct := r.Header.Get("Content-Type"); ct != "application/problem+json" {
			t.Errorf("the error has the type %q, want application/problem+json", ct)
		}
		var p wire.Problem
		if err := json.Unmarshal([]byte(r.Body), &p); err != nil || p.Status != r.Status || p.Title == "" || p.Detail == "" {
			t.Errorf("no problem with title, status and detail: %s (%v)", r.Body, err)
		}
	})
}

func TestImages(t *testing.T) {
	s := servetest.Start(t, nil, nil)
	one := s.Push(t, "app/web", "1.0", "one")
	two := s.Push(t, "app/web", "1.1", "two")
	s.Push(t, "lib/tool", "latest", "three")
	index := s.PushManifest(t, "app/web", "multi", image.MediaTypeIndex, fmt.Appendf(nil,
		`{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":1}]}`, image.MediaTypeIndex, image.MediaTypeManifest, two))
	if r := s.Do(t, http.MethodDelete, "/api/v1/tags?ref=app/web:1.1", "application/json", nil); r.Status != http.StatusNoContent {
		t.Fatalf("remove a tag: %d %s", r.Status, r.Body)
	}
	for _, sc := range []scenario{
		{method: "GET", path: "/api/v1/images", status: 200, wants: []string{string(one), string(index), "lib/tool"}, lacks: []string{`"digest":"` + string(two)}},
		{method: "GET", path: "/api/v1/images?parts=true", status: 200, wants: []string{`"digest":"` + string(two)}},
		{method: "GET", path: "/api/v1/images?repository=lib/**", status: 200, wants: []string{"lib/tool"}, lacks: []string{"app/web"}},
		{method: "GET", path: "/api/v1/images?repository=lib/tool", status: 200, wants: []string{"lib/tool"}, lacks: []string{"app/web"}},
		{method: "GET", path: "/api/v1/images?state=expired", status: 200, wants: []string{`"images":[]`}},
		{method: "GET", path: "/api/v1/images?state=gone", status: 422, wants: []string{"query.state"}},
		{method: "GET", path: "/api/v1/images?limit=0", status: 422},
		{method: "GET", path: "/api/v1/images?after=nonsense", status: 400, wants: []string{"next"}},
		{method: "GET", path: "/api/v1/image?ref=app/web:1.0", status: 200, wants: []string{string(one), `"state":"live"`}},
		{method: "GET", path: "/api/v1/image?ref=app/web@" + string(one)[:15], status: 200, wants: []string{string(one)}},
		{method: "GET", path: "/api/v1/image", status: 422, wants: []string{"ref"}},
		{method: "GET", path: "/api/v1/image?ref=App", status: 400, wants: []string{"upper-case"}},
		{method: "GET", path: "/api/v1/image?ref=app/web@sha256:12", status: 400, wants: []string{"hex digits"}},
		{method: "GET", path: "/api/v1/image?ref=app/web:nope", status: 404, wants: []string{"hint", "image ls"}},
		{method: "GET", path: "/api/v1/image?ref=no/such", status: 404},

		{method: "POST", path: "/api/v1/tags", body: `{"ref": "app/web:1.0", "tag": "stable"}`, status: 200, wants: []string{`"stable"`}},
		{method: "POST", path: "/api/v1/tags", body: `{"ref": "app/web:1.0", "tag": "-"}`, status: 400},
		{method: "POST", path: "/api/v1/tags", body: `{"ref": "app/web:1.0"}`, status: 422, wants: []string{"tag"}},
		{method: "POST", path: "/api/v1/tags", body: `{"ref": "app/web:1.0", "tag": "x", "force": true}`, status: 422, wants: []string{"force"}},
		{method: "POST", path: "/api/v1/tags", body: `{"ref": `, status: 400},
		{method: "DELETE", path: "/api/v1/tags?ref=app/web:stable", status: 204},
		{method: "DELETE", path: "/api/v1/tags?ref=app/web:stable", status: 404},
		{method: "DELETE", path: "/api/v1/tags?ref=app/web@" + string(one), status: 400, wants: []string{"repository:tag"}},

		{method: "POST", path: "/api/v1/pins", body: `{"ref": "app/web:1.0", "reason": "audit", "for": "90d"}`, status: 200, wants: []string{"2026-04-01T09:00:00Z", `"by":"open"`}},
		{method: "POST", path: "/api/v1/pins", body: `{"ref": "app/web:1.0", "for": "long"}`, status: 422},
		{method: "GET", path: "/api/v1/pins", status: 200, wants: []string{`"reason":"audit"`}},
		{method: "GET", path: "/api/v1/pins?repository=lib/tool", status: 200, wants: []string{`"pins":[]`}},
		{method: "DELETE", path: "/api/v1/pins?ref=app/web:1.0", status: 204},
		{method: "DELETE", path: "/api/v1/pins?ref=app/web:1.0", status: 404, wants: []string{"not pinned"}},

		{method: "DELETE", path: "/api/v1/image?ref=app/web:1.0&reason=broken", status: 200, wants: []string{string(one)}},
		{name: "clients see it gone", method: "GET", path: "/api/v1/images?repository=app/web", status: 200, lacks: []string{`"digest":"` + string(one)}},
		{method: "DELETE", path: "/api/v1/image?ref=app/web:1.0", status: 404, wants: []string{"was removed at", "restore"}},
		{method: "POST", path: "/api/v1/pins", body: `{"ref": "app/web:1.0"}`, status: 409, wants: []string{"cairn image restore app/web@" + string(one)}},
		{method: "POST", path: "/api/v1/tags", body: `{"ref": "app/web:1.0", "tag": "x"}`, status: 409},
		{method: "GET", path: "/api/v1/audit", status: 200, wants: []string{`"reason":"broken"`, `"actor":"open"`, `"action":"delete"`}},
		{method: "POST", path: "/api/v1/image/restore", body: `{"ref": "app/web:1.0"}`, status: 200, wants: []string{`"tags":["1.0"]`}},
		{method: "POST", path: "/api/v1/image/restore", body: `{"ref": "app/web:1.0"}`, status: 409},
		{method: "GET", path: "/api/v1/audit?limit=1", status: 200, wants: []string{`"action":"restore"`, `"next":`}, lacks: []string{`"delete"`}},
	} {
		sc.run(t, s, nil)
	}
}

// Pages follow one another without a gap or a repetition, whatever happens to
// the last image of one.
func TestPages(t *testing.T) {
	s := servetest.Start(t, nil, nil)
	want := map[string]bool{}
	for repo := range 4 {
		for n := range 5 {
			s.Clock.Advance(time.Second)
			d := s.Push(t, fmt.Sprintf("r%d/x", repo), fmt.Sprint(n), fmt.Sprintf("%d-%d", repo, n))
			want[string(d)] = true
		}
	}
	for _, limit := range []int{1, 3, 5, 7, 20, 100} {
		seen := map[string]bool{}
		var order []string
		after := ""
		for pages := 0; ; pages++ {
			if pages > 30 {
				t.Fatal("the list does not end")
			}
			r := s.Do(t, http.MethodGet, fmt.Sprintf("/api/v1/images?limit=%d&after=%s", limit, after), "", nil)
			var l wire.ImageList
			if err := json.Unmarshal([]byte(r.Body), &l); err != nil {
				t.Fatalf("%v: %s", err, r.Body)
			}
			if len(l.Images) > limit {
				t.Fatalf("a page of %d, the limit is %d", len(l.Images), limit)
			}
			for _, i := range l.Images {
				if seen[string(i.Digest)] {
					t.Errorf("limit %d: %s is listed twice", limit, i.Digest)
				}
				seen[string(i.Digest)] = true
				order = append(order, fmt.Sprintf("%s %d", i.Repository, 1<<62-i.Pushed.UnixNano()))
			}
			if after = l.Next; after == "" {
				break
			}
		}
		if len(seen) != len(want) {
			t.Errorf("limit %d: %d images are listed, want %d", limit, len(seen), len(want))
		}
		for k := 1; k < len(order); k++ {
			if order[k] <= order[k-1] {
				t.Errorf("limit %d: not by repository and then newest first: %s after %s", limit, order[k], order[k-1])
			}
		}
	}
}

func TestUses(t *testing.T) {
	s := servetest.Start(t, nil, nil)
	d := s.Push(t, "app/web", "1.0", "one")
	use := fmt.Sprintf(`{"digest": %q, "source": "container", "subject": "host-a/web"}`, d)
	for _, sc := range []scenario{
		{name: "dated", method: "POST", path: "/api/v1/uses", body: `{"uses": [` + use + `]}`, status: 200, wants: []string{`"accepted":1`, `"applied":true`, `"enrolled":false`}},
		{name: "enrolling", method: "POST", path: "/api/v1/uses", body: `{"reporter": "host-a", "period": "1s", "complete": true, "statement": "a", "uses": [` + use + `]}`, status: 200, wants: []string{`"enrolled":true`, `"period":"5s"`}},
		{name: "restated", method: "POST", path: "/api/v1/uses", body: `{"reporter": "host-a", "period": "5s", "same_as": "a"}`, status: 200},
		{name: "restated, unknown", method: "POST", path: "/api/v1/uses", body: `{"reporter": "host-a", "period": "5s", "same_as": "b"}`, status: 409, wants: []string{"send the statement in full"}},
		{name: "not JSON", method: "POST", path: "/api/v1/uses", body: `{"uses": [`, status: 400},
		{name: "unknown key", method: "POST", path: "/api/v1/uses", body: `{"uzes": []}`, status: 400, wants: []string{"uzes", "uses"}},
		{name: "bad digest", method: "POST", path: "/api/v1/uses", body: `{"uses": [{"digest": "x", "source": "container"}]}`, status: 400, wants: []string{"uses[0].digest"}},
		{name: "in the future", method: "POST", path: "/api/v1/uses", body: fmt.Sprintf(`{"uses": [{"digest": %q, "source": "container", "subject": "x", "at": "2030-01-01T00:00:00Z"}]}`, d), status: 200, wants: []string{"warnings"}},
		{method: "GET", path: "/api/v1/reporters", status: 200, wants: []string{`"name":"host-a"`, `"silent":false`, `"period":"5s"`}},
		{method: "GET", path: "/api/v1/why?ref=app/web:1.0", status: 200, wants: []string{`"code":"in_use"`, "host-a/web"}},
		{method: "GET", path: "/api/v1/why?ref=app/web:nope", status: 200, wants: []string{`"state":"unknown"`}},
		{method: "GET", path: "/api/v1/intervals", status: 200, wants: []string{`"intervals":[]`}},
		{method: "DELETE", path: "/api/v1/reporters?name=host-a", status: 204},
		{method: "DELETE", path: "/api/v1/reporters?name=host-a", status: 404, wants: []string{"cairn cluster ls"}},
	} {
		sc.run(t, s, nil)
	}
}

func TestUsesCompressed(t *testing.T) {
	s := servetest.Start(t, nil, nil)
	compress := func(text []byte) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		z.Write(text)
		z.Close()
		return b.Bytes()
	}
	var many bytes.Buffer
	many.WriteString(`{"uses": [`)
	for n := range 5000 {
		if n > 0 {
			many.WriteByte(',')
		}
		fmt.Fprintf(&many, `{"digest": "sha256:%064x", "source": "container", "subject": "w%d"}`, n, n%10)
	}
	many.WriteString(`]}`)
	whole := compress(many.Bytes())
	bomb := compress(append([]byte(`{"uses": [`), bytes.Repeat([]byte(" "), 70<<20)...))
	for _, tc := range []struct {
		name, encoding string
		body           []byte
		status         int
		wants          string
	}{
		{"gzip", "gzip", whole, 200, `"accepted":5000`},
		{"again, with a used reader", "gzip", whole, 200, `"accepted":5000`},
		{"plain", "", many.Bytes(), 200, `"accepted":5000`},
		{"not gzip", "gzip", []byte("{}"), 400, "not gzip"},
		{"cut short", "gzip", whole[:len(whole)/2], 400, ""},
		{"a bomb", "gzip", bomb, 413, "too large"},
		{"unknown", "br", []byte("{}"), 415, "gzip"},
	} {
		h := http.Header{"Content-Type": {"application/json"}}
		if tc.encoding != "" {
			h.Set("Content-Encoding", tc.encoding)
		}
		r := s.Send(t, http.MethodPost, "/api/v1/uses", h, tc.body)
		if r.Status != tc.status || !strings.Contains(r.Body, tc.wants) {
			t.Errorf("%s: %d %.300s; want %d with %q", tc.name, r.Status, r.Body, tc.status, tc.wants)
		}
	}
}

func TestRetention(t *testing.T) {
	s := servetest.Start(t, nil, nil)
	old := s.Push(t, "app/web", "1.0", "one")
	s.Push(t, "app/web", "2.0", "two")
	s.Push(t, "app/web", "3.0", "three")
	scenario{method: "POST", path: "/api/v1/pins", body: `{"ref": "app/web:2.0"}`, status: 200}.run(t, s, nil)
	for _, sc := range []scenario{
		{method: "GET", path: "/api/v1/retention/plan", status: 200, wants: []string{`{"end":{"at":"2026-01-01T09:00:00Z"`}, lacks: []string{"item"}},
		{method: "GET", path: "/api/v1/retention/plan?all=true", status: 200, wants: []string{`{"item":{"repository":"app/web"`, `"code":"pinned"`, `"action":"keep"`}},
		{method: "GET", path: "/api/v1/retention/plan?at=2026-02-01T00:00:00Z", status: 200, wants: []string{`"action":"expire"`, string(old), `"code":"unused"`}},
		{method: "GET", path: "/api/v1/retention/plan?at=tomorrow", status: 422},
		{method: "POST", path: "/api/v1/retention/run", body: `{}`, status: 200, wants: []string{`"expired":0`}},
		{method: "POST", path: "/api/v1/retention/run", body: `{"no": 1}`, status: 422},
	} {
		sc.run(t, s, nil)
	}
	s.Pass(t, 31*24*time.Hour)
	for _, sc := range []scenario{
		{method: "GET", path: "/api/v1/images?state=expired", status: 200, wants: []string{string(old), `"reason":"not used for`}},
		{method: "GET", path: "/api/v1/status", status: 200, wants: []string{`"expired":2`, `"live":1`, `"last_run"`}},
		{method: "GET", path: "/api/v1/audit", status: 200, wants: []string{`"action":"expire"`}},
		{method: "POST", path: "/api/v1/pins", body: `{"ref": "app/web:1.0"}`, status: 200, wants: []string{`"state":"live"`}},
	} {
		sc.run(t, s, nil)
	}
}

// TestEverythingIsHeld: a policy that was shortened too far is stopped before
// it empties the registry.
func TestEverythingIsHeld(t *testing.T) {
	data := t.TempDir()
	with := func(now time.Time, after time.Duration) *servetest.Server {
		return servetest.Start(t, clock.NewFake(now), func(c *config.Config) {
			c.Data = data
			c.Retention.Policies[0].After = config.Duration(after)
		})
	}
	s := with(servetest.Epoch, 60*24*time.Hour)
	s.Push(t, "app/web", "1.0", "one")
	s.Pass(t, 31*24*time.Hour)
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	s = with(s.Clock.Now(), 30*24*time.Hour)
	s.Pass(t, time.Hour)
	for _, sc := range []scenario{
		{method: "GET", path: "/api/v1/status", status: 200, wants: []string{`"held":{"expire":1,"live":1}`}},
		{method: "POST", path: "/api/v1/retention/run", body: `{}`, status: 428, wants: []string{"--yes"}},
		{method: "POST", path: "/api/v1/retention/run", body: `{"yes": true}`, status: 200, wants: []string{`"expired":1`}},
	} {
		sc.run(t, s, nil)
	}
}

func TestScrub(t *testing.T) {
	s := servetest.Start(t, nil, nil)
	s.Push(t, "app/web", "1.0", "one")
	scenario{method: "POST", path: "/api/v1/scrub", body: `{}`, status: 200, wants: []string{`{"progress":{"done":`, `{"end":{"blobs":2,`, `"manifests":1`}}.run(t, s, nil)
}

func TestAccess(t *testing.T) {
	s := servetest.Start(t, nil, func(c *config.Config) { c.Open, c.Access.AnonymousPull = false, []string{"public/**"} })
	d := s.Push(t, "app/web", "1.0", "one")
	s.Push(t, "secret/web", "1.0", "two")
	s.Push(t, "public/web", "1.0", "three")
	secrets := map[string]string{"nobody": "", "wrong": "cairn_admin_" + strings.Repeat("x", 43)}
	for name, grant := range map[string]string{"reader": `"pull"`, "pusher": `"pull","push"`, "deleter": `"delete"`, "reporter": `"report"`, "boss": `"admin"`} {
		r := s.Do(t, http.MethodPost, "/api/v1/tokens", "application/json", fmt.Appendf(nil, `{"name": %q, "grants": [{"repositories": ["app/**"], "actions": [%s]}]}`, name, grant))
		var created wire.CreatedToken
		if err := json.Unmarshal([]byte(r.Body), &created); err != nil || created.Secret == "" {
			t.Fatalf("create %s: %d %s", name, r.Status, r.Body)
		}
		secrets[name] = created.Secret
	}
	inside := func(repo string) string {
		return fmt.Sprintf(`{"uses": [{"digest": %q, "repository": %q, "source": "container", "subject": "x"}]}`, d, repo)
	}
	for _, sc := range []scenario{
		{as: "nobody", method: "GET", path: "/api/v1/images", status: 200, wants: []string{"public/web"}, lacks: []string{"app/web", "secret/web"}},
		{as: "nobody", method: "GET", path: "/api/v1/image?ref=public/web:1.0", status: 200},
		{as: "nobody", method: "GET", path: "/api/v1/image?ref=app/web:1.0", status: 401},
		{as: "nobody", method: "GET", path: "/api/v1/status", status: 401},
		{as: "nobody", method: "POST", path: "/api/v1/uses", body: inside("app/web"), status: 401},
		{as: "nobody", method: "GET", path: "/api/v1/version", status: 200},
		{as: "wrong", method: "GET", path: "/api/v1/images", status: 401},

		{as: "reader", method: "GET", path: "/api/v1/images", status: 200, wants: []string{"app/web"}, lacks: []string{"secret/web"}},
		{as: "reader", method: "GET", path: "/api/v1/why?ref=app/web:1.0", status: 200},
		{as: "reader", method: "GET", path: "/api/v1/why?ref=secret/web:1.0", status: 403},
		{as: "reader", method: "DELETE", path: "/api/v1/image?ref=app/web:1.0", status: 403, wants: []string{"account reader may not remove"}},
		{as: "reader", method: "POST", path: "/api/v1/tags", body: `{"ref": "app/web:1.0", "tag": "x"}`, status: 403},
		{as: "reader", method: "POST", path: "/api/v1/pins", body: `{"ref": "app/web:1.0"}`, status: 403},
		{as: "reader", method: "POST", path: "/api/v1/uses", body: inside("app/web"), status: 403},
		{as: "reader", method: "GET", path: "/api/v1/tokens", status: 403},

		{as: "pusher", method: "POST", path: "/api/v1/tags", body: `{"ref": "app/web:1.0", "tag": "x"}`, status: 200},
		{as: "pusher", method: "DELETE", path: "/api/v1/tags?ref=app/web:x", status: 403},
		{as: "deleter", method: "DELETE", path: "/api/v1/tags?ref=app/web:x", status: 204},
		{as: "deleter", method: "DELETE", path: "/api/v1/image?ref=secret/web:1.0", status: 403},

		{as: "reporter", method: "POST", path: "/api/v1/uses", body: inside("app/web"), status: 200},
		{as: "reporter", method: "POST", path: "/api/v1/uses", body: inside("secret/web"), status: 403},
		{as: "reporter", method: "GET", path: "/api/v1/reporters", status: 403},

		{name: "admin of some repositories administers those", as: "boss", method: "POST", path: "/api/v1/pins", body: `{"ref": "app/web:1.0"}`, status: 200, wants: []string{`"by":"boss"`}},
		{as: "boss", method: "POST", path: "/api/v1/pins", body: `{"ref": "secret/web:1.0"}`, status: 403},
		{as: "boss", method: "GET", path: "/api/v1/audit?repository=app/web", status: 200},
		{as: "boss", method: "GET", path: "/api/v1/audit", status: 403},
		{as: "boss", method: "POST", path: "/api/v1/retention/run", body: `{"yes": true}`, status: 403},
		{as: "boss", method: "GET", path: "/api/v1/retention/plan", status: 403},
		{as: "boss", method: "POST", path: "/api/v1/scrub", body: `{}`, status: 403},
		{as: "boss", method: "POST", path: "/api/v1/tokens", body: `{"name": "me", "kind": "admin"}`, status: 403},

		{method: "POST", path: "/api/v1/tokens", body: `{"name": "reader", "grants": [{"repositories": ["**"], "actions": ["pull"]}]}`, status: 409},
		{method: "POST", path: "/api/v1/tokens", body: `{"name": "Bad Name", "kind": "admin"}`, status: 400},
		{method: "POST", path: "/api/v1/tokens", body: `{"name": "x", "kind": "king"}`, status: 422},
		{method: "GET", path: "/api/v1/tokens", status: 200, wants: []string{`"name":"reader"`}, lacks: []string{"cairn_", "secret\""}},
		{method: "DELETE", path: "/api/v1/tokens/reader", status: 204},
		{name: "a revoked secret ends at once", as: "reader", method: "GET", path: "/api/v1/images", status: 401},
		{method: "DELETE", path: "/api/v1/tokens/reader", status: 404},
		{method: "DELETE", path: "/api/v1/tokens/admin", status: 409, wants: []string{"last account"}},
	} {
		if sc.as != "" && sc.name == "" {
			sc.name = sc.as + " " + sc.method + " " + sc.path
		}
		sc.run(t, s, secrets)
	}
}

// The document describes every route there is, and only valid names.
func TestOpenAPI(t *testing.T) {
	s := servetest.Start(t, nil, nil)
	r := s.Do(t, http.MethodGet, "/api/openapi.json", "", nil)
	var doc struct {
		OpenAPI    string
		Paths      map[string]map[string]struct{ OperationID, Summary string }
		Components struct{ Schemas map[string]any }
	}
	if err := json.Unmarshal([]byte(r.Body), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.OpenAPI != "3.1.0" {
		t.Errorf("version %q", doc.OpenAPI)
	}
	ids := map[string]bool{}
	n := 0
	for path, ops := range doc.Paths {
		for method, op := range ops {
			n++
			if op.OperationID == "" || op.Summary == "" || ids[op.OperationID] {
				t.Errorf("%s %s has no summary, or no operation id of its own (%q)", method, path, op.OperationID)
			}
			ids[op.OperationID] = true
			// A route that is not there answers with the 404 of the catch-all.
			r := s.Do(t, strings.ToUpper(method), strings.ReplaceAll(path, "{name}", "x"), "application/json", nil)
			if strings.Contains(r.Body, "there is no "+strings.ToUpper(method)) {
				t.Errorf("%s %s is described and not there", method, path)
			}
		}
	}
	if n < 25 {
		t.Errorf("%d routes are described, want 25 at least", n)
	}
	for name := range doc.Components.Schemas {
		if !regexp.MustCompile(`^[A-Za-z0-9]+$`).MatchString(name) {
			t.Errorf("schema name %q", name)
		}
	}
	for _, ref := range regexp.MustCompile(`"#/components/schemas/([^"]+)"`).FindAllStringSubmatch(r.Body, -1) {
		if _, ok := doc.Components.Schemas[ref[1]]; !ok {
			t.Errorf("schema %s is named and not described", ref[1])
		}
	}
}
