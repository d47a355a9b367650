// Package usage is the ledger: who used which digest, and when.
//
// It owns the facts that come from outside (pulls, containers, workloads, and
// what other systems report of their code and runs), the reporters they come
// from, and the intervals of time about which the ledger knows that it may have
// missed something. It promises that recording a use
// never fails or slows a pull, that what is decided from it is decided from
// memory and not from what happened to be flushed, and that a reporter's
// silence is remembered as doubt and not as absence. It does not know
// manifests: turning uses of digests into uses of images is [Credit], which is
// told the edges; whether an image goes is retention's.
package usage

import (
	"fmt"
	"time"

	"cairn.dev/cairn/internal/image"
)

// A Source says what kind of fact a use is.
type Source uint8

// The sources. Pull, Container and Workload come from outside and are stored
// here. Push, Pin and Cairn's own Code and Run are facts that are owned
// elsewhere and asked for when deciding; Code and Run may also be reported by
// other systems (a CI job), and are stored then.
const (
	Pull Source = iota + 1
	Container
	Workload
	Code
	Run
	Pin
	Push
)

var sourceNames = [...]string{Pull: "pull", Container: "container", Workload: "workload", Code: "code", Run: "run", Pin: "pin", Push: "push"}

func (s Source) String() string {
	if s > 0 && int(s) < len(sourceNames) {
		return sourceNames[s]
	}
	return fmt.Sprintf("source(%d)", uint8(s))
}

// ParseSource reads the name of a source.
func ParseSource(s string) (Source, error) {
	for i, n := range sourceNames {
		if n == s && n != "" {
			return Source(i), nil
		}
	}
	return 0, fmt.Errorf("unknown source %q: use pull, container, workload, code, run, pin or push", s)
}

// MarshalText implements encoding.TextMarshaler.
func (s Source) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Source) UnmarshalText(b []byte) (err error) {
	*s, err = ParseSource(string(b))
	return err
}

// A Use is one fact: this digest was used by this subject at this time.
type Use struct {
	Digest     image.Digest `json:"digest"`
	Repository string       `json:"repository,omitempty"` // "" when not known: any
	Source     Source       `json:"source"`
	Subject    string       `json:"subject"` // a workload or host, never a pod
	At         time.Time    `json:"at"`
	// Now: the use goes on. A reporter's statement in force says so, or the
	// part of Cairn that owns the fact.
	Now bool `json:"now,omitempty"`
	// Nodes is on how many nodes it goes on, for people; 0 when nobody counted.
	// It is as the reporter counted when it last stated its uses in full.
	Nodes int `json:"nodes,omitempty"`
}

// An Interval is covered by doubt: between From and To somebody in Scope may
// have used an image without the ledger being told. A zero To is still open.
type Interval struct {
	ID       int64     `json:"id"`
	Scope    []string  `json:"scope"` // repository globs
	From     time.Time `json:"from"`
	To       time.Time `json:"to,omitzero"`
	Why      string    `json:"why"`
	Reporter string    `json:"reporter,omitempty"`
	Cure     string    `json:"cure,omitempty"`
}

// Holds reports whether the interval concerns the repository.
func (i Interval) Holds(repository string) bool { return image.MatchAny(i.Scope, repository) }
