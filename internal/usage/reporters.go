package usage

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"cairn.dev/cairn/internal/db"
)

// A Reporter has promised to speak once in every period.
type Reporter struct {
	Name    string        `json:"name"`
	Scope   []string      `json:"scope"`
	Period  time.Duration `json:"period"`
	First   time.Time     `json:"first"`   // enrolled
	Last    time.Time     `json:"last"`    // last statement
	Silent  bool          `json:"silent"`  // for more than three periods, or not heard since the start
	Digests int           `json:"digests"` // uses in force
	// Platforms of its nodes, as it said last.
	Platforms []Platform `json:"platforms,omitempty"`
}

// reporter is one in memory. Its statement is guarded by mu, which is taken
// before Ledger.mu; the rest by Ledger.mu.
type reporter struct {
	name    string
	scope   []string
	period  time.Duration
	first   time.Time
	last    time.Time
	mono    time.Duration // of last, when heard
	heard   bool          // since the start
	noticed bool          // its silence was logged
	unsaved bool
	stored  bool // there is a row
	held    int  // len(force)
	// platforms is replaced, never changed.
	platforms []Platform

	mu        sync.Mutex
	gone      bool  // forgotten while somebody waited for mu
	force     []ref // sorted
	stated    map[Source]stated
	pending   *pending
	abandoned string // the unfinished statement before pending
}

// stated is what the statement in force for a source was called, and for which
// sources it was made.
type stated struct {
	id   string
	mask uint
}

// pending is a statement of which parts are missing.
type pending struct {
	id      string
	parts   int
	mask    uint // sources it replaces, as far as known
	named   bool // by the reporter, not taken from its uses
	have    []bool
	missing int
	refs    []ref
	since   time.Duration
}

// silent goes by the monotonic clock, so that a clock which jumps (an interval
// of its own) makes nobody silent and hides nobody's silence; across a start
// there is only the wall clock to go by.
func (r *reporter) silent(now time.Time, mono time.Duration) bool {
	gone := now.Sub(r.last)
	if r.heard {
		gone = mono - r.mono
	}
	return gone > periods*r.period
}

// interval is the reporter's silence; without an end it goes on.
func (r *reporter) interval(to time.Time) Interval {
	iv := Interval{Scope: r.scope, From: r.last, To: to, Reporter: r.name}
	if to.IsZero() {
		iv.Why = fmt.Sprintf("reporter %s has been silent since %s (%d periods of %s)", r.name, at(r.last), periods, short(r.period))
		iv.Cure = fmt.Sprintf("start it again; if it is gone for good: cairn cluster forget %s", shellWord(r.name))
	} else {
		iv.Why = fmt.Sprintf("reporter %s was silent from %s to %s", r.name, at(r.last), at(to))
	}
	return iv
}

// shellWord writes a name so that it can be pasted into a shell.
func shellWord(s string) string {
	plain := s != "" && s[0] != '-'
	for _, c := range s {
		plain = plain && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("._-/:@", c))
	}
	if plain {
		return s
	}
	return "-- '" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// hear notes that the reporter has spoken. A gap that is too long becomes an
// interval, whether or not anybody noticed it while it lasted. l.mu is held.
func (l *Ledger) hear(r *reporter, now time.Time, period time.Duration, scope []string) {
	mono := l.clock.Mono()
	if r.silent(now, mono) {
		l.addInterval(r.interval(later(now, r.last)))
		l.log.Info("reporter speaks again", "reporter", r.name, "silent_since", r.last)
	}
	r.last, r.mono, r.heard, r.noticed, r.unsaved = later(now, r.last), mono, true, false, true
	r.period = period
	if !slices.Equal(r.scope, scope) {
		r.scope = slices.Clone(scope)
	}
}

