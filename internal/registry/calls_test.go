package registry_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/registry/registrytest"
)

func TestPaths(t *testing.T) {
	run(t, newHandler(t), []row{
		{call: "GET /v2/", status: 200, bytes: []byte("{}"), want: "Docker-Distribution-Api-Version: registry/2.0"},
		{call: "HEAD /v2/", status: 200},
		{call: "POST /v2/", status: 405, code: "UNSUPPORTED", want: "Allow: GET, HEAD", says: "use GET, HEAD"},
		{call: "GET /v2/nothing", status: 404, code: "UNSUPPORTED", says: "/v2/<repository>/manifests/"},
		{call: "POST /v2/a/manifests/x", status: 405, code: "UNSUPPORTED", want: "Allow: GET, HEAD, PUT, DELETE"},
		{call: "PUT /v2/a/blobs/sha256:x", status: 405, code: "UNSUPPORTED", want: "Allow: GET, HEAD, DELETE"},
		{call: "GET /v2/a/blobs/uploads/", status: 405, code: "UNSUPPORTED", want: "Allow: POST"},
		{call: "POST /v2/a/blobs/uploads/1", status: 405, code: "UNSUPPORTED", want: "Allow: GET, PATCH, PUT, DELETE"},
		{call: "DELETE /v2/a/tags/list", status: 405, code: "UNSUPPORTED", want: "Allow: GET, HEAD"},
		{call: "GET /v2/A/manifests/x", status: 400, code: "NAME_INVALID", says: "upper-case"},
		{call: "GET /v2/a..b/manifests/x", status: 400, code: "NAME_INVALID", says: "single '.'"},
		{call: "PUT /v2/../../etc/manifests/x", status: 400, code: "NAME_INVALID"},
		{call: "POST /v2/a/%2e%2e/b/blobs/uploads/", status: 400, code: "NAME_INVALID"},
		{call: "POST /v2/" + strings.Repeat("a", 300) + "/blobs/uploads/", status: 400, code: "NAME_INVALID", says: "300 characters"},
		{call: "GET /v2/a/manifests/-x", status: 400, code: "TAG_INVALID"},
		{call: "GET /v2/a/manifests/" + strings.Repeat("x", 129), status: 400, code: "TAG_INVALID"},
		{call: "GET /v2/a/manifests/md5:abc", status: 400, code: "DIGEST_INVALID", says: "use sha256 or sha512"},
		{call: "GET /v2/a/blobs/md5:abc", status: 400, code: "DIGEST_INVALID", says: "use sha256 or sha512"},
		{call: "HEAD /v2/a/blobs/sha256:abc", status: 400},
		{call: "GET /v2/a/referrers/sha256:abc", status: 400, code: "DIGEST_INVALID", says: "64 hex digits"},
		{call: "GET /v2/a/manifests/x", status: 404, code: "NAME_UNKNOWN", says: "first push"},
		{call: "GET /v2/a/tags/list", status: 404, code: "NAME_UNKNOWN"},
	})
}

