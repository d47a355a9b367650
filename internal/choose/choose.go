// Package choose decides which newer image code should run.
//
// It owns versions as tags spell them, and the rules by which one tag is a
// newer one of another. It promises to be pure, never to choose something
// older or something of which it is not sure, and to say why for every answer,
// also when the answer is nothing. It asks no registry and edits no code.
package choose

import (
	"time"

	"cairn.dev/cairn/internal/catalog"
	"cairn.dev/cairn/internal/image"
)

// A Policy says which images may be chosen. The zero Policy is a good default.
// Every field narrows: a tag has to pass all of them.
type Policy struct {
	// Versioning is how tags are read: one of [Versionings], or "regex:EXPR"
	// with named groups ([Groups]). "" is "auto".
	Versioning string
	// Range bounds versions: "~1.2", ">=1.2 <2", "1.x || 3.x". See [CheckRange].
	Range string
	// Tags are globs of the tags that come into question; none: all.
	Tags []string
	// Ignore are globs of tags that are never chosen.
	Ignore []string
	// Major says what to do with a new major version: one of [Majors]. "" is "off".
	Major string
	// Prerelease allows them even when the current tag is none.
	Prerelease bool
	// Pin writes the digest beside the tag; nil: as the code has it now.
	Pin *bool
	// Cooldown is how long an image has to be known before it is chosen.
	Cooldown time.Duration
	// Signed requires a verified signature.
	Signed bool
	// Needed are the platforms that the image must have, in place of those of
	// the current image; none: those of the current one.
	Needed []image.Platform
	// Platforms that the image must have besides.
	Platforms []image.Platform
	// Nodes are the platforms of the nodes that are known. They are needed when
	// the current image is gone, so that nobody can say what it had. What it
	// has counts otherwise: a node on which it cannot run now need not run the
	// next one.
	Nodes []image.Platform
}

// A State is why there is a choice or none.
type State string

// The states of a choice.
const (
	Current     State = "current"     // nothing newer that may be chosen
	Newer       State = "newer"       // To is to be proposed
	Held        State = "held"        // a newer one waits: cooldown
	Blocked     State = "blocked"     // a newer one lacks a platform or a signature
	Unversioned State = "unversioned" // the tag is no version and has no digest to follow (latest)
	Unknown     State = "unknown"     // the registry does not say, or the policy makes no sense
)

// A Choice is the answer about one reference.
type Choice struct {
	State State
	// To is the reference to write, exactly as code should hold it; set when Newer.
	To string
	// Tag and Digest of To; of a reference that is a digest only, the tag that
	// names it.
	Tag    string
	Digest image.Digest
	// Major: To is a new major version, and the policy says that it goes separately.
	Major bool
	// Also is the new major version that goes separately beside this choice, when
	// both are there; nil otherwise. It is Newer and Major.
	Also *Choice
	// Reason, for people: what was found and what was passed over, with the cure.
	Reason string
	// Until is when a Held choice is due.
	Until time.Time
	// Passed are newer tags that were not taken, newest first, with the reason
	// of each; at most 10.
	Passed []Passed
}

// Passed is a newer tag that was not taken.
type Passed struct {
	Tag    string
	Reason string
}

// Facts are what is known when choosing.
type Facts struct {
	Now  time.Time
	Tags []catalog.Tag // all of the repository
	// Look describes a tag's image. It is asked of the few tags that come into
	// question, newest first, and of the current one. An error that is
	// [catalog.ErrNotFound] says that there is no such image, any other that
	// nobody knows.
	Look func(tag string) (catalog.Image, error)
	// Inspect describes the image that the code names by its digest, with the
	// same errors. It is asked of nothing else, and may be nil when the
	// reference has none.
	Inspect func(digest image.Digest) (catalog.Image, error)
}

// maxPassed bounds the list of tags that were not taken, and the images that
// are looked at for one choice: whoever pushes a hundred images without a
// platform does not make us ask for a hundred.
const maxPassed = 10
