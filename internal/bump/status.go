package bump

import (
	"time"

	"cairn.dev/cairn/internal/code"
)

// States of an image of the code beside those of [choose.State].
const (
	StateFixed    = "fixed"    // it cannot be edited
	StateRefused  = "refused"  // the edit could not be verified
	StateIgnored  = "ignored"  // .cairn.yaml leaves it out
	StateDeclined = "declined" // a person closed the pull request of that version
)

// An ImageStatus answers for one image of the code: why is there no pull request?
type ImageStatus struct {
	Image      string    `json:"image"` // [code.Image.ID]
	Place      string    `json:"place"` // file:line
	Address    string    `json:"address"`
	Value      string    `json:"value"`      // the reference in the code; "" when it is not known
	Repository string    `json:"repository"` // with its host
	State      string    `json:"state"`
	To         string    `json:"to,omitempty"` // what it is to become
	Group      string    `json:"group,omitempty"`
	Branch     string    `json:"branch,omitempty"`
	Pull       string    `json:"pull,omitempty"` // URL of the pull request
	Verb       Verb      `json:"verb,omitempty"`
	Reason     string    `json:"reason"`
	Until      time.Time `json:"until,omitzero"` // when what holds it is over
}

// A RepositoryStatus says how a repository of code is doing.
type RepositoryStatus struct {
	Forge  string `json:"forge"`
	Name   string `json:"name"`
	URL    string `json:"url,omitempty"`
	Branch string `json:"branch,omitempty"` // the default one
	Head   string `json:"head,omitempty"`   // its commit that was read
	// Checked is when all of it was last known to be so; zero: never.
	Checked time.Time `json:"checked,omitzero"`
	Next    time.Time `json:"next,omitzero"`
	// Error of the last pass; "" when it went well.
	Error string `json:"error,omitempty"`
	Cure  string `json:"cure,omitempty"`
	// Note is what a person should know beside: archived, switched off.
	Note     string         `json:"note,omitempty"`
	Images   []ImageStatus  `json:"images,omitempty"`
	Problems []code.Problem `json:"problems,omitempty"`
}

// Key names the repository in commands: forge/owner/name.
func (s *RepositoryStatus) Key() string { return s.Forge + "/" + s.Name }

// Counters add up over the life of the process, for metrics.
type Counters struct {
	Passes, PassesFailed                     int64
	Opened, Updated, Closed, Merged, Skipped int64
	Archives                                 int64 // trees that were fetched
	Pushes, Hooks                            int64 // events that came in
	Repositories, Images, Failing, Stale     int   // now
	// Oldest is the age of the oldest scan.
	Oldest time.Duration
	// Seconds that passes took in all.
	Seconds float64
}