func TestPushAndPull(t *testing.T) {
	d := string(registrytest.Digest(manifest))
	size := fmt.Sprint(len(manifest))
	good := "Docker-Content-Digest: " + d + "\nETag: \"" + d + "\"\nContent-Type: " + image.MediaTypeManifest + "\nContent-Length: " + size
	h := newHandler(t)
	run(t, h, pushed("team/app", "v1")[:2])
	run(t, h, []row{
		{call: "PUT /v2/team/app/manifests/v1", header: "Content-Type: " + image.MediaTypeManifest, body: manifest, status: 201,
			want: "Location: /v2/team/app/manifests/" + d + "\nDocker-Content-Digest: " + d + "\nOCI-Subject: \nOCI-Tag: "},
		{call: "GET /v2/team/app/manifests/v1", status: 200, bytes: manifest, want: good},
		{call: "GET /v2/team/app/manifests/" + d, status: 200, bytes: manifest, want: good},
		{call: "GET /v2/team/app/manifests/" + strings.Replace(d, ":", "%3A", 1), status: 200, bytes: manifest, want: good},
		{call: "HEAD /v2/team/app/manifests/v1", status: 200, bytes: []byte{}, want: good},
		{call: "HEAD /v2/team/app/manifests/" + d, status: 200, bytes: []byte{}, want: good},
		{name: "what is stored is served, whatever is accepted",
			call: "GET /v2/team/app/manifests/v1", header: "Accept: " + image.MediaTypeDockerManifest, status: 200, bytes: manifest, want: good},
		{name: "known already",
			call: "GET /v2/team/app/manifests/v1", header: "If-None-Match: \"" + d + "\"", status: 304, bytes: []byte{}, want: "ETag: \"" + d + "\"\nDocker-Content-Digest: " + d},
		{name: "another one known",
			call: "GET /v2/team/app/manifests/v1", header: "If-None-Match: \"sha256:x\"", status: 200, bytes: manifest},
		{call: "GET /v2/team/app/manifests/v2", status: 404, code: "MANIFEST_UNKNOWN", says: "cairn why team/app:v2"},
		{call: "HEAD /v2/team/app/manifests/v2", status: 404, want: "ETag: "},
		{call: "GET /v2/team/app/manifests/" + string(image.EmptyDigest), status: 404, code: "MANIFEST_UNKNOWN", says: "team/app@sha256:"},
		{call: "GET /v2/other/manifests/v1", status: 404, code: "NAME_UNKNOWN"},
	})
}

func TestManifestBySHA512(t *testing.T) {
	d := string(digest.SHA512.FromBytes(manifest))
	h := newHandler(t)
	run(t, h, pushed("app", "short")[:2])
	run(t, h, []row{
		{call: "PUT /v2/app/manifests/" + d + "?tag=long", header: "Content-Type: " + image.MediaTypeManifest, body: manifest, status: 201,
			want: "Docker-Content-Digest: " + d + "\nLocation: /v2/app/manifests/" + d + "\nOCI-Tag: long"},
		{call: "GET /v2/app/manifests/" + d, status: 200, bytes: manifest, want: "Docker-Content-Digest: " + d},
		{call: "GET /v2/app/manifests/long", status: 200, bytes: manifest, want: "Docker-Content-Digest: " + d},
		{call: "PUT /v2/app/manifests/short", header: "Content-Type: " + image.MediaTypeManifest, body: manifest, status: 201,
			want: "Docker-Content-Digest: " + string(registrytest.Digest(manifest))},
	})
}

func TestBadManifests(t *testing.T) {
	large := bytes.Repeat([]byte(" "), 5<<20)
	atLimit := registrytest.Manifest(config)
	atLimit = append(atLimit, bytes.Repeat([]byte(" "), image.MaxManifest-len(atLimit))...)
	typ := "Content-Type: " + image.MediaTypeManifest
	h := newHandler(t)
	run(t, h, []row{
		blobRow("app", config),
		{name: "blobs missing", call: "PUT /v2/app/manifests/v1", header: typ, body: manifest, status: 400, code: "MANIFEST_BLOB_UNKNOWN", says: string(registrytest.Digest(layer))},
		{name: "no JSON", call: "PUT /v2/app/manifests/v1", header: typ, body: []byte("{"), status: 400, code: "MANIFEST_INVALID", says: "JSON"},
		{name: "empty", call: "PUT /v2/app/manifests/v1", header: typ, body: nil, status: 400, code: "MANIFEST_INVALID"},
		{name: "unknown type", call: "PUT /v2/app/manifests/v1", header: "Content-Type: text/plain", body: empty, status: 400, code: "MANIFEST_INVALID", says: "text/plain"},
		{name: "5 MiB", call: "PUT /v2/app/manifests/v1", header: typ, body: large, status: 413, code: "MANIFEST_INVALID", says: "4 MiB"},
		{name: "exactly the limit", call: "PUT /v2/app/manifests/large", header: typ, body: atLimit, status: 201},
		{name: "one byte more", call: "PUT /v2/app/manifests/large", header: typ, body: append(atLimit, ' '), status: 413, code: "MANIFEST_INVALID"},
		{name: "wrong digest", call: "PUT /v2/app/manifests/" + string(image.EmptyDigest), header: typ, body: registrytest.Manifest(config), status: 400, code: "DIGEST_INVALID", says: "not " + string(image.EmptyDigest)},
		{name: "no digest", call: "PUT /v2/app/manifests/sha256:baddigeststring", header: typ, body: registrytest.Manifest(config), status: 400, code: "DIGEST_INVALID"},
		{name: "bad tag", call: "PUT /v2/app/manifests/.v1", header: typ, body: registrytest.Manifest(config), status: 400, code: "TAG_INVALID"},
		{name: "nothing of it was kept", call: "GET /v2/app/manifests/v1", status: 404, code: "MANIFEST_UNKNOWN"},
		{name: "a sparse index is fine", call: "PUT /v2/app/manifests/index", header: "Content-Type: " + image.MediaTypeIndex,
			body:   fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":2}]}`, image.MediaTypeManifest, image.EmptyDigest),
			status: 201},
	})
	// Without a length the limit is found while reading.
	q := httptest.NewRequest("PUT", "/v2/app/manifests/v1", struct{ io.Reader }{bytes.NewReader(large)})
	q.ContentLength = -1
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, q)
	if rec.Code != 413 {
		t.Errorf("5 MiB in chunks: status %d, want 413", rec.Code)
	}
}

