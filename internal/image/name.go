// Package image is the ground floor: what names, digests, manifests and the
// edges between them are.
//
// It owns parsing and validation of everything a client may send in a path or
// a manifest, by the rules of the OCI distribution and image specifications.
// It promises to be pure (no I/O, no clock, no imports from the rooms above)
// and not to panic, whatever it is given. It does not know what is stored.
package image

import (
	// Digest.Verifier and its like panic when the hash is not linked in.
	_ "crypto/sha256"
	_ "crypto/sha512"
	"fmt"
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Digest is algorithm:hex. A value that came through [ParseDigest] is safe to
// use in a file name.
type Digest = digest.Digest

// Limits of names. The specification leaves the length of repository names
// open; 255 is what clients and other registries agree on.
const (
	MaxRepository = 255
	MaxTag        = 128
)

var (
	repositoryRE = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagRE        = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	fallbackRE   = regexp.MustCompile(`^(sha256-[a-f0-9]{64}|sha512-[a-f0-9]{128})(\.[a-zA-Z0-9._-]+)?$`)
)

// A NameError says which name was refused and why. It is answered to clients
// as NAME_INVALID, TAG_INVALID or DIGEST_INVALID.
type NameError struct {
	Kind  string // "repository", "tag" or "digest"
	Value string
	Why   string
}

func (e *NameError) Error() string {
	v := e.Value
	if len(v) > 80 {
		v = v[:80] + "…"
	}
	return fmt.Sprintf("invalid %s %q: %s", e.Kind, v, e.Why)
}

// CheckRepository reports whether s is a repository name (distribution-spec,
// "Pulling manifests": <name>).
func CheckRepository(s string) error {
	switch {
	case s == "":
		return &NameError{"repository", s, "it is empty"}
	case len(s) > MaxRepository:
		return &NameError{"repository", s, fmt.Sprintf("it has %d characters, the limit is %d", len(s), MaxRepository)}
	case !repositoryRE.MatchString(s):
		why := "use lower-case letters, digits and single '.', '_', '-' between them, in parts separated by '/'"
		if strings.ToLower(s) != s {
			why = "upper-case letters are not allowed"
		}
		return &NameError{"repository", s, why}
	}
	return nil
}

// CheckTag reports whether s is a tag (distribution-spec, <reference> as a tag).
func CheckTag(s string) error {
	if !tagRE.MatchString(s) {
		return &NameError{"tag", s, "use up to 128 letters, digits, '_', '.', '-', not starting with '.' or '-'"}
	}
	return nil
}

// ParseDigest returns s as a digest. Only sha256 and sha512 are known.
func ParseDigest(s string) (Digest, error) {
	alg, hex, ok := strings.Cut(s, ":")
	if !ok {
		return "", &NameError{"digest", s, "it must read algorithm:hex, such as sha256:…"}
	}
	want := 0
	switch alg {
	case "sha256":
		want = 64
	case "sha512":
		want = 128
	default:
		return "", &NameError{"digest", s, "the algorithm is not known; use sha256 or sha512"}
	}
	if len(hex) != want {
		return "", &NameError{"digest", s, fmt.Sprintf("%s has %d hex digits, this has %d", alg, want, len(hex))}
	}
	for _, c := range []byte(hex) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return "", &NameError{"digest", s, "only the hex digits 0-9 and a-f are allowed"}
		}
	}
	return Digest(s), nil
}

// FallbackSubject is the digest that a referrers fallback tag names:
// sha256-<hex> (distribution-spec, "Referrers Tag Schema") and cosign's
// sha256-<hex>.sig, .att and .sbom.
func FallbackSubject(tag string) (Digest, bool) {
	m := fallbackRE.FindStringSubmatch(tag)
	if m == nil {
		return "", false
	}
	alg, hex, _ := strings.Cut(m[1], "-")
	return Digest(alg + ":" + hex), true
}

// A Reference is what a person types: repository[:tag][@digest]. The host is
// not part of it. Without tag and digest, the tag is "latest".
type Reference struct {
	Repository string
	Tag        string
	Digest     Digest
}

// ParseReference reads repository, repository:tag, repository@digest or
// repository:tag@digest.
func ParseReference(s string) (Reference, error) {
	var r Reference
	name, dig, hasDigest := strings.Cut(s, "@")
	if hasDigest {
		d, err := ParseDigest(dig)
		if err != nil {
			return r, err
		}
		r.Digest = d
	}
	if i := strings.LastIndexByte(name, ':'); i >= 0 && !strings.Contains(name[i:], "/") {
		r.Tag = name[i+1:]
		name = name[:i]
		if err := CheckTag(r.Tag); err != nil {
			return r, err
		}
	}
	if err := CheckRepository(name); err != nil {
		return r, err
	}
	r.Repository = name
	if r.Tag == "" && r.Digest == "" {
		r.Tag = "latest"
	}
	return r, nil
}

func (r Reference) String() string {
	s := r.Repository
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + string(r.Digest)
	}
	return s
}
