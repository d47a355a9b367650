package code

import (
	"regexp"
	"strings"
)

// markerRE is the comment's text: cairn: image=REPO [policy]
var markerRE = regexp.MustCompile(`(?:#|//|/\*|<!--|--|;)[ \t]*cairn:[ \t]*image=(\S+)(?:[ \t]+([^\r\n]*?))?[ \t]*(?:\*/|-->)?[ \t]*\r?\n?$`)

// A MarkerComment is a comment that says of which image the text beside it is
// the tag, the digest or the whole reference:
//
//	version = "1.2.3" # cairn: image=ghcr.io/team/app ~1.2
type MarkerComment struct {
	Image  string // as written, without tag
	Policy string // the words after it
	// Before is what stands on the line before the comment. When it is blank,
	// the marker is about the next line.
	Before string
}

// ParseMarker finds a marker in one line of text.
func ParseMarker(line string) (MarkerComment, bool) {
	if !strings.Contains(line, "cairn:") { // nearly always
		return MarkerComment{}, false
	}
	m := markerRE.FindStringSubmatchIndex(line)
	if m == nil {
		return MarkerComment{}, false
	}
	c := MarkerComment{Image: line[m[2]:m[3]], Before: line[:m[0]]}
	if m[4] >= 0 {
		c.Policy = line[m[4]:m[5]]
	}
	r, err := ParseReference(c.Image)
	if err != nil || r.Tag != "" || r.Digest != "" {
		return MarkerComment{}, false
	}
	return c, true
}

// Marked puts the image of a marker and the text that it marks together: text
// is a tag, a digest, a tag with a digest, or the whole reference.
func (c MarkerComment) Marked(text string) (value string, ok bool) {
	for _, v := range []string{text, c.Image + ":" + text, c.Image + "@" + text} {
		if r, err := ParseReference(v); err == nil && r.Name == c.Image && (r.Tag != "" || r.Digest != "") {
			return v, true
		}
	}
	return "", false
}
