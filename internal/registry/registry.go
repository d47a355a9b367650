// Package registry speaks the OCI distribution protocol (specification 1.1.1
// and what its main branch adds) over content.
//
// It owns paths, headers, status codes, error bodies and limits of /v2/, and
// who is asked for which right. It promises that errors are the protocol's own
// and say what to do, that a client which stops sending or reading is let go
// of after [Config.Patience] and leaves nothing locked, that serving a blob
// over plain HTTP is left to the kernel, and that a manifest is served from
// one look into content's cache. It does not store anything, does not convert
// manifests to what an Accept header asks for (clients verify digests, so
// nothing but what was pushed can be served), and does not decide who anybody
// is (access) or what a pull means (usage).
package registry

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"cairn.dev/cairn/internal/access"
	"cairn.dev/cairn/internal/blob"
	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/mirror"
)

// Limits of requests.
const (
	// MaxTags is how many tags one push may set by ?tag=; the specification
	// asks for at least 10.
	MaxTags = 64
	// maxPage is the longest list answered at once; the rest follows by Link.
	maxPage = 10_000
	// maxReferrerPage bounds a list of referrers: an entry carries annotations,
	// which can be large.
	maxReferrerPage = 256
	// maxReferrers is the size in bytes above which a list of referrers goes
	// on by Link: clients read no index beyond 4 MiB.
	maxReferrers = 3 << 20
	// minChunk is the chunk size asked of clients (OCI-Chunk-Min-Length).
	// Every answered chunk costs a durable write. Smaller ones are accepted.
	minChunk = "1048576"
)

// An Access says who a request comes from. *access.Guard is one.
type Access interface {
	// Authenticate returns an error for credentials that are wrong, and the
	// anonymous principal where there are none.
	Authenticate(r *http.Request) (*access.Principal, error)
	// Challenge sets in h what leads a client to the credentials for actions
	// on the repository, or to any when that is empty.
	Challenge(h http.Header, r *http.Request, repository string, actions ...access.Action)
}

// A Pulls is told of pulls. *usage.Ledger is one. It must not block.
type Pulls interface {
	Pull(repository string, d image.Digest, subject string)
}

// A Mirror keeps copies of images of other registries. *mirror.Mirror is one.
type Mirror interface {
	// Locate finds where a repository is here that was asked for under the
	// name ns of a host, or "".
	Locate(ns, repository string) (mirror.Place, error)
	// Manifest is content's, fetched if need be; wanted says that its blobs
	// will be as well. The warning is for the client.
	Manifest(ctx context.Context, repository, reference string, wanted bool) (m *content.Manifest, warning string, err error)
	// Blob reads a blob that is not in content: while it comes, or with whole
	// when it is there. The reader fails before the last byte if the blob is
	// not what its digest says.
	Blob(ctx context.Context, repository string, d image.Digest, whole bool) (blob.Reader, error)
	// StatBlob is the size of a blob that is not in content.
	StatBlob(ctx context.Context, repository string, d image.Digest) (content.Blob, error)
	// Referrers is what refers to an image elsewhere. Others may be here.
	Referrers(ctx context.Context, repository string, d image.Digest) ([]image.Descriptor, error)
}

// A Config is what the registry is made of.
type Config struct {
	Content *content.Store
	// Access guards every call. Without one everybody may do everything,
	// which is for tests.
	Access Access
	// Pulls may be nil: pulls are then not recorded.
	Pulls Pulls
	// Expires tells when an image is about to expire, if it soon is; pulls
	// carry a warning then. It is asked on every pull and must not block. May
	// be nil.
	Expires func(repository string, d image.Digest) (time.Time, bool)
	// Mirror may be nil: nothing is mirrored then, and ?ns= means nothing.
	Mirror Mirror
	// Patience is how long a client may take for the next bytes of a body it
	// sends or reads. A minute when zero.
	Patience time.Duration
	Log      *slog.Logger // slog.Default when nil
}

// New returns the handler of /v2/. It is safe for concurrent use. A server
// that runs it should not set ReadTimeout or WriteTimeout, which would cap the
// size of blobs by the speed of clients.
func New(cfg Config) http.Handler {
	h := &handler{
		content:  cfg.Content,
		access:   cfg.Access,
		pulls:    cfg.Pulls,
		expires:  cfg.Expires,
		mirror:   cfg.Mirror,
		patience: cfg.Patience,
		log:      cfg.Log,
	}
	if h.patience <= 0 {
		h.patience = time.Minute
	}
	if h.log == nil {
		h.log = slog.Default()
	}
	return h
}

