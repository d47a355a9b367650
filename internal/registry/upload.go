package registry

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
)

// startUpload answers POST: a mount, a blob sent whole, or a new upload.
func (h *handler) startUpload(c *call) error {
	var query url.Values
	if c.r.URL.RawQuery != "" {
		query = c.r.URL.Query()
	}
	if alg := query.Get("digest-algorithm"); alg != "" && alg != "sha256" && alg != "sha512" {
		return failf(http.StatusBadRequest, codeDigestInvalid, "digest algorithm %.40q is not known: use sha256 or sha512", alg)
	}
	if query.Has("mount") {
		d, mounted, err := h.mount(c, query)
		if err != nil {
			return err
		}
		if mounted {
			created(c, d)
			return nil
		}
		// The specification's answer to a mount that cannot be: upload it.
	} else if s := query.Get("digest"); s != "" {
		d, err := image.ParseDigest(s)
		if err != nil {
			return err
		}
		if _, err := h.content.PutBlob(c.r.Context(), c.repository, h.patientBody(c), d); err != nil {
			return err
		}
		created(c, d)
		return nil
	}
	id, err := h.content.StartUpload(c.r.Context(), c.repository)
	if err != nil {
		return err
	}
	c.arg = id
	head := c.w.Header()
	uploadHeaders(c)
	head["Oci-Chunk-Min-Length"] = valMinChunk
	head["Content-Length"] = valZero
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}

// mount tries to make a blob of another repository one of this. A caller who
// may not read the other repository is told the same as when the blob is not
// there.
func (h *handler) mount(c *call, query url.Values) (image.Digest, bool, error) {
	d, err := image.ParseDigest(query.Get("mount"))
	if err != nil {
		return "", false, err
	}
	may := h.mayPull(c)
	from := query.Get("from")
	if from != "" && (image.CheckRepository(from) != nil || !may(from)) {
		return d, false, nil
	}
	ok, err := h.content.Mount(c.r.Context(), c.repository, d, from, may)
	return d, ok, err
}

// appendUpload answers PATCH: a chunk with Content-Range, or a stream without.
func (h *handler) appendUpload(c *call) error {
	offset, body, err := h.chunk(c)
	if err != nil {
		return err
	}
	size, err := h.content.AppendUpload(c.r.Context(), c.repository, c.arg, offset, body)
	if err != nil {
		return h.uploadError(c, err)
	}
	uploadHeaders(c)
	head := c.w.Header()
	head["Range"] = []string{uploadRange(size)}
	head["Content-Length"] = valZero
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}

// finishUpload answers PUT, with or without a last chunk.
func (h *handler) finishUpload(c *call) error {
	s := c.r.URL.Query().Get("digest")
	if s == "" {
		return failf(http.StatusBadRequest, codeDigestInvalid, "PUT ends an upload and needs its digest: add ?digest=sha256:… to the address")
	}
	d, err := image.ParseDigest(s)
	if err != nil {
		return err
	}
	offset, body, err := h.chunk(c)
	if err != nil {
		return err
	}
	if _, err := h.content.FinishUpload(c.r.Context(), c.repository, c.arg, offset, body, d); err != nil {
		return h.uploadError(c, err)
	}
	created(c, d)
	return nil
}

func (h *handler) uploadStatus(c *call) error {
	size, err := h.content.UploadSize(c.r.Context(), c.repository, c.arg)
	if err != nil {
		return err
	}
	uploadHeaders(c)
	c.w.Header()["Range"] = []string{uploadRange(size)}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *handler) cancelUpload(c *call) error {
	if err := h.content.CancelUpload(c.r.Context(), c.repository, c.arg); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// chunk returns the body of a PATCH or PUT and the offset it was sent for, -1
// when it names none. The body then fails unless it has the length its
// Content-Range says.
func (h *handler) chunk(c *call) (int64, io.Reader, error) {
	body := h.patientBody(c)
	s := c.r.Header.Get("Content-Range")
	if s == "" || c.r.ContentLength == 0 {
		return -1, body, nil
	}
	from, to, err := parseContentRange(s)
	if err != nil {
		return 0, nil, h.uploadError(c, failf(http.StatusRequestedRangeNotSatisfiable, codeBlobUploadInvalid, "%v", err))
	}
	want := to - from + 1
	if n := c.r.ContentLength; n >= 0 && n != want {
		return 0, nil, failf(http.StatusBadRequest, codeSizeInvalid,
			"Content-Range %d-%d means %d bytes, Content-Length says %d: both ends of the range are included", from, to, want, n)
	}
	return from, &exactReader{r: body, want: want}, nil
}

// An exactReader fails when its source does not end after want bytes. It
// stands in for a Content-Length where the body comes in HTTP chunks.
type exactReader struct {
	r    io.Reader
	want int64
}

func (e *exactReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	e.want -= int64(n)
	switch {
	case e.want < 0:
		return 0, failf(http.StatusBadRequest, codeSizeInvalid, "the chunk has more bytes than its Content-Range says")
	case errors.Is(err, io.EOF) && e.want > 0:
		return n, fmt.Errorf("%d bytes of the chunk are missing: %w", e.want, io.ErrUnexpectedEOF)
	}
	return n, err
}

// uploadError adds to an error where the upload is and how far it got, from
// which clients go on.
func (h *handler) uploadError(c *call, err error) error {
	var gap *content.RangeError
	var own *failure
	if errors.As(err, &gap) || errors.Is(err, content.ErrUploadBusy) || errors.As(err, &own) && own.status == http.StatusRequestedRangeNotSatisfiable {
		size, sizeErr := h.content.UploadSize(c.r.Context(), c.repository, c.arg)
		if sizeErr != nil {
			return sizeErr
		}
		uploadHeaders(c)
		c.w.Header()["Range"] = []string{uploadRange(size)}
	}
	return err
}

// uploadHeaders say where an upload goes on. The address is relative, so that
// it holds behind proxies that change scheme, host or port.
func uploadHeaders(c *call) {
	head := c.w.Header()
	head["Location"] = []string{"/v2/" + c.repository + "/blobs/uploads/" + c.arg}
	head["Docker-Upload-Uuid"] = []string{c.arg}
}

// created answers that a blob is there.
func created(c *call, d image.Digest) {
	head := c.w.Header()
	head["Location"] = []string{"/v2/" + c.repository + "/blobs/" + string(d)}
	head["Docker-Content-Digest"] = []string{string(d)}
	head["Content-Length"] = valZero
	c.w.WriteHeader(http.StatusCreated)
}
