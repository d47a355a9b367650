package usage

import (
	"context"
	"fmt"
	"slices"
	"time"

	"cairn.dev/cairn/internal/image"
)

const (
	maxWarnings = 10
	// aheadOK is by how much a sender's clock may be ahead without a word.
	aheadOK = 5 * time.Second
	// maxPending bounds the memory of unfinished statements, at 4 bytes each.
	maxPending = 8_000_000
)

// Report records a statement. What it says is in force, and answered by
// [Ledger.Uses], when Report returns. Dated uses and a reporter's enrolment are
// stored by then, too; the uses of a reporter, which repeats itself, are
// written later. The same statement reported twice changes nothing more.
//
// Uses are recorded even if the statement as a whole is not applied in the end,
// because a part is missing or the ledger is full: that something was in use
// is true regardless.
//
// Errors: [BadStatementError], [ErrUnknownStatement], [ErrScope],
// [ErrLedgerFull], and those of the database.
func (l *Ledger) Report(ctx context.Context, by Identity, s Statement) (Receipt, error) {
	l.watch()
	if err := s.check(); err != nil {
		return Receipt{}, err
	}
	who, err := reporterName(by, s)
	if err != nil {
		return Receipt{}, err
	}
	scope := by.Scope
	if len(scope) == 0 {
		scope = everything
	}
	if err := l.checkUses(&s, who, scope); err != nil {
		return Receipt{}, err
	}
	if s.Period == 0 && s.SameAs == "" {
		return l.dated(ctx, s, who)
	}
	return l.stated(ctx, s, who, scope)
}

// reporterName is who speaks. Several reporters may share an account: each is
// a name of its own under it, so that none can speak for another account's.
func reporterName(by Identity, s Statement) (string, error) {
	switch {
	case by.Name == "" && s.Reporter == "" && (s.Period != 0 || s.SameAs != ""):
		return "", bad("reporter", "missing: a statement with a period must say whose it is")
	case by.Name == "":
		return s.Reporter, nil
	case s.Reporter == "" || s.Reporter == by.Name:
		return by.Name, nil
	}
	return by.Name + "/" + s.Reporter, nil
}

// checkUses finds what is wrong with the uses, before any is recorded. Names
// the ledger has already were checked when they came in.
func (l *Ledger) checkUses(s *Statement, who string, scope []string) error {
	all, sources := slices.Contains(scope, "**"), mask(s.Sources)
	for i := range s.Uses {
		u := &s.Uses[i]
		path := func(k string) string { return fmt.Sprintf("uses[%d].%s", i, k) }
		if u.Source != Container && u.Source != Workload {
			if err := checkSource(path("source"), u.Source); err != nil {
				return err
			}
		}
		if s.Complete && sources != 0 && sources&(1<<u.Source) == 0 {
			return bad(path("source"), "%s is not among the sources that this statement names", u.Source)
		}
		if !l.knows(u.Digest) {
			if u.Digest == "" {
				return bad(path("digest"), "missing")
			}
			if _, err := image.ParseDigest(string(u.Digest)); err != nil {
				return bad(path("digest"), "%v", err)
			}
		}
		if u.Repository != "" {
			if _, known := l.names.lookup(u.Repository); !known {
				if err := image.CheckRepository(u.Repository); err != nil {
					return bad(path("repository"), "%v", err)
				}
			}
			if !all && !image.MatchAny(scope, u.Repository) {
				return fmt.Errorf("%s: %w: %s is not in %q", path("repository"), ErrScope, u.Repository, scope)
			}
		}
		if u.Subject == "" {
			if who == "" {
				return bad(path("subject"), "missing: name the workload or host that uses the image")
			}
			u.Subject = who
		} else if _, known := l.names.lookup(u.Subject); !known {
			if err := checkText("", u.Subject, MaxSubject); err != nil {
				return bad(path("subject"), "%v", err.(*BadStatementError).Why)
			}
		}
	}
	return nil
}

// knows reports whether the digest is in the ledger.
func (l *Ledger) knows(d image.Digest) bool {
	s := &l.shards[shardOf(d)]
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.entry(d)
	return ok
}

// dated records uses that happened.
func (l *Ledger) dated(ctx context.Context, s Statement, who string) (Receipt, error) {
	rc := Receipt{Applied: true}
	if err := l.record(&s, &rc, nil); err != nil {
		return rc, err
	}
	if err := l.flush(ctx); err != nil {
		return rc, fmt.Errorf("store uses: %w; send them again", err)
	}
	return rc, nil
}

