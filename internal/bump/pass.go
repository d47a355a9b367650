package bump

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cairn.dev/cairn/internal/choose"
	"cairn.dev/cairn/internal/code"
	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/rules"
)

const (
	// again is how often a pass begins anew because somebody moved a branch.
	again = 3
	// lookBack is how far back closed pull requests are looked for at first, and
	// overlap how much of it again each time.
	lookBack = 90 * 24 * time.Hour
	overlap  = 24 * time.Hour
	// gone is how long a forge may say that it does not know a repository that
	// globs have found, before it is forgotten and the images it named with it.
	gone = 7 * 24 * time.Hour
	// recheck is how soon what waits for checks, a limit or a schedule is
	// looked at again.
	recheck = time.Minute
	waiting = 10 * time.Minute
)

// pass looks at a repository once: what its code names, what is newer, and what
// is to be done about it. A *soonError is no failure.
func (e *Engine) pass(ctx context.Context, r *repository) error {
	r.pass.Lock()
	defer r.pass.Unlock()
	start := e.deps.Clock.Mono()
	var err error
	for range again {
		if err = e.passOnce(ctx, r); !errors.Is(err, forge.ErrMoved) && !errors.Is(err, forge.ErrExists) {
			break
		}
	}
	return e.finish(ctx, r, err, e.deps.Clock.Mono()-start)
}

// finish notes how a pass ended.
func (e *Engine) finish(ctx context.Context, r *repository, err error, took time.Duration) error {
	var soon *soonError
	failed := err != nil && !errors.As(err, &soon)
	if failed && ctx.Err() != nil {
		return err // the process ends: that says nothing about the repository
	}
	e.count(func(c *Counters) {
		c.Passes++
		c.Seconds += took.Seconds()
		if failed {
			c.PassesFailed++
		}
	})
	if r.gone {
		return nil
	}
	r.fails++
	if !failed {
		r.fails = 0
	}
	rec := r.change(func(rec *record) {
		rec.status.Forge, rec.status.Name = r.source.Name, r.name
		rec.status.Checked = rec.checked
		rec.status.Error, rec.status.Cure = "", ""
		if failed {
			rec.status.Error, rec.status.Cure = err.Error(), cure(err, r)
		}
	})
	e.try(r)
	if failed {
		e.deps.Log.Error("a repository of code could not be looked at; it is tried again", "repository", r.key(), "err", err, "times", r.fails)
	}
	if serr := e.store.save(ctx, rec); serr != nil {
		err = errors.Join(err, serr)
	}
	if derr := e.doubtAbout(ctx, r); derr != nil {
		err = errors.Join(err, derr)
	}
	return err
}

// cure says what a person can do about an error of a pass.
func cure(err error, r *repository) string {
	var broken *RulesError
	switch {
	case errors.As(err, &broken):
		return "correct " + rules.Name + " on the default branch; nothing is proposed until then"
	case errors.Is(err, forge.ErrUnauthorized):
		return "give the forge " + r.source.Name + " a secret that it accepts, in the configuration of this server"
	case errors.Is(err, forge.ErrForbidden):
		return "let the account of this server read code and write branches and pull requests in " + r.name
	case errors.Is(err, forge.ErrNotFound):
		return "is the name right, and may the account of this server see " + r.name + "? Else take it out of the configuration"
	}
	return ""
}

func (e *Engine) passOnce(ctx context.Context, r *repository) error {
	if err := e.know(ctx, r); err != nil || r.gone {
		return err
	}
	now := e.deps.Clock.Now()
	head, err := r.source.Forge.Head(ctx, r.name, r.info.DefaultBranch)
	if errors.Is(err, forge.ErrNotFound) {
		// Nothing was ever pushed: no code, no uses.
		e.found(r, &reading{result: &code.Result{}}, now)
		return nil
	}
	if err != nil {
		return fmt.Errorf("ask where the branch %s is: %w", r.info.DefaultBranch, err)
	}
	x, err := e.read(ctx, r, head)
	var broken *RulesError
	if err != nil && !errors.As(err, &broken) {
		return err
	}
	e.found(r, x, now)
	if err := e.store.save(ctx, r.record()); err != nil {
		return err // before anything is proposed that may make it old
	}
	if broken != nil {
		return errors.Join(broken, e.complain(ctx, r, broken))
	}
	if r.record().issue {
		if err := e.content(ctx, r); err != nil {
			return err
		}
	}
	return e.propose(ctx, r, x, now)
}

// know asks the forge about the repository, once an interval.
func (e *Engine) know(ctx context.Context, r *repository) error {
	mono := e.deps.Clock.Mono()
	if r.infoUntil > mono {
		return nil
	}
	info, err := r.source.Forge.Repository(ctx, r.name)
	now := e.deps.Clock.Now()
	if errors.Is(err, forge.ErrNotFound) {
		rec := r.change(func(rec *record) {
			if rec.missing.IsZero() {
				rec.missing = now
			}
		})
		if now.Sub(rec.missing) > gone && !r.source.names(r.name) {
			e.deps.Log.Warn("a repository of code is gone for a week and is forgotten; the images it named are not kept for it any more", "repository", r.key())
			r.gone = true
			return e.forget(ctx, r)
		}
	}
	if err != nil {
		return fmt.Errorf("ask about the repository: %w", err)
	}
	r.info, r.infoUntil = info, mono+r.source.Interval
	r.change(func(rec *record) {
		rec.missing = time.Time{}
		rec.status.URL, rec.status.Branch = info.URL, info.DefaultBranch
		rec.status.Note = ""
		switch {
		case info.Archived:
			rec.status.Note = "the repository is archived: its images are kept, and nothing is proposed"
		case !info.CanPush:
			rec.status.Note = "the account of this server may not write here: images are kept, and nothing is proposed"
		}
	})
	return nil
}