func TestTagParameters(t *testing.T) {
	d := string(registrytest.Digest(manifest))
	typ := "Content-Type: " + image.MediaTypeManifest
	query := func(n int) string {
		s := "?"
		for i := range n {
			s += fmt.Sprintf("tag=t%02d&", i)
		}
		return s
	}
	h := newHandler(t)
	run(t, h, pushed("app", "v1"))
	run(t, h, []row{
		{name: "64 tags", call: "PUT /v2/app/manifests/" + d + query(64), header: typ, body: manifest, status: 201},
		{call: "GET /v2/app/manifests/t63", status: 200, bytes: manifest},
		{name: "65 tags", call: "PUT /v2/app/manifests/" + d + query(65), header: typ, body: manifest, status: 414, code: "TAG_INVALID", says: "the limit is 64"},
		{name: "a bad one among them", call: "PUT /v2/app/manifests/" + d + "?tag=good&tag=.bad", header: typ, body: manifest, status: 400, code: "TAG_INVALID"},
		{name: "sets none", call: "GET /v2/app/manifests/good", status: 404, code: "MANIFEST_UNKNOWN"},
	})
	q := httptest.NewRequest("PUT", "/v2/app/manifests/"+d+"?tag=a&tag=b&tag=a", bytes.NewReader(manifest))
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, q)
	if got := rec.Header()["Oci-Tag"]; fmt.Sprint(got) != "[a b]" {
		t.Errorf("OCI-Tag %q, want a and b once each", got)
	}
}

