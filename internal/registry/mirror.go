package registry

import (
	"errors"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/mirror"
)

// streamBuffer is what a client costs that follows a download.
const streamBuffer = 64 << 10

// locate finds out which repository is meant (distribution-spec, "Registry
// Proxying"): clients that take this registry for a mirror say in ns for whose.
func (h *handler) locate(c *call) error {
	ns := ""
	if strings.Contains(c.r.URL.RawQuery, "ns=") {
		ns = c.r.URL.Query().Get("ns")
	}
	asked := ns
	if strings.EqualFold(ns, c.r.Host) {
		ns = "" // the client talks to whom it believes to talk to
	}
	p, err := h.mirror.Locate(ns, c.repository)
	if err != nil {
		return err
	}
	c.repository, c.mirrored, c.readOnly = p.Repository, p.Mirrored, p.Mirrored && !p.Writable
	if asked != "" {
		c.w.Header()["Oci-Namespace"] = []string{asked}
	}
	return nil
}

// notHere: content does not have the blob, or no longer in one piece.
func notHere(err error) bool {
	return errors.Is(err, content.ErrBlobUnknown) || errors.Is(err, content.ErrRepositoryUnknown) || errors.Is(err, content.ErrCorrupt)
}

// streamBlob answers with a blob that is still on its way here. What came is
// passed on at once. If the rest does not come or is wrong, the client has
// been promised more bytes than it gets, and the connection breaks.
func (h *handler) streamBlob(c *call, d image.Digest) error {
	b, err := h.mirror.Blob(c.r.Context(), c.repository, d, false)
	if err != nil {
		return err
	}
	defer b.Close()
	head := c.w.Header()
	blobHeaders(head, d)
	if match := c.r.Header["If-None-Match"]; match != nil && etagMatches(match[0], c.arg) {
		c.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	head["Accept-Ranges"] = valBytes
	head["Content-Length"] = []string{strconv.FormatInt(b.Size(), 10)}
	w := h.patientWriter(c)
	buf := make([]byte, streamBuffer)
	for sent := int64(0); ; {
		n, err := b.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return nil // the client is gone: nobody to tell
			}
			sent += int64(n)
			if sent < b.Size() {
				// Nothing of it may lie in a buffer while the next bytes take
				// their time.
				w.extend()
				_ = w.control.Flush()
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			w.done()
			return nil
		case err != nil && sent == 0:
			head.Del("Accept-Ranges")
			return err
		case err != nil:
			if c.r.Context().Err() == nil {
				h.log.Warn("a blob breaks off in front of a client", "path", c.r.URL.Path, "sent", sent, "size", b.Size(), "err", err)
			}
			// The only way to tell a client that what it got is not all: in
			// HTTP/1 the connection closes, in HTTP/2 the stream is reset.
			panic(http.ErrAbortHandler)
		}
	}
}

// maxMerged bounds a list of referrers of a mirrored image.
const maxMerged = 4096

// mirroredReferrers is content.Referrers with what the upstream has as well.
func (h *handler) mirroredReferrers(c *call, d image.Digest, artifactType string, after image.Digest, n int) (ds []image.Descriptor, more bool, err error) {
	for last, rest := image.Digest(""), true; rest && len(ds) < maxMerged; {
		var some []image.Descriptor
		some, rest, err = h.content.Referrers(c.r.Context(), c.repository, d, artifactType, last, maxReferrerPage)
		if err != nil && !errors.Is(err, content.ErrRepositoryUnknown) && !errors.Is(err, content.ErrManifestUnknown) {
			return nil, false, err
		}
		if len(some) == 0 {
			break
		}
		ds, last = append(ds, some...), some[len(some)-1].Digest
	}
	there, err := h.mirror.Referrers(c.r.Context(), c.repository, d)
	if err != nil {
		return nil, false, err
	}
	have := map[image.Digest]bool{}
	for _, r := range ds {
		have[r.Digest] = true
	}
	for _, r := range there {
		if !have[r.Digest] && (artifactType == "" || r.ArtifactType == artifactType) && len(ds) < maxMerged {
			have[r.Digest] = true
			ds = append(ds, r)
		}
	}
	slices.SortFunc(ds, func(a, b image.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	begin := 0
	for begin < len(ds) && ds[begin].Digest <= after {
		begin++
	}
	ds = ds[begin:]
	if len(ds) > n {
		return ds[:n], true, nil
	}
	return ds, false, nil
}

// warningValue is the header that carries a text to people
// (distribution-spec, "Warnings").
func warningValue(text string) string {
	const most = 1000
	if len(text) > most {
		text = text[:most]
	}
	text = strings.Map(func(r rune) rune {
		switch {
		case r == '"' || r == '\\':
			return '\''
		case r < ' ' || r > '~':
			return '?'
		}
		return r
	}, text)
	return `299 - "` + text + `"`
}

// failureOfUpstream is an error of a mirror as the protocol answers it.
// Clients go on to the next registry they know after any of these.
func failureOfUpstream(e *mirror.Error, rt route) *failure {
	switch e.Kind {
	case mirror.UnknownHost:
		return failf(http.StatusNotFound, codeNameUnknown, "%v", e)
	case mirror.NotAllowed:
		return failf(http.StatusForbidden, codeDenied, "%v", e)
	case mirror.NotFound:
		code := codeManifestUnknown
		if rt.kind == kindBlob {
			code = codeBlobUnknown
		}
		return failf(http.StatusNotFound, code, "%v", e)
	case mirror.Busy:
		f := failf(http.StatusTooManyRequests, codeTooMany, "%v", e)
		f.retryAfter = max(int(math.Ceil(e.RetryAfter.Seconds())), 1)
		return f
	}
	return failf(http.StatusBadGateway, codeUnavailable, "%v, and what was asked for is not here: try again, or see the log of this registry", e)
}
