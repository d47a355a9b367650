package api_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/serve/servetest"
)

func TestMirrorPull(t *testing.T) {
	up := servetest.Start(t, nil, nil)
	d := up.Push(t, "app/web", "1.0", "one")
	s := servetest.Start(t, nil, func(c *config.Config) {
		c.Open = false
		c.Mirrors = []config.Mirror{{Host: "up.example", URL: up.URL, TTL: config.Duration(time.Minute), Allow: []string{"app/**"}, MaxBlob: 1 << 30}}
	})
	const path = "/api/v1/mirror/pull"
	for _, sc := range []scenario{
		{method: "POST", path: path, body: `{"ref": "up.example/app/web:1.0"}`, status: 200, wants: []string{`{"progress":{"done":0,`, `{"end":{"repository":"up.example/app/web","tag":"1.0","digest":"` + string(d) + `","images":1,`}},
		{method: "POST", path: path, body: `{"ref": "up.example/app/web:2"}`, status: 200, wants: []string{`{"error":`, `"status":404`, "up.example does not have app/web:2"}},
		{method: "POST", path: path, body: `{"ref": "up.example/lib/web:2"}`, status: 200, wants: []string{`{"error":`, `"status":403`, "allow"}},
		{method: "POST", path: path, body: `{"ref": "other.example/app/web:2"}`, status: 200, wants: []string{`{"error":`, `"status":404`, "mirrors of cairn.yaml"}},
		{method: "POST", path: path, body: `{"ref": "App"}`, status: 200, wants: []string{`{"error":`, `"status":400`, "it has no host"}},
		{method: "POST", path: path, body: `{}`, status: 422, wants: []string{"ref"}},
	} {
		sc.run(t, s, nil)
	}
	r := s.Do(t, http.MethodPost, "/api/v1/tokens", "application/json", []byte(`{"name": "node", "grants": [{"repositories": ["**"], "actions": ["pull", "push"]}]}`))
	var created wire.CreatedToken
	if err := json.Unmarshal([]byte(r.Body), &created); err != nil || created.Secret == "" {
		t.Fatalf("make an account: %d %s", r.Status, r.Body)
	}
	scenario{as: "node", method: "POST", path: path, body: `{"ref": "up.example/app/web:1.0"}`, status: 403}.run(t, s, map[string]string{"node": created.Secret})
	scenario{method: "POST", path: path, body: `{"ref": "up.example/app/web:1.0"}`, status: 404, wants: []string{"nothing is mirrored here", "cairn.yaml"}}.run(t, up, nil)
}