func TestUploads(t *testing.T) {
	d := string(registrytest.Digest(layer))
	other := string(registrytest.Digest(config))
	const chunk = 1024
	part := func(i int) []byte { return layer[i*chunk : min((i+1)*chunk, len(layer))] }
	span := func(i int) string {
		return fmt.Sprintf("Content-Range: %d-%d\nContent-Type: application/octet-stream", i*chunk, min((i+1)*chunk, len(layer))-1)
	}
	start := row{call: "POST /v2/app/blobs/uploads/", status: 202, want: "OCI-Chunk-Min-Length: 1048576\nContent-Length: 0"}
	for name, rows := range map[string][]row{
		"POST and PUT": {
			start,
			{call: "PUT $loc?digest=" + d, body: layer, status: 201, want: "Docker-Content-Digest: " + d + "\nLocation: /v2/app/blobs/" + d},
			{call: "GET $loc", status: 200, bytes: layer},
		},
		"stream": {
			start,
			{call: "PATCH $loc", body: layer, status: 202, want: "Range: 0-2999"},
			{call: "PUT $loc?digest=" + d, status: 201},
			{call: "GET $loc", status: 200, bytes: layer},
		},
		"chunks": {
			start,
			{call: "PATCH $loc", header: span(0), body: part(0), status: 202, want: "Range: 0-1023\nLocation: $loc"},
			{call: "PATCH $loc", header: span(1), body: part(1), status: 202, want: "Range: 0-2047"},
			{call: "GET $loc", status: 204, want: "Range: 0-2047\nLocation: $loc"},
			{call: "PUT $loc?digest=" + d, header: span(2), body: part(2), status: 201},
			{call: "GET $loc", status: 200, bytes: layer},
		},
		"out of order": {
			start,
			{name: "a gap at the start", call: "PATCH $loc", header: span(1), body: part(1), status: 416, code: "BLOB_UPLOAD_INVALID", want: "Range: 0--1\nLocation: $loc", says: "goes on at byte 0"},
			{call: "GET $loc", status: 204, want: "Range: 0--1"},
			{call: "PATCH $loc", header: span(0), body: part(0), status: 202},
			{name: "a gap", call: "PATCH $loc", header: span(2), body: part(2), status: 416, code: "BLOB_UPLOAD_INVALID", want: "Range: 0-1023\nLocation: $loc", says: "goes on at byte 1024"},
			{name: "again", call: "PATCH $loc", header: span(0), body: part(0), status: 416, code: "BLOB_UPLOAD_INVALID", want: "Range: 0-1023"},
			{name: "a gap at the end", call: "PUT $loc?digest=" + d, header: span(2), body: part(2), status: 416, code: "BLOB_UPLOAD_INVALID", want: "Range: 0-1023"},
			{name: "a range that is none", call: "PATCH $loc", header: "Content-Range: nonsense", body: part(1), status: 416, code: "BLOB_UPLOAD_INVALID", want: "Range: 0-1023", says: "such as 0-1023"},
			{name: "a range of another length", call: "PATCH $loc", header: span(1), body: part(1)[1:], status: 400, code: "SIZE_INVALID", says: "Content-Length says 1023"},
			{call: "PATCH $loc", header: span(1), body: part(1), status: 202},
			{call: "PUT $loc?digest=" + d, header: span(2), body: part(2), status: 201},
			{call: "GET $loc", status: 200, bytes: layer},
		},
		"cancel": {
			start,
			{call: "PATCH $loc", body: layer, status: 202},
			{call: "DELETE $loc", status: 204},
			{call: "GET $loc", status: 404, code: "BLOB_UPLOAD_UNKNOWN", says: "start again with POST"},
			{call: "PATCH $loc", body: layer, status: 404, code: "BLOB_UPLOAD_UNKNOWN"},
			{call: "PUT $loc?digest=" + d, body: layer, status: 404, code: "BLOB_UPLOAD_UNKNOWN"},
			{call: "DELETE $loc", status: 404, code: "BLOB_UPLOAD_UNKNOWN"},
		},
		"an upload belongs to its repository": {
			start,
			{call: "PATCH $loc", body: layer, status: 202},
			{call: "POST /v2/b/blobs/uploads/", status: 202},
			{call: "GET /v2/app/blobs/uploads/nothing", status: 404, code: "BLOB_UPLOAD_UNKNOWN"},
		},
		"wrong digest": {
			start,
			{call: "PUT $loc?digest=" + other, body: layer, status: 400, code: "DIGEST_INVALID", says: "nothing was kept"},
			{call: "HEAD /v2/app/blobs/" + other, status: 404},
			{call: "HEAD /v2/app/blobs/" + d, status: 404},
		},
		"wrong digest after a stream": {
			start,
			{call: "PATCH $loc", body: layer, status: 202},
			{call: "PUT $loc?digest=" + other, status: 400, code: "DIGEST_INVALID"},
			{call: "HEAD /v2/app/blobs/" + other, status: 404},
		},
		"wrong digest at once": {
			{call: "POST /v2/app/blobs/uploads/?digest=" + other, body: layer, status: 400, code: "DIGEST_INVALID"},
			{call: "HEAD /v2/app/blobs/" + other, status: 404},
		},
		"no digest": {
			start,
			{call: "PUT $loc", body: layer, status: 400, code: "DIGEST_INVALID", says: "?digest="},
			{call: "PUT $loc?digest=md5:abc", body: layer, status: 400, code: "DIGEST_INVALID", says: "use sha256 or sha512"},
			{call: "PUT $loc?digest=" + d, body: layer, status: 201},
		},
		"algorithm": {
			{call: "POST /v2/app/blobs/uploads/?digest-algorithm=md5", status: 400, code: "DIGEST_INVALID", says: "use sha256 or sha512"},
			{call: "POST /v2/app/blobs/uploads/?digest-algorithm=sha512", status: 202},
			{call: "PATCH $loc", body: layer, status: 202},
			{call: "PUT $loc?digest=" + string(digest.SHA512.FromBytes(layer)), status: 201},
			{call: "GET $loc", status: 200, bytes: layer, want: "Docker-Content-Digest: " + string(digest.SHA512.FromBytes(layer))},
		},
		"the empty blob": {
			start,
			{call: "PUT $loc?digest=" + string(registrytest.Digest(nil)), status: 201},
			{call: "GET $loc", status: 200, bytes: []byte{}, want: "Content-Length: 0"},
		},
		"mount": {
			blobRow("from", layer),
			{call: "HEAD /v2/app/blobs/" + d, status: 404},
			{call: "POST /v2/app/blobs/uploads/?mount=" + d + "&from=from", status: 201, want: "Location: /v2/app/blobs/" + d + "\nDocker-Content-Digest: " + d},
			{call: "GET $loc", status: 200, bytes: layer},
			{name: "from anywhere", call: "POST /v2/any/blobs/uploads/?mount=" + d, status: 201, want: "Location: /v2/any/blobs/" + d},
			{name: "not there", call: "POST /v2/app/blobs/uploads/?mount=" + other + "&from=from", status: 202, want: "Docker-Content-Digest: "},
			{call: "PUT $loc?digest=" + other, body: config, status: 201},
			{name: "from nowhere", call: "POST /v2/app/blobs/uploads/?mount=" + d + "&from=nowhere", status: 202},
			{name: "from no name", call: "POST /v2/app/blobs/uploads/?mount=" + d + "&from=../x", status: 202},
			{name: "no digest", call: "POST /v2/app/blobs/uploads/?mount=sha256:abc&from=from", status: 400, code: "DIGEST_INVALID"},
		},
	} {
		t.Run(name, func(t *testing.T) { run(t, newHandler(t), rows) })
	}
}

