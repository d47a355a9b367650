package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/mirror"
)

// Codes of errors: those of the specification's table, and where it has none,
// the ones that clients know from other registries.
const (
	codeBlobUnknown         = "BLOB_UNKNOWN"
	codeBlobUploadInvalid   = "BLOB_UPLOAD_INVALID"
	codeBlobUploadUnknown   = "BLOB_UPLOAD_UNKNOWN"
	codeDigestInvalid       = "DIGEST_INVALID"
	codeManifestBlobUnknown = "MANIFEST_BLOB_UNKNOWN"
	codeManifestInvalid     = "MANIFEST_INVALID"
	codeManifestUnknown     = "MANIFEST_UNKNOWN"
	codeNameInvalid         = "NAME_INVALID"
	codeNameUnknown         = "NAME_UNKNOWN"
	codeSizeInvalid         = "SIZE_INVALID"
	codeTagInvalid          = "TAG_INVALID"
	codeUnauthorized        = "UNAUTHORIZED"
	codeDenied              = "DENIED"
	codeUnsupported         = "UNSUPPORTED"
	codeTooMany             = "TOOMANYREQUESTS"
	codeRangeInvalid        = "RANGE_INVALID"
	codePageInvalid         = "PAGINATION_NUMBER_INVALID"
	codeUnavailable         = "UNAVAILABLE"
	codeDiskFull            = "DISK_FULL"
	codeCorrupt             = "CONTENT_CORRUPT"
	codeUnknown             = "UNKNOWN"
)

// A failure is an error as the protocol answers it.
type failure struct {
	status  int
	code    string
	message string
	detail  any
	// retryAfter in seconds is told to the client, if it is not 0.
	retryAfter int
}

func (f *failure) Error() string { return f.code + ": " + f.message }

func failf(status int, code, format string, args ...any) *failure {
	return &failure{status: status, code: code, message: fmt.Sprintf(format, args...)}
}

