package bump

import (
	"time"

	"cairn.dev/cairn/internal/choose"
	"cairn.dev/cairn/internal/code"
	"cairn.dev/cairn/internal/rules"
)

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
	Subject  func(image, from, to string) string
	For      func(im code.Image) Rule
}

// ReadRules reads a .cairn.yaml ([rules.Parse]); nil bytes are none, which
// means the defaults.
func ReadRules(file []byte) (*Rules, error) {
	r := rules.Default()
	if file != nil {
		var err error
		if r, err = rules.Parse(rules.Name, file); err != nil {
			return nil, err
		}
	}
	return &Rules{
		Off: !r.Enabled, Prefix: r.BranchPrefix, Options: r.Options(), MaxOpen: r.Limits.Open, PerHour: r.Limits.PerHour, Schedule: r.Open, Subject: r.Subject,
		For: func(im code.Image) Rule {
			x, err := r.For(im)
			if err != nil {
				return Rule{Ignore: err.Error()}
			}
			out := Rule{Policy: x.Policy, Group: x.Group, Labels: x.Labels, Reviewers: x.Reviewers, Automerge: x.Automerge}
			if !x.Enabled {
				out.Ignore = x.Source + " leaves it alone (enabled: false)"
			}
			return out
		},
	}, nil
}