func TestChunkLongerThanItsRange(t *testing.T) {
	h := newHandler(t)
	run(t, h, []row{{call: "POST /v2/app/blobs/uploads/", status: 202}})
	for _, c := range []struct {
		span, code, kept string
	}{
		{"0-99", "SIZE_INVALID", "0--1"},
		{"0-2998", "SIZE_INVALID", "0--1"},
		{"0-3000", "BLOB_UPLOAD_INVALID", "0-2999"}, // one is missing: the client can send it yet
	} {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest("POST", "/v2/app/blobs/uploads/", nil))
		loc := rec.Header().Get("Location")
		q := httptest.NewRequest("PATCH", loc, struct{ io.Reader }{bytes.NewReader(layer)})
		q.ContentLength = -1 // in HTTP chunks: the length shows while reading
		q.Header.Set("Content-Range", c.span)
		rec = httptest.NewRecorder()
		h.ServeHTTP(rec, q)
		var e errorBody
		json.Unmarshal(rec.Body.Bytes(), &e)
		if rec.Code != 400 || len(e.Errors) != 1 || e.Errors[0].Code != c.code {
			t.Errorf("3000 bytes as %s: %d %s, want 400 %s", c.span, rec.Code, rec.Body, c.code)
		}
		run(t, h, []row{{call: "GET " + loc, status: 204, want: "Range: " + c.kept}})
	}
}