// record notes every use of a statement, and its row in refs if that is given:
// then the uses go on, whatever At says.
func (l *Ledger) record(s *Statement, rc *Receipt, refs *[]ref) error {
	now := l.now()
	warn := func(format string, args ...any) {
		switch n := len(rc.Warnings); {
		case n < maxWarnings:
			rc.Warnings = append(rc.Warnings, fmt.Sprintf(format, args...))
		case n == maxWarnings:
			rc.Warnings = append(rc.Warnings, "and more of the same")
		}
	}
	for i := range s.Uses {
		u := &s.Uses[i]
		ms := now
		if !u.At.IsZero() {
			if ms = u.At.UnixMilli(); ms > now {
				if ahead := time.Duration(ms-now) * time.Millisecond; ahead > aheadOK || ahead < 0 {
					warn("uses[%d].at: %s is %s in the future; recorded as now", i, at(u.At), short(ahead.Round(time.Second)))
				}
				ms = now
			}
			if refs != nil {
				ms = now
			}
			if ms < now-l.keep.Milliseconds() {
				warn("uses[%d].at: %s is longer ago than uses are kept (%s); not recorded", i, at(u.At), short(l.keep))
				continue
			}
		}
		x, ok := l.touch(u.Digest, l.names.id(u.Repository), l.names.id(u.Subject), u.Source, ms)
		if !ok {
			return fmt.Errorf("uses[%d]: %w (%d uses)", i, ErrLedgerFull, l.maxRows)
		}
		if refs != nil {
			*refs = append(*refs, x)
			l.count(x, u.Nodes)
		}
		rc.Accepted++
	}
	return nil
}

// stated handles what a reporter says.
func (l *Ledger) stated(ctx context.Context, s Statement, who string, scope []string) (Receipt, error) {
	var rc Receipt
	r, enrolled, err := l.enrol(&s, who, scope)
	if err != nil {
		return rc, err
	}
	defer r.mu.Unlock()
	rc.Enrolled = enrolled
	if rc.Period = s.Period; rc.Period == 0 { // only same_as may leave it out
		rc.Period = r.period
	}
	if c := min(max(rc.Period, MinPeriod), MaxPeriod); c != rc.Period {
		rc.Warnings = append(rc.Warnings, fmt.Sprintf("period: %s is outside %s to %s; taken as %s", short(rc.Period), short(MinPeriod), short(MaxPeriod), short(c)))
		rc.Period = c
	}
	switch {
	case s.SameAs != "":
		err = l.restateAll(r, &s, &rc)
	case s.Complete:
		err = l.complete(r, &s, &rc)
	default:
		rc.Applied = true
		err = l.record(&s, &rc, nil)
	}
	if err != nil {
		if enrolled {
			l.unenrol(r)
		}
		return rc, err
	}
	l.mu.Lock()
	r.held = len(r.force)
	if len(s.Platforms) > 0 && !slices.Equal(s.Platforms, r.platforms) {
		r.platforms, r.unsaved = slices.Clone(s.Platforms), true
	}
	stored := r.stored
	if rc.Applied || enrolled {
		l.hear(r, l.nowLocked(), rc.Period, scope)
	}
	l.mu.Unlock()
	if !stored {
		if err := l.saveReporters(ctx); err != nil {
			return rc, fmt.Errorf("enrol reporter %s: %w; send the statement again", who, err)
		}
	}
	if !s.Complete && s.SameAs == "" {
		if err := l.flush(ctx); err != nil {
			return rc, fmt.Errorf("store uses: %w; send them again", err)
		}
	}
	return rc, nil
}

// enrol finds or makes the reporter and locks its statement.
func (l *Ledger) enrol(s *Statement, who string, scope []string) (*reporter, bool, error) {
	for {
		l.mu.Lock()
		r := l.reporters[who]
		fresh := r == nil
		if fresh {
			if s.SameAs != "" {
				l.mu.Unlock()
				return nil, false, fmt.Errorf("same_as %q: %w", s.SameAs, ErrUnknownStatement)
			}
			if len(l.reporters) >= maxReporters {
				l.mu.Unlock()
				return nil, false, fmt.Errorf("enrol reporter %s: %w (%d reporters)", who, ErrLedgerFull, maxReporters)
			}
			now := l.nowLocked()
			r = &reporter{name: who, scope: slices.Clone(scope), period: min(max(s.Period, MinPeriod), MaxPeriod), first: now, last: now, mono: l.clock.Mono(), heard: true, unsaved: true, stated: map[Source]stated{}}
			r.mu.Lock()
			l.reporters[who] = r
		}
		l.mu.Unlock()
		if fresh {
			return r, true, nil
		}
		r.mu.Lock()
		if !r.gone {
			return r, false, nil
		}
		r.mu.Unlock() // forgotten while we waited: enrol it anew
	}
}

// unenrol takes back an enrolment by a statement that was refused.
func (l *Ledger) unenrol(r *reporter) {
	l.abandon(r)
	l.mu.Lock()
	defer l.mu.Unlock()
	r.gone = true
	delete(l.reporters, r.name)
}

func mask(ss []Source) (m uint) {
	for _, s := range ss {
		m |= 1 << s
	}
	return m
}

