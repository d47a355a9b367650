package upstream

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"cairn.dev/cairn/internal/image"
)

// ReadManifest reads an answer and believes nothing of it: a portal that wants
// to be logged in to answers 200 to everything.
func (u *Client) ReadManifest(resp *http.Response, want image.Digest) ([]byte, *image.Manifest, *Error) {
	defer resp.Body.Close()
	var b bytes.Buffer
	_, err := b.ReadFrom(http.MaxBytesReader(nil, resp.Body, image.MaxManifest+1))
	if err != nil && b.Len() <= image.MaxManifest {
		return nil, nil, Unreachablef(u.host, "broke off in the middle of a manifest: %v", err)
	}
	body := b.Bytes()
	if want != "" && want.Algorithm().FromBytes(body) != want {
		return nil, nil, Unreachablef(u.host, "sent something that is not the manifest %s (%s)", want, Describe(resp))
	}
	m, err := image.ParseManifest(resp.Header.Get("Content-Type"), body)
	if err != nil && want != "" {
		// These are the right bytes, whatever their label says.
		m, err = image.ParseManifest("", body)
	}
	if err != nil {
		return nil, nil, Unreachablef(u.host, "sent something that is no manifest (%s): %v", Describe(resp), err)
	}
	return body, m, nil
}

// Describe says what an answer is and who gave it, for messages.
func Describe(resp *http.Response) string {
	return fmt.Sprintf("%.80s from %s", resp.Header.Get("Content-Type"), resp.Request.URL.Host)
}

// NextPage is the query of the page that follows (RFC 8288). Only that is
// taken from it: the path is known.
func NextPage(h http.Header) string {
	for _, l := range h.Values("Link") {
		target, params, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(l), "<"), ">")
		if !ok || !strings.Contains(strings.ReplaceAll(params, `"`, ""), "rel=next") {
			continue
		}
		if u, err := url.Parse(target); err == nil {
			return u.RawQuery
		}
	}
	return ""
}
