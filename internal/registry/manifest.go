package registry

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
)

// isDigest tells a digest from a tag, which cannot hold a colon.
func isDigest(reference string) bool { return strings.IndexByte(reference, ':') >= 0 }

func checkReference(reference string) error {
	if isDigest(reference) {
		_, err := image.ParseDigest(reference)
		return err
	}
	return image.CheckTag(reference)
}

// getManifest answers GET and HEAD. This is the hot path: one look into
// content's cache, the pull noted in memory, and headers assigned in one
// allocation.
func (h *handler) getManifest(c *call) error {
	var m *content.Manifest
	var warning string
	var err error
	counts := c.who == nil || c.who.Counts
	switch {
	case c.mirrored:
		m, warning, err = h.mirror.Manifest(c.r.Context(), c.repository, c.arg, c.r.Method == http.MethodGet)
	case counts:
		m, err = h.content.Manifest(c.r.Context(), c.repository, c.arg)
	default: // what a scanner looks at stays where it is
		m, err = h.content.LiveManifest(c.r.Context(), c.repository, c.arg)
	}
	if err != nil {
		// Only now, so that what is there is not looked at twice.
		if bad := checkReference(c.arg); bad != nil {
			return bad
		}
		return err
	}
	if counts && h.pulls != nil {
		// A 304 below is a pull as well: a node asked whether what it is
		// about to start is still right.
		h.pulls.Pull(c.repository, m.Digest, c.actor())
	}
	head := c.w.Header()
	d := string(m.Digest)
	vals := [...]string{d, `"` + d + `"`, m.MediaType, strconv.Itoa(len(m.Body))}
	head["Docker-Content-Digest"] = vals[0:1:1]
	head["Etag"] = vals[1:2:2]
	if h.expires != nil {
		if at, soon := h.expires(c.repository, m.Digest); soon {
			head["Warning"] = []string{expiryWarning(c.repository, d, at, counts)}
		}
	}
	if warning != "" {
		head["Warning"] = append(head["Warning"], warningValue(warning))
	}
	if match := c.r.Header["If-None-Match"]; match != nil && etagMatches(match[0], d) {
		c.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	head["Content-Type"] = vals[2:3:3]
	head["Content-Length"] = vals[3:4:4]
	if c.r.Method == http.MethodHead {
		return nil
	}
	_, _ = c.w.Write(m.Body) // the client may be gone: nobody to tell
	return nil
}

// expiryWarning is a Warning header (distribution-spec, "Warnings"): people
// see it in the output of their client.
func expiryWarning(repository, d string, at time.Time, counts bool) string {
	cure := "this pull is a use and keeps it"
	if !counts {
		cure = "pulls of this account do not count as a use; to keep it, run it, or pin it with 'cairn image pin'"
	}
	return fmt.Sprintf(`299 - "%s@%s was about to expire at %s because nothing used it; %s"`, repository, d, at.UTC().Format("2006-01-02 15:04 UTC"), cure)
}

func (h *handler) putManifest(c *call) error {
	tags, err := pushedTags(c)
	if err != nil {
		return err
	}
	body, err := h.readManifest(c)
	if err != nil {
		return err
	}
	d := digest.SHA256.FromBytes(body)
	if isDigest(c.arg) {
		named, err := image.ParseDigest(c.arg)
		if err != nil {
			return err
		}
		if got := named.Algorithm().FromBytes(body); got != named {
			return failf(http.StatusBadRequest, codeDigestInvalid,
				"the manifest has the digest %s, not %s: push the bytes unchanged, or by a tag", got, named)
		}
		d = named
	}
	m, err := image.ParseManifest(c.r.Header.Get("Content-Type"), body)
	if err != nil {
		return err
	}
	err = h.content.PutManifest(c.r.Context(), content.Push{
		Repository: c.repository,
		Digest:     d,
		Tags:       tags,
		MediaType:  m.MediaType,
		Body:       body,
		Manifest:   m,
		Actor:      c.actor(),
	})
	if err != nil {
		return err
	}
	head := c.w.Header()
	head["Location"] = []string{"/v2/" + c.repository + "/manifests/" + string(d)}
	head["Docker-Content-Digest"] = []string{string(d)}
	head["Content-Length"] = valZero
	if m.Subject != nil {
		head["Oci-Subject"] = []string{string(m.Subject.Digest)}
	}
	if isDigest(c.arg) && len(tags) > 0 {
		head["Oci-Tag"] = tags
	}
	c.w.WriteHeader(http.StatusCreated)
	return nil
}

// pushedTags are the tag of the path and those of ?tag=.
func pushedTags(c *call) ([]string, error) {
	var tags []string
	if !isDigest(c.arg) {
		tags = append(tags, c.arg)
	}
	if c.r.URL.RawQuery != "" {
		tags = append(tags, c.r.URL.Query()["tag"]...)
	}
	seen := make(map[string]bool, len(tags))
	unique := tags[:0]
	for _, t := range tags {
		if err := image.CheckTag(t); err != nil {
			return nil, err
		}
		if !seen[t] {
			seen[t] = true
			unique = append(unique, t)
		}
	}
	if len(unique) > MaxTags {
		return nil, failf(http.StatusRequestURITooLong, codeTagInvalid, "%d tags in one push: the limit is %d; push again with the rest", len(unique), MaxTags)
	}
	return unique, nil
}

// readManifest reads the body up to the limit.
func (h *handler) readManifest(c *call) ([]byte, error) {
	in := h.patientBody(c)
	if c.r.ContentLength > image.MaxManifest {
		return nil, tooLarge(c, in)
	}
	// It grows with what comes and not with what Content-Length promises.
	var body bytes.Buffer
	_, err := body.ReadFrom(io.LimitReader(in, image.MaxManifest+1))
	switch {
	case body.Len() > image.MaxManifest:
		return nil, tooLarge(c, in)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, errStalled):
		return nil, failf(http.StatusBadRequest, codeManifestInvalid, "the body ended early (%v): send the manifest again", err)
	}
	return body.Bytes(), err
}

// tooLarge throws away some of what is too much, because most clients look at
// the answer only once they have sent all they have.
func tooLarge(c *call, rest io.Reader) error {
	if c.r.Header.Get("Expect") == "" { // who expects an answer first has sent nothing yet
		_, _ = io.Copy(io.Discard, io.LimitReader(rest, 4*image.MaxManifest))
	}
	size := "more than that"
	if c.r.ContentLength > 0 {
		size = strconv.FormatInt(c.r.ContentLength, 10)
	}
	return failf(http.StatusRequestEntityTooLarge, codeManifestInvalid,
		"a manifest may have %d bytes (4 MiB), this one has %s: put large data into a blob and name that", image.MaxManifest, size)
}

func (h *handler) deleteManifest(c *call) error {
	var err error
	if isDigest(c.arg) {
		d, bad := image.ParseDigest(c.arg)
		if bad != nil {
			return bad
		}
		err = h.content.DeleteManifest(c.r.Context(), c.repository, d, c.actor(), "deleted by a client")
	} else {
		if bad := image.CheckTag(c.arg); bad != nil {
			return bad
		}
		err = h.content.DeleteTag(c.r.Context(), c.repository, c.arg, c.actor())
	}
	if err != nil {
		return err
	}
	c.w.Header()["Content-Length"] = valZero
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}