// complete takes a part of a statement, and applies it when it is the last one
// that was missing. r.mu is held.
func (l *Ledger) complete(r *reporter, s *Statement, rc *Receipt) error {
	parts, part := max(s.Parts, 1), max(s.Part, 1)
	p := r.pending
	if p == nil || p.id != s.Statement || p.parts != parts || parts == 1 {
		// A late part would end the newer statement that is under way. A first
		// part is a new attempt.
		if part > 1 && s.Statement == r.abandoned && r.abandoned != "" {
			return fmt.Errorf("statement %q: a newer one began before all its parts came: %w", s.Statement, ErrUnknownStatement)
		}
		l.abandon(r)
		p = &pending{id: s.Statement, parts: parts, have: make([]bool, parts), missing: parts, since: l.clock.Mono()}
		r.pending = p
	}
	if len(p.refs)+len(s.Uses) > MaxStated {
		l.abandon(r)
		return bad("uses", "the statement has more than %d in all", MaxStated)
	}
	if err := l.reserve(len(s.Uses)); err != nil {
		l.abandon(r)
		return err
	}
	if p.have[part-1] { // sent twice; what it says is in use all the same
		l.reserve(-len(s.Uses))
		return l.record(s, rc, new([]ref))
	}
	before := len(p.refs)
	if err := l.record(s, rc, &p.refs); err != nil {
		l.reserve(-(len(s.Uses) - (len(p.refs) - before)))
		l.abandon(r)
		return err
	}
	for i := range s.Uses {
		p.mask |= 1 << s.Uses[i].Source
	}
	if len(s.Sources) > 0 {
		p.mask, p.named = p.mask|mask(s.Sources), true
	}
	p.have[part-1] = true
	if p.missing--; p.missing > 0 {
		return nil
	}
	l.apply(r, rc)
	return nil
}

// reserve counts the memory of unfinished statements.
func (l *Ledger) reserve(n int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n > 0 && l.pendings+n > maxPending {
		return fmt.Errorf("too many unfinished statements: %w", ErrLedgerFull)
	}
	l.pendings += n
	return nil
}

// abandon drops the unfinished statement. r.mu is held.
func (l *Ledger) abandon(r *reporter) {
	p := r.pending
	if p == nil {
		return
	}
	r.pending = nil
	_ = l.reserve(-len(p.refs)) // giving back cannot fail
	r.abandoned = p.id
	for _, st := range r.stated {
		if st.id == p.id { // a restatement in full of what is in force may be tried again
			r.abandoned = ""
		}
	}
}

// apply puts the pending statement, which is whole, in force. r.mu is held.
func (l *Ledger) apply(r *reporter, rc *Receipt) {
	p := r.pending
	r.pending, r.abandoned = nil, ""
	_ = l.reserve(-len(p.refs)) // giving back cannot fail
	if p.mask == 0 {
		p.mask = 1<<Container | 1<<Workload
	}
	slices.Sort(p.refs)
	next := slices.Clone(slices.Compact(p.refs))
	for _, x := range next {
		l.hold(x)
	}
	var kept uint
	for _, x := range r.force { // after the new ones are held: what stays is never let go
		if src := l.source(x); p.mask&(1<<src) == 0 {
			next = append(next, x)
			kept |= 1 << src
			continue
		}
		l.release(x)
	}
	if kept != 0 {
		slices.Sort(next)
		if !p.named {
			for src := Pull; src <= Push; src++ {
				if kept&(1<<src) != 0 {
					rc.Warnings = append(rc.Warnings, fmt.Sprintf("sources: earlier uses of source %s stay in force, because this statement has none and names no sources; name them to replace all", src))
				}
			}
		}
	}
	r.force = next
	for src := Pull; src <= Push; src++ {
		switch {
		case p.mask&(1<<src) != 0:
			r.stated[src] = stated{p.id, p.mask}
		case r.stated[src].id == p.id: // the name means the newest that had it
			delete(r.stated, src)
		}
	}
	rc.Applied = true
}

// restateAll says again what is in force. r.mu is held.
func (l *Ledger) restateAll(r *reporter, s *Statement, rc *Receipt) error {
	var m uint
	for _, st := range r.stated {
		if st.id == s.SameAs {
			m = st.mask
		}
	}
	for src := Pull; src <= Push; src++ {
		if m&(1<<src) != 0 && r.stated[src].id != s.SameAs {
			m = 0 // another statement has replaced a part of it
		}
	}
	if m == 0 {
		return fmt.Errorf("same_as %q: %w", s.SameAs, ErrUnknownStatement)
	}
	now := l.now()
	for _, x := range r.force {
		if m&(1<<l.source(x)) != 0 {
			l.restate(x, now)
			rc.Accepted++
		}
	}
	rc.Applied = true
	return nil
}