func TestBlobs(t *testing.T) {
	d := string(registrytest.Digest(layer))
	get := "GET /v2/app/blobs/" + d
	h := newHandler(t)
	run(t, h, []row{
		blobRow("app", layer),
		{call: get, status: 200, bytes: layer, want: "Content-Type: application/octet-stream\nContent-Length: 3000\nDocker-Content-Digest: " + d + "\nETag: \"" + d + "\"\nAccept-Ranges: bytes\nX-Content-Type-Options: nosniff"},
		{call: "HEAD /v2/app/blobs/" + d, status: 200, bytes: []byte{}, want: "Content-Type: application/octet-stream\nContent-Length: 3000\nDocker-Content-Digest: " + d + "\nAccept-Ranges: bytes"},
		{call: get, header: "Range: bytes=0-9", status: 206, bytes: layer[:10], want: "Content-Range: bytes 0-9/3000\nContent-Length: 10"},
		{call: get, header: "Range: bytes=100-", status: 206, bytes: layer[100:], want: "Content-Range: bytes 100-2999/3000"},
		{call: get, header: "Range: bytes=-500", status: 206, bytes: layer[2500:], want: "Content-Range: bytes 2500-2999/3000"},
		{call: get, header: "Range: bytes=2000-5000", status: 206, bytes: layer[2000:], want: "Content-Range: bytes 2000-2999/3000"},
		{call: get, header: "Range: bytes=5000-", status: 416, code: "RANGE_INVALID", want: "Content-Range: bytes */3000\nDocker-Content-Digest: "},
		{call: get, header: "Range: bytes=5-2", status: 416, code: "RANGE_INVALID"},
		{call: get, header: "If-None-Match: \"" + d + "\"", status: 304, bytes: []byte{}},
		{call: "HEAD /v2/app/blobs/" + d, header: "If-None-Match: \"" + d + "\"", status: 304},
		{call: get, header: "Range: bytes=0-9\nIf-Range: \"" + d + "\"", status: 206, bytes: layer[:10]},
		{call: get, header: "Range: bytes=0-9\nIf-Range: \"other\"", status: 200, bytes: layer},
		{call: "GET /v2/other/blobs/" + d, status: 404, code: "BLOB_UNKNOWN"},
		{call: "GET /v2/app/blobs/" + string(image.EmptyDigest), status: 404, code: "BLOB_UNKNOWN", says: "push it, or mount it"},
		{call: "HEAD /v2/app/blobs/" + string(image.EmptyDigest), status: 404},
	})
}

func TestDelete(t *testing.T) {
	d := string(registrytest.Digest(manifest))
	l := string(registrytest.Digest(layer))
	h := newHandler(t)
	run(t, h, pushed("app", "v1"))
	run(t, h, []row{
		{call: "PUT /v2/app/manifests/v2", header: "Content-Type: " + image.MediaTypeManifest, body: manifest, status: 201},
		{call: "DELETE /v2/app/manifests/v1", status: 202},
		{call: "GET /v2/app/manifests/v1", status: 404, code: "MANIFEST_UNKNOWN"},
		{call: "DELETE /v2/app/manifests/v1", status: 404, code: "MANIFEST_UNKNOWN"},
		{name: "the other tag stays", call: "GET /v2/app/manifests/v2", status: 200},
		{call: "DELETE /v2/app/blobs/" + l, status: 409, code: "UNSUPPORTED", says: "delete the manifest first"},
		{call: "DELETE /v2/app/manifests/" + d, status: 202},
		{name: "the tag went with it", call: "HEAD /v2/app/manifests/v2", status: 404},
		{call: "HEAD /v2/app/manifests/" + d, status: 404},
		{call: "DELETE /v2/app/manifests/" + d, status: 404, code: "MANIFEST_UNKNOWN"},
		{call: "DELETE /v2/app/blobs/" + l, status: 202},
		{call: "HEAD /v2/app/blobs/" + l, status: 404},
		{call: "DELETE /v2/app/blobs/" + l, status: 404, code: "BLOB_UNKNOWN"},
		{call: "DELETE /v2/app/blobs/sha256:abc", status: 400, code: "DIGEST_INVALID"},
		{call: "DELETE /v2/app/manifests/sha256:abc", status: 400, code: "DIGEST_INVALID"},
		{call: "DELETE /v2/app/manifests/.x", status: 400, code: "TAG_INVALID"},
	})
}

