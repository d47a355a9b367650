// Package retention decides which images go, and makes them go.
//
// It owns the policies, the decision about each image ([Decide]: pure, one
// repository at a time), the bound on bytes ([Policy.MaxBytes]), and the
// [Engine]: the loop that plans, expires, revives and sweeps, and that explains
// itself ([Engine.Why], [Engine.Status]). It promises that what is in use,
// pinned, protected, or covered by doubt is never expired; that what nobody
// used for the whole covered time is gone one interval later; and that it
// deletes nothing while it is not sure, and says so.
//
// It does not store uses (usage), hold or hide images (content), or know who
// may ask (access).
package retention

import (
	"fmt"
	"time"

	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
)

// An Action is what is to become of an image.
type Action uint8

const (
	Keep   Action = iota // live, and stays so
	Expire               // live, to be hidden
	Revive               // hidden by retention, to be brought back
	Hidden               // hidden, and stays so for now
	Sweep                // hidden, to be forgotten
)

var actionNames = [...]string{"keep", "expire", "revive", "hidden", "sweep"}

func (a Action) String() string { return actionNames[a] }

// MarshalText implements encoding.TextMarshaler.
func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// A Code says why, for programs. [Decision.Reason] says it for people.
type Code uint8

// Why an image is kept, expired, revived, left hidden or swept.
const (
	NoPolicy    Code = iota // keep: no policy matches the repository
	InUse                   // keep, revive: a use that goes on; hidden: the same, and a person hid it
	Pinned                  // keep, revive, hidden: likewise
	Recent                  // keep: used within `after`
	Doubt                   // keep: not used within `after`, but not all of that time is covered
	Young                   // keep: pushed less than min_age ago
	KeepLast                // keep: among the newest tags
	Protected               // keep: has a protected tag
	Needed                  // keep, revive: part of an index that is kept
	Referrer                // keep, revive: refers to an image that is kept
	NoAgeLimit              // keep: the policy has no `after`
	ClockDoubt              // keep, hidden: would go, but the clock cannot be trusted
	Unused                  // expire: not used for longer than `after`
	SubjectGoes             // expire: what it refers to expires
	TooLarge                // expire: max_bytes, and least recently used
	UsedAgain               // revive: used since it was hidden
	Waiting                 // hidden: not yet hidden for as long as it is kept
	KeptLong                // sweep: hidden for as long as hidden images are kept
)

var codeNames = [...]string{
	NoPolicy: "no_policy", InUse: "in_use", Pinned: "pinned", Recent: "recent", Doubt: "doubt", Young: "young",
	KeepLast: "keep_last", Protected: "protected", Needed: "needed", Referrer: "referrer", NoAgeLimit: "no_age_limit",
	ClockDoubt: "clock_doubt", Unused: "unused", SubjectGoes: "subject_goes", TooLarge: "max_bytes", UsedAgain: "used_again",
	Waiting: "waiting", KeptLong: "kept_long",
}

func (c Code) String() string { return codeNames[c] }

// MarshalText implements encoding.TextMarshaler.
func (c Code) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// A Horizon says how far the end of an image can be foreseen.
type Horizon uint8

const (
	At      Horizon = iota // at Decision.ExpiresAt, if nothing changes
	Never                  // not as long as the reason holds
	Unknown                // an uncovered interval is open, or the clock is in doubt
)

var horizonNames = [...]string{"at", "never", "unknown"}

func (h Horizon) String() string { return horizonNames[h] }

// MarshalText implements encoding.TextMarshaler.
func (h Horizon) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// A Decision is what becomes of one image, and why.
type Decision struct {
	Image  *content.Image
	Action Action
	Code   Code
	// LastUse is the newest use of anything in the image's closure, pushes
	// included; its zero value means there is none.
	LastUse usage.Use
	// Age is the covered age: the time since the last use that Cairn can vouch
	// for. For a hidden image it is the covered time since it was hidden.
	Age time.Duration
	// ExpiresAt is when a live image goes, or a hidden one is swept, if
	// nothing changes and Horizon is At. One interval of the loop may pass on
	// top.
	ExpiresAt time.Time
	Horizon   Horizon
	// By is the image that keeps this one, for Needed, Referrer and SubjectGoes.
	By image.Digest
	// Policy is the one that decided; nil if none matches.
	Policy *Policy
	// Limit is the bound that Age is measured against.
	Limit time.Duration

	elapsed time.Duration // since LastUse, covered or not
}