type handler struct {
	content  *content.Store
	access   Access
	pulls    Pulls
	expires  func(string, image.Digest) (time.Time, bool)
	mirror   Mirror
	patience time.Duration
	log      *slog.Logger
}

// A call is one request being answered.
type call struct {
	route
	w   http.ResponseWriter
	r   *http.Request
	who *access.Principal // nil without Access
	// mirrored: the repository is a copy of another registry's; readOnly: and
	// clients do not push to it.
	mirrored, readOnly bool
}

// Header values that never change are shared by all responses: net/http only
// reads them, and assigning them to the map costs nothing.
var (
	valJSON        = []string{"application/json"}
	valIndex       = []string{image.MediaTypeIndex}
	valOctetStream = []string{"application/octet-stream"}
	valNosniff     = []string{"nosniff"}
	valBytes       = []string{"bytes"}
	valZero        = []string{"0"}
	valVersion     = []string{"registry/2.0"}
	valMinChunk    = []string{minChunk}
	valFiltered    = []string{"artifactType"}
)

// ServeHTTP answers one call.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := call{route: parseRoute(r.URL.Path), w: w, r: r}
	h.expectBody(w, r)
	do, action, allow := h.choose(&c)
	if do == nil {
		if allow == "" {
			h.fail(&c, failf(http.StatusNotFound, codeUnsupported,
				"there is nothing at this path: calls of the registry look like /v2/<repository>/manifests/<tag or digest>"))
			return
		}
		w.Header().Set("Allow", allow)
		h.fail(&c, failf(http.StatusMethodNotAllowed, codeUnsupported, "%s is not possible here: use %s", r.Method, allow))
		return
	}
	if h.mirror != nil && c.kind > kindCatalog {
		if err := h.locate(&c); err != nil {
			h.fail(&c, err)
			return
		}
	}
	if err := h.authorise(&c, action); err != nil {
		h.fail(&c, err)
		return
	}
	if c.kind > kindCatalog {
		if err := image.CheckRepository(c.repository); err != nil {
			h.fail(&c, err)
			return
		}
	}
	if c.readOnly && action == access.Push {
		h.fail(&c, failf(http.StatusForbidden, codeDenied,
			"%s is a copy of another registry's and is not pushed to: push to another repository, or let an operator set offline: true for this mirror", c.repository))
		return
	}
	if err := do(&c); err != nil {
		h.fail(&c, err)
	}
}

// choose finds what does the call and the right it takes. Without a function,
// allow lists the methods that there are.
func (h *handler) choose(c *call) (do func(*call) error, action access.Action, allow string) {
	get := c.r.Method == http.MethodGet || c.r.Method == http.MethodHead
	switch c.kind {
	case kindManifest:
		switch {
		case get:
			return h.getManifest, access.Pull, ""
		case c.r.Method == http.MethodPut:
			return h.putManifest, access.Push, ""
		case c.r.Method == http.MethodDelete:
			return h.deleteManifest, access.Delete, ""
		}
		return nil, "", "GET, HEAD, PUT, DELETE"
	case kindBlob:
		switch c.r.Method {
		case http.MethodGet:
			return h.getBlob, access.Pull, ""
		case http.MethodHead:
			return h.headBlob, access.Pull, ""
		case http.MethodDelete:
			return h.deleteBlob, access.Delete, ""
		}
		return nil, "", "GET, HEAD, DELETE"
	case kindUploads:
		if c.r.Method == http.MethodPost {
			return h.startUpload, access.Push, ""
		}
		return nil, "", "POST"
	case kindUpload:
		switch c.r.Method {
		case http.MethodPatch:
			return h.appendUpload, access.Push, ""
		case http.MethodPut:
			return h.finishUpload, access.Push, ""
		case http.MethodGet, http.MethodHead:
			return h.uploadStatus, access.Push, ""
		case http.MethodDelete:
			return h.cancelUpload, access.Push, ""
		}
		return nil, "", "GET, PATCH, PUT, DELETE"
	case kindPing:
		do = h.ping
	case kindCatalog:
		do = h.catalog
	case kindTags:
		do = h.tags
	case kindReferrers:
		do = h.referrers
	default:
		return nil, "", ""
	}
	if get {
		return do, access.Pull, ""
	}
	return nil, "", "GET, HEAD"
}

func (h *handler) ping(c *call) error {
	head := c.w.Header()
	head["Docker-Distribution-Api-Version"] = valVersion
	head["Content-Type"] = valJSON
	_, _ = c.w.Write([]byte("{}"))
	return nil
}
