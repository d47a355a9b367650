package usage

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"cairn.dev/cairn/internal/image"
)

// Limits of the clock and of standing still, beyond which there is doubt.
const (
	maxDrift  = time.Minute     // wall against monotonic clock between two looks
	maxBehind = 5 * time.Minute // clock behind what was seen before
	maxDown   = 3 * time.Minute // between the alive mark and a start
)

// everything is the scope of doubt that concerns all repositories.
var everything = []string{"**"}

// watch looks at the clock. Every method that answers or decides something
// calls it, so that nobody acts on a jump before it is known.
func (l *Ledger) watch() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watchLocked()
}

func (l *Ledger) watchLocked() {
	wall, mono := l.look()
	newest := time.UnixMilli(l.newest.Load()).UTC()
	passed := mono - l.watched
	l.watched = mono
	switch gone := wall.Sub(newest); {
	case gone < -maxBehind:
		if l.behind.IsZero() {
			l.behind = newest
			l.log.Error("the clock is behind the time already seen; nothing is deleted until it has caught up", "now", wall, "seen", newest)
		}
		return
	case gone < 0:
		return // a small step back: wait for it
	case !l.behind.IsZero():
		l.addInterval(Interval{Scope: everything, From: l.behind, To: wall, Why: fmt.Sprintf("the clock was behind %s, the time already seen", at(l.behind))})
		l.log.Info("the clock has caught up", "now", wall)
		l.behind = time.Time{}
	case gone-passed > maxDrift:
		l.addInterval(Interval{Scope: everything, From: newest, To: wall, Why: fmt.Sprintf("the clock jumped forward by %s, to %s", short((gone - passed).Round(time.Second)), at(wall))})
		l.log.Error("the clock jumped forward; the jump does not count as time without use", "by", gone-passed, "to", wall)
	}
	l.newest.Store(wall.UnixMilli())
}

// look reads both clocks as of one moment: time that passes between the two
// readings would look like a jump.
func (l *Ledger) look() (wall time.Time, mono time.Duration) {
	for {
		mono = l.clock.Mono()
		wall = l.clock.Now()
		if l.clock.Mono()-mono < maxDrift/2 {
			return wall, mono
		}
	}
}

// ClockOK reports false, and why, while the clock is behind the time that was
// already seen: nothing may be decided by it then. A jump forward does not make
// it false; the jump itself becomes an uncovered interval.
func (l *Ledger) ClockOK() (bool, string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watchLocked()
	if l.behind.IsZero() {
		return true, ""
	}
	return false, l.behindWhy() + "; set the clock right, or wait until it has caught up"
}

func (l *Ledger) behindWhy() string {
	now := l.clock.Now()
	return fmt.Sprintf("the clock says %s, but Cairn has already seen %s (%s later)", at(now), at(l.behind), short(l.behind.Sub(now).Round(time.Second)))
}

// TrustClock takes the present time of the clock for true although later times
// were seen: those were wrong then. Uses dated after now become uses of now,
// and uncovered intervals that reach beyond now end now. It is for a person
// who knows that the clock ran ahead before.
func (l *Ledger) TrustClock(ctx context.Context) error {
	l.mu.Lock()
	wall := l.clock.Now()
	ms := wall.UnixMilli()
	l.newest.Store(ms)
	l.watched, l.behind = l.clock.Mono(), time.Time{}
	l.unclean.Store(min(l.unclean.Load(), ms))
	for i := range l.intervals {
		iv := &l.intervals[i]
		if iv.To.After(wall) {
			iv.To = wall
			iv.From = earlier(iv.From, wall)
			l.unsaved = append(l.unsaved, iv.ID)
		}
	}
	for _, r := range l.reporters {
		r.last = earlier(r.last, wall)
		r.unsaved = true
	}
	l.mu.Unlock()
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		for j := range s.rows {
			if r := &s.rows[j]; r.source != 0 && r.last > ms {
				r.last = ms
				if !r.dirty {
					r.dirty = true
					s.dirty = append(s.dirty, uint32(j))
				}
			}
		}
		s.mu.Unlock()
	}
	if err := l.flush(ctx); err != nil {
		return fmt.Errorf("trust the clock: %w", err)
	}
	err := l.saveMeta(ctx, map[string]int64{metaUnclean: l.unclean.Load()})
	if err == nil {
		err = l.mark(ctx, false)
	}
	if err != nil {
		return fmt.Errorf("trust the clock: %w", err)
	}
	return nil
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// addInterval adds an interval in memory; the next flush writes it. Should the
// process die before, the start finds the same doubt again, by the alive mark
// or by the time of the reporter's last statement. l.mu is held.
func (l *Ledger) addInterval(iv Interval) int64 {
	iv.ID = l.nextID
	l.nextID++
	l.intervals = append(l.intervals, iv)
	l.unsaved = append(l.unsaved, iv.ID)
	return iv.ID
}

