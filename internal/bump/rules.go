package bump

import (
	"time"

	"cairn.dev/cairn/internal/choose"
	"cairn.dev/cairn/internal/code"
)

// RulesFile is where a repository says how its images are chosen.
const RulesFile = ".cairn.yaml"

// A Rule is what holds for one image.
type Rule struct {
	Policy    choose.Policy
	Group     string // "" for the default
	Labels    []string
	Reviewers []string
	Automerge bool
	Ignore    string // why it is left alone; "" when it is not
}

// Rules are what a repository's .cairn.yaml says, as far as bump asks.
type Rules struct {
	Off      bool // enabled: false
	Prefix   string
	Options  code.Options
	MaxOpen  int
	PerHour  int
	Schedule func(now time.Time) bool
	For      func(im code.Image) Rule
}
