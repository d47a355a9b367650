package registry

import (
	"fmt"
	"strconv"
	"strings"
)

// parseContentRange reads the Content-Range of a chunk: "first-last", both
// inclusive (distribution-spec, "Pushing a blob in chunks"). HTTP's own form
// "bytes first-last/total" is read as well, because some clients send it.
func parseContentRange(s string) (first, last int64, err error) {
	bad := func() (int64, int64, error) {
		if len(s) > 60 {
			s = s[:60] + "…"
		}
		return 0, 0, fmt.Errorf("Content-Range %q cannot be read: write first-last, both included, such as 0-1023", s)
	}
	t := strings.TrimPrefix(s, "bytes ")
	t, _, _ = strings.Cut(t, "/")
	a, b, ok := strings.Cut(t, "-")
	if !ok || !allDigits(a) || !allDigits(b) {
		return bad()
	}
	first, err1 := strconv.ParseInt(a, 10, 64)
	last, err2 := strconv.ParseInt(b, 10, 64)
	if err1 != nil || err2 != nil || last < first || last-first == 1<<63-1 {
		return bad()
	}
	return first, last, nil
}

// allDigits keeps out the signs that strconv would take.
func allDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// uploadRange is the Range header of an upload that holds size bytes. Of an
// empty one it is "0--1": the specification has no form for it, and this is
// the one that clients who add one to the end resume from correctly; "0-0"
// would claim a byte.
func uploadRange(size int64) string { return "0-" + strconv.FormatInt(size-1, 10) }

// etagMatches reports whether an If-None-Match header names the digest.
func etagMatches(header, digest string) bool {
	for header != "" {
		var tag string
		tag, header, _ = strings.Cut(header, ",")
		tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/")
		if tag == "*" || len(tag) == len(digest)+2 && tag[0] == '"' && tag[len(tag)-1] == '"' && tag[1:len(tag)-1] == digest {
			return true
		}
	}
	return false
}