// names reports whether the configuration names the repository itself.
func (s *source) names(repo string) bool {
	for _, n := range s.Repositories {
		if n == repo {
			return true
		}
	}
	return false
}

// found notes what the code names.
func (e *Engine) found(r *repository, x *reading, now time.Time) {
	rec := r.change(func(rec *record) {
		var pulls, before []codeUse
		for _, u := range rec.uses {
			if u.Pull != 0 {
				pulls = append(pulls, u)
			} else {
				before = append(before, u)
			}
		}
		rec.head, rec.checked = x.head, now
		rec.uses = append(usesOf(r.key(), x.result, before), pulls...)
		rec.status.Head, rec.status.Problems = x.head, x.result.Problems
		if len(x.result.Images) == 0 {
			rec.status.Images = nil
		}
	})
	e.index.set(r.key(), e.named(rec.uses))
}

// account is who we are at a forge.
func (e *Engine) account(ctx context.Context, s *source) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.account == "" {
		a, err := s.Forge.Account(ctx)
		if err != nil && !errors.Is(err, forge.ErrUnsupported) {
			return "", fmt.Errorf("ask who we are at %s: %w", s.Name, err)
		}
		s.account = a
	}
	return s.account, nil
}

// propose compares what is wanted with what the forge has, and acts.
func (e *Engine) propose(ctx context.Context, r *repository, x *reading, now time.Time) error {
	a := newAnswers(ctx, e.deps.Catalog)
	picks := e.pick(a, x, now)
	note := r.record().status.Note
	if x.rules.Off {
		note = rules.Name + " switches proposals off"
	}
	if note != "" {
		e.tell(r, picks, nil, note)
		return nil
	}
	groups := GroupImages(x.rules.Prefix, picks)
	st, err := e.gather(ctx, r, x, now)
	if err != nil {
		e.tell(r, picks, nil, "")
		return err
	}
	proposals, err := e.draft(ctx, x, groups, st.declined)
	if err != nil {
		return err
	}
	if err := e.lookAtBranches(ctx, r, x, st, proposals, now); err != nil {
		e.tell(r, picks, nil, "")
		return err
	}
	opened, err := e.store.openedSince(ctx, r.record().id, now.Add(-time.Hour))
	if err != nil {
		return err
	}
	actions := Decide(Facts{Proposals: proposals, Branches: st.branches, Open: x.rules.Schedule(now),
		MaxOpen: x.rules.MaxOpen, PerHour: x.rules.PerHour, Opened: opened, Pullless: r.pullless})
	act := &actor{e: e, r: r, x: x, st: st, a: a, now: now}
	soon := time.Duration(0)
	for i := range actions {
		if err := act.do(ctx, &actions[i]); err != nil {
			act.uses()
			e.tell(r, picks, actions, "")
			return err
		}
		soon = sooner(soon, act.soon)
		if actions[i].Verb == Wait {
			soon = sooner(soon, waiting)
		}
	}
	if err := act.clean(ctx, proposals); err != nil {
		return err
	}
	r.change(func(rec *record) { rec.listed = now })
	act.uses()
	e.tell(r, picks, actions, "")
	for _, w := range picks {
		if w.Choice.State == choose.Held && w.Choice.Until.After(now) {
			soon = sooner(soon, w.Choice.Until.Sub(now))
		}
	}
	if soon > 0 {
		return &soonError{soon}
	}
	return nil
}

// sooner is the shorter of two times of which 0 is none.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

// tell writes down, for every image, why there is a pull request or none.
func (e *Engine) tell(r *repository, picks []*Wanted, actions []Action, note string) {
	type told struct {
		group *Group
		a     *Action
	}
	by := map[*Wanted]told{}
	for i := range actions {
		if p := actions[i].Proposal; p != nil {
			for _, w := range p.Group.Images {
				if _, ok := by[w]; !ok && w.Choice.Major == p.Group.major() {
					by[w] = told{&p.Group, &actions[i]}
				}
			}
		}
	}
	var out []ImageStatus
	add := func(w *Wanted) {
		s := ImageStatus{Image: w.Image.ID, Place: w.Image.Place.String(), Address: w.Image.Address, Value: w.Image.Value, Repository: w.Ref.Repository(),
			State: w.State, Reason: w.Reason, To: w.Choice.To, Until: w.Choice.Until}
		if w.Ref == (code.Reference{}) {
			s.Repository = ""
		}
		if s.State == "" {
			s.State, s.Reason = string(w.Choice.State), w.Choice.Reason
		}
		if t, ok := by[w]; ok {
			s.Group, s.Branch = t.group.Name, t.group.Branch
			if t.a.Pull != nil {
				s.Pull = t.a.Pull.URL
			}
			if w.Choice.State == choose.Newer && w.State == "" {
				s.Verb = t.a.Verb
				if t.a.Reason != "" {
					s.Reason = t.a.Reason
				}
			}
		}
		if note != "" && w.Choice.State == choose.Newer {
			s.Verb, s.Reason = Leave, note
		}
		out = append(out, s)
	}
	for _, w := range picks {
		add(w)
		if w.also != nil {
			add(w.also)
		}
	}
	r.change(func(rec *record) { rec.status.Images = out })
}