func TestTags(t *testing.T) {
	h := newHandler(t)
	run(t, h, pushed("app", "b"))
	for _, tag := range []string{"c", "a", "B", "1.0"} {
		run(t, h, []row{{call: "PUT /v2/app/manifests/" + tag, body: manifest, status: 201}})
	}
	list := func(tags string) []byte { return []byte(`{"name":"app","tags":[` + tags + "]}\n") }
	run(t, h, []row{
		{call: "GET /v2/app/tags/list", status: 200, bytes: list(`"1.0","B","a","b","c"`), want: "Content-Type: application/json\nLink: "},
		{call: "GET /v2/app/tags/list?n=2", status: 200, bytes: list(`"1.0","B"`), want: `Link: </v2/app/tags/list?n=2&last=B>; rel="next"`},
		{call: "GET /v2/app/tags/list?n=2&last=B", status: 200, bytes: list(`"a","b"`), want: `Link: </v2/app/tags/list?n=2&last=b>; rel="next"`},
		{call: "GET /v2/app/tags/list?n=2&last=b", status: 200, bytes: list(`"c"`), want: "Link: "},
		{call: "GET /v2/app/tags/list?n=5", status: 200, bytes: list(`"1.0","B","a","b","c"`), want: "Link: "},
		{call: "GET /v2/app/tags/list?last=a", status: 200, bytes: list(`"b","c"`)},
		{name: "after a tag that is not there", call: "GET /v2/app/tags/list?last=aa", status: 200, bytes: list(`"b","c"`)},
		{call: "GET /v2/app/tags/list?last=zzz", status: 200, bytes: list("")},
		{call: "GET /v2/app/tags/list?n=0", status: 200, bytes: list(""), want: "Link: "},
		{call: "GET /v2/app/tags/list?n=-1", status: 400, code: "PAGINATION_NUMBER_INVALID"},
		{call: "GET /v2/app/tags/list?n=x", status: 400, code: "PAGINATION_NUMBER_INVALID"},
		{call: "GET /v2/nothing/tags/list?n=0", status: 404, code: "NAME_UNKNOWN"},
	})
}

func TestCatalog(t *testing.T) {
	h := newHandler(t)
	run(t, h, []row{{call: "GET /v2/_catalog", status: 200, bytes: []byte("{\"repositories\":[]}\n")}})
	for _, r := range []string{"b", "a/b", "c"} {
		run(t, h, pushed(r, "v1"))
	}
	list := func(s string) []byte { return []byte(`{"repositories":[` + s + "]}\n") }
	run(t, h, []row{
		{call: "GET /v2/_catalog", status: 200, bytes: list(`"a/b","b","c"`), want: "Link: "},
		{call: "GET /v2/_catalog?n=1", status: 200, bytes: list(`"a/b"`), want: `Link: </v2/_catalog?n=1&last=a%2Fb>; rel="next"`},
		{call: "GET /v2/_catalog?n=2&last=a%2Fb", status: 200, bytes: list(`"b","c"`), want: "Link: "},
		{call: "GET /v2/_catalog?n=0", status: 200, bytes: list("")},
	})
}

