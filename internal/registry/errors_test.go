package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
)

// TestFailures pins what every error of the rooms below is answered as,
// wrapped as it will come.
func TestFailures(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		code   string
	}{
		{&image.NameError{Kind: "repository", Value: "A", Why: "why"}, 400, "NAME_INVALID"},
		{&image.NameError{Kind: "tag", Value: "A", Why: "why"}, 400, "TAG_INVALID"},
		{&image.NameError{Kind: "digest", Value: "A", Why: "why"}, 400, "DIGEST_INVALID"},
		{&image.ManifestError{Why: "why"}, 400, "MANIFEST_INVALID"},
		{&content.MissingBlobsError{Digests: []image.Digest{image.EmptyDigest}}, 400, "MANIFEST_BLOB_UNKNOWN"},
		{&content.MissingBlobsError{}, 400, "MANIFEST_BLOB_UNKNOWN"},
		{&content.RangeError{Offset: 7, Want: 5}, 416, "BLOB_UPLOAD_INVALID"},
		{content.ErrRepositoryUnknown, 404, "NAME_UNKNOWN"},
		{content.ErrManifestUnknown, 404, "MANIFEST_UNKNOWN"},
		{content.ErrBlobUnknown, 404, "BLOB_UNKNOWN"},
		{content.ErrUploadUnknown, 404, "BLOB_UPLOAD_UNKNOWN"},
		{content.ErrUploadBusy, 409, "BLOB_UPLOAD_INVALID"},
		{content.ErrDigestMismatch, 400, "DIGEST_INVALID"},
		{content.ErrBlobInUse, 409, "UNSUPPORTED"},
		{content.ErrCorrupt, 500, "CONTENT_CORRUPT"},
		{content.ErrNoSpace, 507, "DISK_FULL"},
		{content.ErrReadOnly, 503, "UNAVAILABLE"},
		{errStalled, 400, "BLOB_UPLOAD_INVALID"},
		{context.Canceled, 503, "UNAVAILABLE"},
		{errors.New("secret detail of the inside"), 500, "UNKNOWN"},
	} {
		rec := httptest.NewRecorder()
		h := &handler{log: slog.New(slog.DiscardHandler)}
		h.fail(&call{route: route{kindManifest, "app", "v1"}, w: rec, r: httptest.NewRequest("GET", "/v2/app/manifests/v1", nil)}, fmt.Errorf("wrapped: %w", c.err))
		var body struct {
			Errors []struct{ Code, Message string }
		}
		if err := json.Unmarshal(rec.Body.Bytes(), &body); err != nil || len(body.Errors) != 1 {
			t.Errorf("%v: %v: %s", c.err, err, rec.Body)
			continue
		}
		e := body.Errors[0]
		if rec.Code != c.status || e.Code != c.code || e.Message == "" {
			t.Errorf("%v: answered %d %s %q, want %d %s", c.err, rec.Code, e.Code, e.Message, c.status, c.code)
		}
		if strings.Contains(e.Message, "inside") {
			t.Errorf("%v: the client is shown %q", c.err, e.Message)
		}
	}
}

// TestUnknownNames: a name that begins like a host was likely meant for a mirror.
func TestUnknownNames(t *testing.T) {
	for repository, want := range map[string]string{
		"ghcr.io/team/app":        "key mirrors",
		"registry.local_5000/app": "key mirrors",
		"team/app":                "first push",
		"app.v1":                  "first push",
	} {
		f := failureOf(content.ErrRepositoryUnknown, route{repository: repository})
		if f.status != http.StatusNotFound || f.code != codeNameUnknown || !strings.Contains(f.message, want) {
			t.Errorf("%s: %+v, want %q", repository, f, want)
		}
	}
}