// notice logs who fell silent and drops statements nobody finishes.
func (l *Ledger) notice() {
	l.mu.Lock()
	now, mono := l.nowLocked(), l.clock.Mono()
	var all []*reporter
	for _, r := range l.reporters {
		if !r.noticed && r.silent(now, mono) {
			r.noticed = true
			iv := r.interval(time.Time{})
			l.log.Warn("nothing in the scope of this reporter expires: "+iv.Why, "scope", r.scope, "cure", iv.Cure)
		}
		all = append(all, r)
	}
	l.mu.Unlock()
	for _, r := range all {
		if !r.mu.TryLock() {
			continue // it speaks just now
		}
		if r.pending != nil && mono-r.pending.since > MaxPeriod {
			l.abandon(r)
		}
		r.mu.Unlock()
	}
}

// Reporters are all that are enrolled, by name.
func (l *Ledger) Reporters() []Reporter {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watchLocked()
	now, mono := l.nowLocked(), l.clock.Mono()
	out := make([]Reporter, 0, len(l.reporters))
	for _, r := range l.reporters {
		out = append(out, Reporter{Name: r.name, Scope: r.scope, Period: r.period, First: r.first, Last: r.last, Silent: !r.heard || r.silent(now, mono), Digests: r.held, Platforms: r.platforms})
	}
	slices.SortFunc(out, func(a, b Reporter) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// InForce is what a reporter states to be in use now, by digest, at most limit
// of it. The error is [ErrUnknownReporter] if there is none of that name.
func (l *Ledger) InForce(name string, limit int) ([]Use, error) {
	l.mu.Lock()
	r := l.reporters[name]
	l.mu.Unlock()
	if r == nil {
		return nil, fmt.Errorf("reporter %s: %w", name, ErrUnknownReporter)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Use, 0, min(len(r.force), limit))
	for _, x := range r.force {
		if len(out) == limit {
			break
		}
		s := &l.shards[x&(1<<shardBits-1)]
		s.mu.Lock()
		row := &s.rows[x>>shardBits]
		out = append(out, l.use(s.entries[row.entry].digest, row))
		s.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b Use) int {
		return cmp.Or(cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Digest, b.Digest), cmp.Compare(a.Source, b.Source))
	})
	return out, nil
}

// EverEnrolled reports whether there ever was a reporter, forgotten ones
// included.
func (l *Ledger) EverEnrolled() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ever
}

// Forget drops a reporter that is gone for good: its statement is no longer in
// force, and its silence, if it was silent, ends now and stays an uncovered
// interval. One that speaks again is enrolled anew. It is stored when Forget
// returns; the error is [ErrUnknownReporter] if there is none.
func (l *Ledger) Forget(ctx context.Context, name string) error {
	l.watch()
	l.mu.Lock()
	r := l.reporters[name]
	l.mu.Unlock()
	if r == nil {
		return fmt.Errorf("forget %s: %w", name, ErrUnknownReporter)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l.mu.Lock()
	if r.gone {
		l.mu.Unlock()
		return fmt.Errorf("forget %s: %w", name, ErrUnknownReporter)
	}
	now := l.nowLocked()
	if !r.heard || r.silent(now, l.clock.Mono()) {
		if now.After(r.last) {
			l.addInterval(r.interval(now))
		}
	}
	r.gone = true
	delete(l.reporters, name)
	l.mu.Unlock()
	l.abandon(r)
	for _, x := range r.force {
		l.release(x)
	}
	r.force = nil
	// The interval first: if the second write is lost, the reporter is found
	// silent again, which is safe.
	if err := l.flush(ctx); err != nil {
		return fmt.Errorf("forget %s: %w", name, err)
	}
	l.flushMu.Lock() // nobody writes it back
	defer l.flushMu.Unlock()
	err := l.db.Write(ctx, func(tx *db.Tx) error {
		_, err := tx.Exec("DELETE FROM reporter WHERE name = ?", name)
		return err
	})
	if err != nil {
		return fmt.Errorf("forget %s: %w; try again after a restart", name, err)
	}
	return nil
}
