// Package code is what Cairn knows of a repository of code: its files at one
// moment, the images they name, and changes of their bytes.
//
// It owns the words that the readers of formats (terraform, manifest), the
// editor (scan) and whoever opens pull requests (bump) share. It promises to
// be pure, that no path leads out of a [Tree], and that a changed Tree differs
// from the old one in the spliced bytes and in nothing else. It reads no format.
package code

import (
	"fmt"
)

// A Format is a way to write an image down.
type Format string

// The formats that are read.
const (
	Terraform  Format = "terraform"
	Kubernetes Format = "kubernetes"
	Kustomize  Format = "kustomize"
	Helm       Format = "helm"
	Pulumi     Format = "pulumi"
	Dockerfile Format = "dockerfile"
	Compose    Format = "compose"
	Marker     Format = "marker" // a comment: # cairn: image=REPO [policy]
)

// A Range is bytes of a file, [Start, End), as they are stored.
type Range struct {
	File       string `json:"file"`
	Start, End int
}

// A Place is where a person finds something. Lines and columns count from 1;
// columns are bytes.
type Place struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column,omitempty"`
}

func (p Place) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// A Step is one station on the way from an image to the bytes it comes from,
// such as "local.images.api" at "main.tf:12".
type Step struct {
	Name  string `json:"name"`
	Place Place  `json:"place"`
}

// An Image is one place where code says which image runs: a sink.
type Image struct {
	// ID names the sink within its tree. It does not depend on the image's
	// value, on bytes before it or on anything that a bump changes.
	ID     string `json:"id"`
	Format Format `json:"format"`
	// Dir is the folder that the sink belongs to: of a Terraform resource, its
	// root module's.
	Dir string `json:"dir"`
	// Address is what the format's users call the object:
	// `module.api.kubernetes_deployment.this["a"]`, `Deployment/web`, `stage build`.
	Address string `json:"address"`
	// Path is where in the object: spec.template.spec.container[0].image
	Path  string `json:"path"`
	Place Place  `json:"place"`
	// Environment is the set of var-files it was evaluated with; "" is the default.
	Environment string `json:"environment,omitempty"`
	// Value is the reference as evaluated, put together where a format keeps its
	// parts apart; "" when it is not known.
	Value string `json:"value,omitempty"`
	// Chart says that Value is a Helm chart in an OCI registry and not an image.
	Chart bool `json:"chart,omitempty"`
	// Chain leads from the sink to the literals; its first step is the sink.
	Chain []Step `json:"chain,omitempty"`
	// Sources are the literals that Value may have come from, each the bytes
	// between its quotes. More than needed is harmless: edits are verified.
	Sources []Range `json:"-"`
	// Fixed says why the image cannot be edited; "" when it can be tried.
	Fixed string `json:"fixed,omitempty"`
	// Policy is what a marker beside the image says about how to choose a newer
	// one, in the words of .cairn.yaml; "" for the repository's own rules.
	Policy string `json:"policy,omitempty"`
}

// A Problem is something that could not be read, and what it costs.
type Problem struct {
	Place Place  `json:"place"`
	Text  string `json:"text"`
}

// A Want asks for the image named by its ID to become exactly To.
type Want struct {
	Image string `json:"image"`
	To    string `json:"to"`
}

// A Splice puts New in place of the bytes of its range.
type Splice struct {
	Range
	New string
}

// An Effect is one sink that a change moves.
type Effect struct {
	Image string `json:"image"` // its ID
	From  string `json:"from"`
	To    string `json:"to"`
}

// A Change is splices that were verified: applied to the tree they were made
// for, all wanted images become what was wanted, and Effects is all else and
// all that moves with them.
type Change struct {
	Splices []Splice
	Effects []Effect
}

// A RefusedError says why an image cannot become what was wanted.
type RefusedError struct {
	Image  string // its ID
	Reason string
}

func (e *RefusedError) Error() string { return fmt.Sprintf("%s: %s", e.Image, e.Reason) }

// Options of a reader.
type Options struct {
	// Environments are named sets of var-files, paths from the root of the tree,
	// each evaluated on its own beside the default.
	Environments map[string][]string
	// Sinks are what the user adds to the table of Terraform's.
	Sinks []Sink
	// Ignore are globs of paths that are not read (image.Glob syntax).
	Ignore []string
	// Marked are globs of text files of other formats, in which only markers are read.
	Marked []string
}

// A Sink of the user's: the attribute Path of resources of type Type.
type Sink struct {
	Type string // kubernetes_deployment
	Path string // spec.template.spec.container.image; lists and blocks are passed through
}

// A Result is what a tree says.
type Result struct {
	Images   []Image   // sorted by ID, which is unique
	Problems []Problem // sorted by place
}
