package terraform

import "cairn.dev/cairn/internal/code"

// To be replaced by the room's sinks: delete each function here when the real
// one is there.

// sinkTypes returns the types of resources and data sources that may hold
// images, the user's own among them: only those are evaluated.
func sinkTypes(o code.Options) map[string]bool { return nil }

// sinks returns the images of one instance.
func sinks(r Resource, o code.Options) []code.Image { return nil }

// markers returns the images that comments name in a file of Terraform or of
// variables. It is called for files that have "cairn:" in their bytes; the
// literals are all those of the file, by where they start.
func markers(f code.File, literals []*literal) []code.Image { return nil }
