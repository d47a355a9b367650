package wire

import (
	"regexp"
	"strings"

	"cairn.dev/cairn/internal/image"
)

// minShort is how many hex digits a shortened digest must have. Lists show
// twelve.
const minShort = 6

var shortRE = regexp.MustCompile(`^sha(256|512):[0-9a-f]+$`)

// ParseRef reads repository[:tag][@digest], where the digest may be shortened
// as lists show it. [IsShort] tells.
func ParseRef(s string) (image.Reference, error) {
	r, err := image.ParseReference(s)
	name, dig, ok := strings.Cut(s, "@")
	if err == nil || !ok || !shortRE.MatchString(dig) {
		return r, err
	}
	if r2, err2 := image.ParseReference(name); err2 == nil && IsShort(image.Digest(dig)) {
		if !strings.HasSuffix(name, ":"+r2.Tag) { // "latest" was assumed
			r2.Tag = ""
		}
		r2.Digest = image.Digest(dig)
		return r2, nil
	}
	return r, err
}

// IsShort reports whether d is the beginning of a digest and not all of it.
func IsShort(d image.Digest) bool {
	alg, hex, ok := strings.Cut(string(d), ":")
	full := 64
	if alg == "sha512" {
		full = 128
	}
	return ok && len(hex) >= minShort && len(hex) < full && shortRE.MatchString(string(d))
}
