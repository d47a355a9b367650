package registry

import "strings"

// A kind is one of the protocol's endpoints.
type kind uint8

const (
	kindNone kind = iota
	kindPing
	kindCatalog
	kindTags
	kindManifest
	kindReferrers
	kindBlob
	kindUploads // where uploads are started
	kindUpload  // one upload
)

// A route is a path taken apart. Neither name has been validated.
type route struct {
	kind       kind
	repository string
	// arg is the tag or digest of a manifest, the digest of a blob or of a
	// subject, or the id of an upload.
	arg string
}

// parseRoute takes a decoded path apart. Repository names contain slashes and
// may contain the protocol's own words ("a/blobs/b" is a repository), so it
// reads from the right, where the words can only be the protocol's.
func parseRoute(path string) route {
	rest, ok := strings.CutPrefix(path, "/v2/")
	switch {
	case path == "/v2", ok && rest == "":
		return route{kind: kindPing}
	case !ok:
		return route{}
	case rest == "_catalog":
		return route{kind: kindCatalog}
	}
	i := strings.LastIndexByte(rest, '/')
	if i < 0 {
		return route{}
	}
	head, last := rest[:i], rest[i+1:]
	i = strings.LastIndexByte(head, '/')
	if i <= 0 {
		return route{}
	}
	repo, word := head[:i], head[i+1:]
	switch word {
	case "tags":
		if last == "list" {
			return route{kindTags, repo, ""}
		}
	case "manifests":
		if last != "" {
			return route{kindManifest, repo, last}
		}
	case "referrers":
		if last != "" {
			return route{kindReferrers, repo, last}
		}
	case "blobs":
		switch last {
		case "":
		case "uploads": // without the slash that the specification writes
			return route{kindUploads, repo, ""}
		default:
			return route{kindBlob, repo, last}
		}
	case "uploads":
		repo, ok := strings.CutSuffix(repo, "/blobs")
		switch {
		case !ok || repo == "":
		case last == "":
			return route{kindUploads, repo, ""}
		default:
			return route{kindUpload, repo, last}
		}
	}
	return route{}
}
