package serve_test

import (
	"strings"
	"testing"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/serve/servetest"
)

// TestBadNamesReachTheRegistry: names that look like paths to elsewhere are
// refused as names, with the protocol's error, and lead nowhere.
func TestBadNamesReachTheRegistry(t *testing.T) {
	s := servetest.Start(t, clock.NewFake(servetest.Epoch), nil)
	for path, code := range map[string]string{
		"/v2/../../etc/manifests/x":        "NAME_INVALID",
		"/v2/a/../b/manifests/x":           "NAME_INVALID",
		"/v2/a/%2e%2e/b/manifests/x":       "NAME_INVALID",
		"/v2/a//b/manifests/x":             "NAME_INVALID",
		"/v2/a/./b/blobs/uploads/x":        "NAME_INVALID",
		"/v2/../api/v1/status":             "UNSUPPORTED",
		"/v2/a/manifests/..":               "TAG_INVALID",
		"/v2/" + strings.Repeat("a/", 150): "UNSUPPORTED",
	} {
		r := s.Do(t, "GET", path, "", nil)
		if r.Status < 400 || !strings.Contains(r.Body, code) {
			t.Errorf("%s: %d %s, want %s", path, r.Status, r.Body, code)
		}
	}
}
