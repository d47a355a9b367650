package agent

import (
	"strings"

	"cairn.dev/cairn/internal/image"
)

// ParseImageID is the digest in what runtimes write as the identity of an
// image: repository@sha256:…, docker-pullable://repository@sha256:…,
// docker://sha256:… and bare sha256:…. It may be of an index, a manifest or a
// config: the server knows what to make of each. False means that there is
// none, as for images that were built on the node and have only a name.
func ParseImageID(s string) (image.Digest, bool) {
	if _, rest, ok := strings.Cut(s, "://"); ok {
		s = rest
	}
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		s = s[i+1:]
	}
	// CRI-O writes the config as bare hex.
	if len(s) == 64 && !strings.Contains(s, ":") {
		s = "sha256:" + s
	}
	d, err := image.ParseDigest(s)
	return d, err == nil
}

// ReferenceDigest is the digest that a reference in a template is fixed to.
func ReferenceDigest(reference string) (image.Digest, bool) {
	_, s, ok := strings.Cut(reference, "@")
	if !ok {
		return "", false
	}
	d, err := image.ParseDigest(s)
	return d, err == nil
}

// Subject names a workload: place/namespace/kind/name. Parts that are empty
// are left out. It is cut to what the server takes.
func Subject(parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		if p == "" {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('/')
		}
		b.WriteString(p)
	}
	s := b.String()
	if len(s) > maxSubject {
		s = strings.ToValidUTF8(s[:maxSubject], "")
	}
	return s
}

const maxSubject = 512 // usage.MaxSubject

// Stem is a name without the endings that controllers and people's scripts
// append to make names unique (web-7d4b9c8f6d-x2x4z, db-0, backup-29384720):
// what comes and goes must not fill the ledger with names. A name that is
// nothing but such endings stays as it is.
func Stem(name string) string {
	s := name
	for {
		i := strings.LastIndexAny(s, "-_.")
		if i <= 0 || !random(s[i+1:]) {
			break
		}
		s = strings.TrimRight(s[:i], "-_.")
	}
	if s == "" {
		return name
	}
	return s
}

// random reports whether the end of a name looks made up by a program: only
// digits; five letters of the alphabet that Kubernetes draws from, which has no
// vowels; such ones with a digit among them; or long hex.
func random(s string) bool {
	if s == "" {
		return false
	}
	digits, safe, hex := 0, true, true
	for _, c := range []byte(s) {
		switch {
		case c >= '0' && c <= '9':
			digits++
			if c == '0' || c == '1' || c == '3' {
				safe = false
			}
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z':
			safe = safe && strings.IndexByte("bcdfghjklmnpqrstvwxz", c) >= 0
			hex = hex && c <= 'f' && c >= 'a'
		default:
			return false
		}
	}
	switch {
	case digits == len(s):
		return true
	case safe && len(s) == 5:
		return true
	case safe && digits > 0 && len(s) >= 8 && len(s) <= 10: // the hash of a template
		return true
	case hex && digits > 0 && len(s) >= 7:
		return true
	}
	return false
}
