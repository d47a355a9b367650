package registry

import (
	"net/http"
	"strconv"
	"time"

	"cairn.dev/cairn/internal/image"
)

// getBlob leaves ranges, conditions and copying to http.ServeContent: over
// plain HTTP it ends in sendfile, as long as nothing between it and the
// connection hides io.ReaderFrom.
func (h *handler) getBlob(c *call) error {
	d, err := image.ParseDigest(c.arg)
	if err != nil {
		return err
	}
	b, err := h.content.OpenBlob(c.r.Context(), c.repository, d)
	if c.mirrored && notHere(err) {
		if c.r.Header["Range"] == nil {
			return h.streamBlob(c, d)
		}
		// A part would end well before anybody could know that the whole does.
		b, err = h.mirror.Blob(c.r.Context(), c.repository, d, true)
	}
	if err != nil {
		return err
	}
	defer b.Close()
	blobHeaders(c.w.Header(), d)
	w := h.patientWriter(c)
	defer w.done()
	http.ServeContent(w, c.r, "", time.Time{}, b)
	return nil
}

func (h *handler) headBlob(c *call) error {
	d, err := image.ParseDigest(c.arg)
	if err != nil {
		return err
	}
	b, err := h.content.StatBlob(c.r.Context(), c.repository, d)
	if c.mirrored && notHere(err) {
		b, err = h.mirror.StatBlob(c.r.Context(), c.repository, d)
	}
	if err != nil {
		return err
	}
	head := c.w.Header()
	blobHeaders(head, d)
	if match := c.r.Header["If-None-Match"]; match != nil && etagMatches(match[0], c.arg) {
		c.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	head["Accept-Ranges"] = valBytes
	head["Content-Length"] = []string{strconv.FormatInt(b.Size, 10)}
	return nil
}

func blobHeaders(head http.Header, d image.Digest) {
	vals := [...]string{string(d), `"` + string(d) + `"`}
	head["Docker-Content-Digest"] = vals[0:1:1]
	head["Etag"] = vals[1:2:2]
	// Anybody who may push chooses these bytes: no browser may guess at them.
	head["Content-Type"] = valOctetStream
	head["X-Content-Type-Options"] = valNosniff
}

func (h *handler) deleteBlob(c *call) error {
	d, err := image.ParseDigest(c.arg)
	if err != nil {
		return err
	}
	if err := h.content.DeleteBlob(c.r.Context(), c.repository, d); err != nil {
		return err
	}
	c.w.Header()["Content-Length"] = valZero
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}