// failureOf translates what the rooms below return. It is the only place that
// does, so that one error reads the same whichever call met it.
func failureOf(err error, rt route) *failure {
	var (
		own      *failure
		name     *image.NameError
		manifest *image.ManifestError
		missing  *content.MissingBlobsError
		gap      *content.RangeError
		upstream *mirror.Error
	)
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &name):
		code := codeNameInvalid
		switch name.Kind {
		case "tag":
			code = codeTagInvalid
		case "digest":
			code = codeDigestInvalid
		}
		return failf(http.StatusBadRequest, code, "%v", name)
	case errors.As(err, &manifest):
		return failf(http.StatusBadRequest, codeManifestInvalid, "%v", manifest)
	case errors.As(err, &missing):
		f := failf(http.StatusBadRequest, codeManifestBlobUnknown,
			"the manifest names %d blob(s) that are not in %s, the first is %s: push or mount them into this repository first, then the manifest",
			len(missing.Digests), rt.repository, first(missing.Digests))
		f.detail = map[string]any{"digests": missing.Digests}
		return f
	case errors.As(err, &upstream):
		return failureOfUpstream(upstream, rt)
	case errors.As(err, &gap):
		return failf(http.StatusRequestedRangeNotSatisfiable, codeBlobUploadInvalid,
			"the chunk begins at byte %d, the upload goes on at byte %d: send the chunks in order, from there", gap.Offset, gap.Want)
	case errors.Is(err, content.ErrRepositoryUnknown):
		if host, _, _ := strings.Cut(rt.repository, "/"); host != rt.repository && strings.Contains(host, ".") {
			return failf(http.StatusNotFound, codeNameUnknown,
				"repository %s is not known here: if %.80s is another registry, an operator can add it to the key mirrors of cairn.yaml; else check the name", rt.repository, host)
		}
		return failf(http.StatusNotFound, codeNameUnknown,
			"repository %s is not known here: check the name; a repository appears with its first push", rt.repository)
	case errors.Is(err, content.ErrManifestUnknown):
		sep := ":"
		if isDigest(rt.arg) {
			sep = "@"
		}
		ref := rt.repository + sep + rt.arg
		return failf(http.StatusNotFound, codeManifestUnknown,
			"%s is not here: it was never pushed or is deleted; 'cairn why %s' tells which", ref, ref)
	case errors.Is(err, content.ErrBlobUnknown):
		return failf(http.StatusNotFound, codeBlobUnknown,
			"repository %s has no blob %s: push it, or mount it from a repository that has it", rt.repository, rt.arg)
	case errors.Is(err, content.ErrUploadUnknown):
		return failf(http.StatusNotFound, codeBlobUploadUnknown, "%v", content.ErrUploadUnknown)
	case errors.Is(err, content.ErrUploadBusy):
		// With this code, and the Location and Range that upload calls add,
		// clients start again or go on from where the upload is.
		return failf(http.StatusConflict, codeBlobUploadInvalid,
			"another request is writing this upload: wait for it, or start another upload with POST")
	case errors.Is(err, content.ErrDigestMismatch):
		return failf(http.StatusBadRequest, codeDigestInvalid,
			"%v: nothing was kept; send it again, whole", err)
	case errors.Is(err, content.ErrBlobInUse):
		return failf(http.StatusConflict, codeUnsupported,
			"a manifest in %s needs this blob: delete the manifest first; blobs nothing needs go by themselves", rt.repository)
	case errors.Is(err, content.ErrCorrupt):
		return failf(http.StatusInternalServerError, codeCorrupt,
			"what is stored no longer has its digest and is not served: push it again; 'cairn scrub' lists all that is damaged")
	case errors.Is(err, content.ErrNoSpace):
		return failf(http.StatusInsufficientStorage, codeDiskFull,
			"the registry's disk is full: nothing of this was kept; its operator has to make room, then push again")
	case errors.Is(err, content.ErrReadOnly):
		return failf(http.StatusServiceUnavailable, codeUnavailable,
			"the registry cannot write its data folder: pulls work, pushes do not until its operator makes it writable")
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, errStalled):
		return failf(http.StatusBadRequest, codeBlobUploadInvalid,
			"the body ended early (%v): what came is kept; ask with GET how far the upload is, and go on from there", err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return failf(http.StatusServiceUnavailable, codeUnavailable, "the request was cut off, or the registry is stopping: try again")
	}
	return failf(http.StatusInternalServerError, codeUnknown, "the registry failed to do this; its log says why")
}

func first[T any](s []T) (v T) {
	if len(s) > 0 {
		v = s[0]
	}
	return v
}

// fail answers a call with an error.
func (h *handler) fail(c *call, err error) {
	f := failureOf(err, c.route)
	switch {
	case f.status == http.StatusBadGateway: // another registry's fault
		h.log.Warn("a mirrored registry is of no help", "method", c.r.Method, "path", c.r.URL.Path, "err", err)
	case f.status >= 500 && c.r.Context().Err() == nil:
		h.log.Error("registry call failed", "method", c.r.Method, "path", c.r.URL.Path, "status", f.status, "err", err)
	}
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false) // people read it, and no browser takes it for a page
	if err := enc.Encode(errorsJSON{[]errorJSON{{f.code, f.message, f.detail}}}); err != nil {
		h.log.Error("detail of an error cannot be encoded", "code", f.code, "err", err) // a mistake here, not the client's
	}
	head := c.w.Header()
	head["Content-Type"] = valJSON
	head["X-Content-Type-Options"] = valNosniff
	head["Content-Length"] = []string{strconv.Itoa(body.Len())}
	if f.retryAfter > 0 {
		head["Retry-After"] = []string{strconv.Itoa(f.retryAfter)}
	}
	// What a handler had prepared for the case that all goes well.
	head.Del("ETag")
	head.Del("Docker-Content-Digest")
	c.w.WriteHeader(f.status)
	_, _ = c.w.Write(body.Bytes()) // the client may be gone: nobody to tell
}

type errorsJSON struct {
	Errors []errorJSON `json:"errors"`
}

type errorJSON struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Detail  any    `json:"detail,omitempty"`
}