// OpenInterval records that uses may have been missed from iv.From on, by
// somebody else's knowledge: a stale scan of code, a restored backup. With a To
// it is closed at once. It is stored when OpenInterval returns; its ID is given
// by the ledger.
func (l *Ledger) OpenInterval(ctx context.Context, iv Interval) (int64, error) {
	if len(iv.Scope) == 0 {
		iv.Scope = everything
	}
	for _, g := range iv.Scope {
		if err := image.CheckGlob(g); err != nil {
			return 0, fmt.Errorf("open uncovered interval: scope: %w", err)
		}
	}
	if iv.From.IsZero() || iv.Why == "" {
		return 0, fmt.Errorf("open uncovered interval: it needs a beginning and a reason")
	}
	if !iv.To.IsZero() && iv.To.Before(iv.From) {
		return 0, fmt.Errorf("open uncovered interval: it ends (%s) before it begins (%s)", at(iv.To), at(iv.From))
	}
	iv.Scope = slices.Clone(iv.Scope)
	l.mu.Lock()
	id := l.addInterval(iv)
	l.mu.Unlock()
	if err := l.flush(ctx); err != nil {
		return id, fmt.Errorf("store uncovered interval: %w", err)
	}
	return id, nil
}

// CloseInterval ends an interval that is open; at is held to the time since it
// began. Closing one that is closed changes nothing: intervals are never
// shortened. It is stored when CloseInterval returns.
func (l *Ledger) CloseInterval(ctx context.Context, id int64, at time.Time) error {
	l.mu.Lock()
	found := false
	for i := range l.intervals {
		iv := &l.intervals[i]
		if iv.ID != id {
			continue
		}
		found = true
		if iv.To.IsZero() {
			iv.To = later(at, iv.From).UTC()
			l.unsaved = append(l.unsaved, id)
		}
	}
	l.mu.Unlock()
	if !found {
		return fmt.Errorf("close uncovered interval %d: it is not known", id)
	}
	if err := l.flush(ctx); err != nil {
		return fmt.Errorf("close uncovered interval %d: %w", id, err)
	}
	return nil
}

// Uncovered are all intervals that still matter, oldest first. Those that are
// open have a zero To; those of a reporter that is silent now, or not yet heard
// since the start, and of a clock that is behind, have no ID: they become rows
// when they end, and are found again from what is stored until then.
func (l *Ledger) Uncovered() []Interval {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watchLocked()
	now, mono := l.nowLocked(), l.clock.Mono()
	out := slices.Clone(l.intervals)
	if !l.behind.IsZero() {
		out = append(out, Interval{Scope: everything, From: l.behind, Why: l.behindWhy(), Cure: "set the clock right, or wait until it has caught up"})
	}
	for _, r := range l.reporters {
		switch {
		case r.silent(now, mono):
			out = append(out, r.interval(time.Time{}))
		case !r.heard:
			iv := r.interval(time.Time{})
			iv.Why = fmt.Sprintf("reporter %s has not been heard since Cairn started; its last statement is from %s", r.name, at(r.last))
			out = append(out, iv)
		}
	}
	slices.SortStableFunc(out, func(a, b Interval) int {
		if c := a.From.Compare(b.From); c != 0 {
			return c
		}
		return strings.Compare(a.Reporter, b.Reporter)
	})
	return out
}

func (l *Ledger) nowLocked() time.Time { return time.UnixMilli(l.now()).UTC() }
