package workflow

import (
	"strings"

	"cairn.dev/cairn/internal/image"
)

// CheckImage reports whether s names an image: [host/]repository[:tag][@digest].
func CheckImage(s string) error {
	if host, rest, ok := strings.Cut(s, "/"); ok && (strings.ContainsAny(host, ".:") || host == "localhost") {
		s = rest
	}
	_, err := image.ParseReference(s)
	return err
}