func TestReferrers(t *testing.T) {
	subject := registrytest.Digest(manifest)
	typ := "Content-Type: " + image.MediaTypeManifest
	h := newHandler(t)
	run(t, h, pushed("app", "v1"))
	run(t, h, []row{blobRow("app", empty)})
	base := "GET /v2/app/referrers/" + string(subject)
	none := []byte(`{"schemaVersion":2,"mediaType":"` + image.MediaTypeIndex + `","manifests":[]}` + "\n")
	run(t, h, []row{
		{call: base, status: 200, bytes: none, want: "Content-Type: " + image.MediaTypeIndex + "\nOCI-Filters-Applied: \nLink: "},
		{name: "of a repository that is not known", call: "GET /v2/nothing/referrers/" + string(subject), status: 200, bytes: none},
	})
	want := map[string]string{}
	for i := range 5 {
		a := registrytest.Artifact([]string{"application/vnd.sbom", "application/vnd.sig"}[i%2], subject, fmt.Sprint(i))
		want[string(registrytest.Digest(a))] = fmt.Sprint(i)
		run(t, h, []row{{call: "PUT /v2/app/manifests/" + string(registrytest.Digest(a)), header: typ, body: a, status: 201, want: "OCI-Subject: " + string(subject)}})
	}
	read := func(path string) (map[string]string, http.Header) {
		t.Helper()
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest("GET", path, nil))
		var index struct {
			SchemaVersion int
			MediaType     string
			Manifests     []image.Descriptor
		}
		if err := json.Unmarshal(rec.Body.Bytes(), &index); rec.Code != 200 || err != nil || index.SchemaVersion != 2 || index.MediaType != image.MediaTypeIndex {
			t.Fatalf("%s: %d %v %s", path, rec.Code, err, rec.Body)
		}
		got := map[string]string{}
		for _, m := range index.Manifests {
			if m.Size == 0 || m.MediaType != image.MediaTypeManifest || !strings.HasPrefix(m.ArtifactType, "application/vnd.") {
				t.Errorf("%s: descriptor %+v", path, m)
			}
			got[string(m.Digest)] = m.Annotations["note"]
		}
		return got, rec.Header()
	}
	path := strings.TrimPrefix(base, "GET ")
	if got, head := read(path); fmt.Sprint(got) != fmt.Sprint(want) || head.Get("OCI-Filters-Applied") != "" {
		t.Errorf("referrers %v, want %v", got, want)
	}
	got, head := read(path + "?artifactType=application%2Fvnd.sig")
	if len(got) != 2 || head.Get("OCI-Filters-Applied") != "artifactType" {
		t.Errorf("filtered: %v, %v", got, head)
	}
	// Page by page.
	all, pages := map[string]string{}, 0
	for next := path + "?n=2&artifactType=application%2Fvnd.sbom"; next != ""; pages++ {
		got, head := read(next)
		for k, v := range got {
			all[k] = v
		}
		if head.Get("OCI-Filters-Applied") != "artifactType" {
			t.Errorf("%s: the filter is lost", next)
		}
		next, _, _ = strings.Cut(strings.TrimPrefix(head.Get("Link"), "<"), ">")
		if pages > 5 {
			t.Fatal("the pages do not end")
		}
	}
	if len(all) != 3 || pages != 2 {
		t.Errorf("%d referrers on %d pages, want 3 on 2", len(all), pages)
	}
	run(t, h, []row{{call: base + "?n=-1", status: 400, code: "PAGINATION_NUMBER_INVALID"}})
}

func TestReferrersOfGreatSize(t *testing.T) {
	subject := registrytest.Digest(manifest)
	h := newHandler(t)
	run(t, h, []row{blobRow("app", empty)})
	for i := range 4 {
		a := registrytest.Artifact("application/vnd.sig", subject, fmt.Sprint(i)+strings.Repeat("x", 2<<20))
		run(t, h, []row{{call: "PUT /v2/app/manifests/" + string(registrytest.Digest(a)), body: a, status: 201}})
	}
	seen, pages := 0, 0
	for next := "/v2/app/referrers/" + string(subject); next != "" && pages < 10; pages++ {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest("GET", next, nil))
		if rec.Body.Len() > 4<<20 {
			t.Errorf("%s: %d bytes, clients read 4 MiB", next, rec.Body.Len())
		}
		var index struct{ Manifests []image.Descriptor }
		if err := json.Unmarshal(rec.Body.Bytes(), &index); err != nil {
			t.Fatal(err)
		}
		seen += len(index.Manifests)
		next, _, _ = strings.Cut(strings.TrimPrefix(rec.Header().Get("Link"), "<"), ">")
	}
	if seen != 4 || pages != 4 {
		t.Errorf("%d referrers on %d pages, want 4 on 4", seen, pages)
	}
}