// PolicyName is the name of the policy that decided, or "".
func (d *Decision) PolicyName() string {
	if d.Policy == nil {
		return ""
	}
	return d.Policy.Name
}

// Reason is a short sentence for people.
func (d *Decision) Reason() string {
	switch d.Code {
	case NoPolicy:
		return "no policy matches the repository"
	case InUse:
		return "in use by " + describe(d.LastUse)
	case Pinned:
		return "pinned" + by(d.LastUse.Subject)
	case Recent:
		if d.elapsed > d.Age+time.Second {
			return fmt.Sprintf("last use %s ago, %s of it covered by reports, within %s", Duration(d.elapsed), Duration(d.Age), Duration(d.Limit))
		}
		return fmt.Sprintf("last use %s ago, within %s", Duration(d.Age), Duration(d.Limit))
	case Doubt:
		return fmt.Sprintf("no use is known for %s, more than %s, but only %s of it are covered by reports", Duration(d.elapsed), Duration(d.Limit), Duration(d.Age))
	case Young:
		return fmt.Sprintf("pushed less than %s ago", Duration(d.Policy.MinAge))
	case KeepLast:
		return fmt.Sprintf("has one of the %d newest tags", d.Policy.KeepLast)
	case Protected:
		return "has a protected tag"
	case Needed:
		return "part of " + short(d.By) + ", which is kept"
	case Referrer:
		return "refers to " + short(d.By) + ", which is kept"
	case NoAgeLimit:
		return "the policy sets no limit of age"
	case ClockDoubt:
		return "it would go, but the clock cannot be trusted now"
	case Unused:
		return fmt.Sprintf("not used for %s, more than %s", Duration(d.Age), Duration(d.Limit))
	case SubjectGoes:
		return "refers to " + short(d.By) + ", which expires"
	case TooLarge:
		return fmt.Sprintf("least recently used, and the images of the policy take more than %d bytes", d.Policy.MaxBytes)
	case UsedAgain:
		return "used since it was hidden: " + describe(d.LastUse)
	case Waiting:
		return fmt.Sprintf("hidden for %s, swept after %s", Duration(d.Age), Duration(d.Limit))
	case KeptLong:
		return fmt.Sprintf("hidden for %s, as long as hidden images are kept", Duration(d.Limit))
	}
	return d.Code.String()
}

func describe(u usage.Use) string {
	s := u.Source.String()
	if u.Subject != "" {
		s += " " + u.Subject
	}
	switch {
	case u.Nodes == 1:
		s += " on 1 node"
	case u.Nodes > 1:
		s += fmt.Sprintf(" on %d nodes", u.Nodes)
	}
	return s
}

func by(s string) string {
	if s == "" {
		return ""
	}
	return ": " + s
}

func short(d image.Digest) string {
	if s := string(d); len(s) > 19 {
		return s[:19]
	}
	return string(d)
}

// Duration prints a duration as people write it in the configuration: 30d,
// 12h, 90s, of two units at most.
func Duration(d time.Duration) string {
	const day = 24 * time.Hour
	neg := ""
	if d < 0 {
		neg, d = "-", -d
	}
	units := []struct {
		d time.Duration
		s string
	}{{day, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}}
	for i, u := range units {
		if d < u.d {
			continue
		}
		s := fmt.Sprintf("%s%d%s", neg, d/u.d, u.s)
		if rest := d % u.d; i+1 < len(units) && rest >= units[i+1].d {
			s += fmt.Sprintf("%d%s", rest/units[i+1].d, units[i+1].s)
		}
		return s
	}
	if d == 0 {
		return "0s"
	}
	return neg + d.Round(time.Millisecond).String()
}
