package retention

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
)

// batch is how many images one call to the content changes at most. Content
// cuts it into transactions itself; this bounds what is held in memory.
const batch = 512

// lastUses is how many uses the audit log keeps of what goes.
const lastUses = 10

// RunOptions say how a run was asked for.
type RunOptions struct {
	Yes   bool   // also if it empties the registry, or only planning is on
	Actor string // who asked, for the log
}

// A Report says what a run did.
type Report struct {
	Plan     Summary   `json:"plan"`
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished"`
	Expired  int       `json:"expired"`
	Revived  int       `json:"revived"`
	Swept    int       `json:"swept"`
	// Bytes adds up the sizes of the expired images, shared blobs each time.
	Bytes int64 `json:"bytes"`
	// Changed were used or changed while the run went on, and stay.
	Changed int `json:"changed"`
	Failed  int `json:"failed"`
	// Errors are the first few.
	Errors []string `json:"errors,omitempty"`
	// Applied is false when the plan was not carried out: while planning only.
	Applied bool `json:"applied"`
}

// An EverythingError says that a run would have expired every live image, and
// was not carried out.
type EverythingError struct {
	Expire, Live int
	// Changed: the policies changed since they were last applied.
	Changed bool
}

func (e *EverythingError) Error() string {
	why := ""
	if e.Changed {
		why = ", after the policies changed"
	}
	return fmt.Sprintf("retention would expire all %d of %d live images at once%s: nothing was done; see `cairn retention plan`, then correct the policies or confirm with `cairn retention run --yes`", e.Expire, e.Live, why)
}

// ErrPlanningOnly is returned by [Engine.RunOnce] while the engine only plans.
var ErrPlanningOnly = errors.New("retention only plans, because the configuration holds no policy and no reporter was ever enrolled: write retention.policies, enroll a reporter, or confirm with `cairn retention run --yes`")

// RunOnce plans and executes now. It returns an [*EverythingError] if that
// would expire every live image, and [ErrPlanningOnly] where that holds, unless
// the options say yes. Problems with single images are in the report and no
// error.
func (e *Engine) RunOnce(ctx context.Context, opts RunOptions) (Report, error) {
	return e.run(ctx, opts, false)
}

func (e *Engine) run(ctx context.Context, opts RunOptions, loop bool) (Report, error) {
	e.running.Lock()
	defer e.running.Unlock()
	r := Report{Started: e.deps.Clock.Now()}
	e.set(func(s *Status) { s.Running, s.problems = true, nil })
	err := e.runLocked(ctx, opts, loop, &r)
	r.Finished = e.deps.Clock.Now()
	e.finish(&r, err)
	if err == nil && (r.Expired+r.Revived+r.Swept+r.Failed > 0 || !loop) {
		e.deps.Log.Info("retention run", "actor", opts.Actor, "live", r.Plan.Live, "expired", r.Expired, "revived", r.Revived,
			"swept", r.Swept, "changed", r.Changed, "failed", r.Failed, "bytes", r.Bytes)
	}
	return r, err
}

func (e *Engine) runLocked(ctx context.Context, opts RunOptions, loop bool, r *Report) error {
	now := e.deps.Clock.Now()
	var todo []string
	soon, hidden := map[uint64]int64{}, newHiddenIndex()
	sum, err := e.plan(ctx, now, func(repo string, ds []Decision) error {
		act := false
		for i := range ds {
			switch o := &ds[i]; {
			case o.Action == Keep:
				if o.Horizon == At && o.ExpiresAt.Sub(now) <= e.cfg.WarnWithin {
					soon[key(repo, o.Image.Digest)] = o.ExpiresAt.Unix()
				}
			case o.Action != Hidden:
				act = true
			}
			if ds[i].Image.State == content.Expired {
				hidden.add(ds[i].Image, repo)
			}
		}
		if act {
			todo = append(todo, repo)
		}
		return nil
	})
	r.Plan = sum
	if err != nil {
		return err
	}
	e.hidden.Store(hidden)

	// What may be done?
	applied, err := e.deps.Memory.Applied(ctx)
	if err != nil {
		return err
	}
	changed := applied != e.fingerprint
	everything := sum.Live > 0 && sum.Expire == sum.Live && !opts.Yes && (changed || !loop)
	planning := sum.PlanningOnly && !opts.Yes
	var refused error
	switch {
	case planning && !loop:
		refused = ErrPlanningOnly
	case everything && !planning:
		refused = &EverythingError{Expire: sum.Expire, Live: sum.Live, Changed: changed}
	}
	mayExpire := !planning && refused == nil
	if loop || refused == nil {
		e.set(func(s *Status) {
			s.Held = nil
			var all *EverythingError
			if errors.As(refused, &all) {
				s.Held = &Held{Expire: all.Expire, Live: all.Live}
			}
		})
	}
	if refused != nil && !loop {
		return refused
	}
	if !mayExpire {
		soon = map[uint64]int64{} // nothing will go
	}
	e.soon.Store(&soon)

	// Bringing back is safe whatever holds; so is sweeping what a person
	// deleted.
	x := &execution{e: e, r: r, hidden: hidden, mayExpire: mayExpire, fresh: &fresh{ledger: e.deps.Ledger, clock: e.deps.Clock}}
	if x.v, err = e.view(ctx, now); err != nil {
		return err
	}
	if mayExpire {
		if _, err := e.squeeze(ctx, x.v); err != nil {
			return err
		}
	}
	for _, repo := range todo {
		if err := x.repository(ctx, repo); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			x.fail(repo, err)
		}
	}
	if err := x.flush(ctx); err != nil {
		return err
	}
	r.Applied = mayExpire
	// While something is in doubt, the policies have not shown what they do.
	if mayExpire && changed && x.v.clockOK && len(e.openIntervals()) == 0 || opts.Yes && mayExpire {
		return e.deps.Memory.SetApplied(ctx, e.fingerprint)
	}
	return nil
}

func (e *Engine) openIntervals() []usage.Interval {
	var open []usage.Interval
	for _, i := range e.deps.Ledger.Uncovered() {
		if i.To.IsZero() {
			open = append(open, i)
		}
	}
	return open
}

// An execution carries out a plan: repository by repository it decides again,
// with fresh facts, and collects what is to be done into batches.
type execution struct {
	e         *Engine
	v         *view
	r         *Report
	hidden    *hiddenIndex
	mayExpire bool
	fresh     *fresh

	queued int
	levels [][]pending // to expire; see Levels
	sweep  []content.Expiry
}

// pending is one image to expire.
type pending struct {
	item    content.Expiry
	image   content.Image
	above   []*outcome // indexes and subject that must have gone before
	outcome *outcome
}

// outcome says whether an image of a lower level went.
type outcome struct{ gone bool }

func (x *execution) repository(ctx context.Context, repo string) error {
	images, err := x.e.deps.Content.ImagesOf(ctx, repo)
	if err != nil {
		return fmt.Errorf("read images of %s: %w", repo, err)
	}
	ds, err := x.e.decide(ctx, x.v, repo, images)
	if err != nil {
		return err
	}
	var g *guard
	if slices.ContainsFunc(ds, func(o Decision) bool { return o.Action == Expire || o.Action == Sweep }) {
		// Once more, on what is known since the guard stands.
		g = newGuard(x.e.deps.Ledger, x.fresh, repo, images, x.v.now)
		if ds, err = x.e.decide(ctx, x.v, repo, images); err != nil {
			return err
		}
	}
	for i := range ds {
		switch o := &ds[i]; o.Action {
		case Revive:
			if err := x.e.deps.Content.Revive(ctx, repo, o.Image.Digest, o.Reason()); err != nil {
				x.fail(repo, fmt.Errorf("revive %s@%s: %w", repo, o.Image.Digest, err))
			} else {
				x.r.Revived++
			}
		case Sweep:
			if x.mayExpire || o.Image.State == content.Deleted {
				x.sweep = append(x.sweep, content.Expiry{
					Repository: repo, Digest: o.Image.Digest, Version: o.Image.Version, Reason: o.Reason(), Uses: x.uses(i, o, len(ds)),
					StillUnused: g.stillUnused(i, o),
				})
				x.queued++
			}
		}
	}
	if x.mayExpire && g != nil {
		x.expire(repo, ds, g)
	}
	if x.queued >= batch {
		return x.flush(ctx)
	}
	return nil
}

// expire queues the images of one repository that expire.
func (x *execution) expire(repo string, ds []Decision, g *guard) {
	levels := Levels(ds)
	if len(levels) == 0 {
		return
	}
	at := map[image.Digest]*outcome{}
	number := map[image.Digest]int{}
	for i := range ds {
		number[ds[i].Image.Digest] = i
	}
	parents := map[image.Digest][]*outcome{}
	for l, ds := range levels {
		for len(x.levels) <= l {
			x.levels = append(x.levels, nil)
		}
		for _, o := range ds {
			im := o.Image
			p := pending{image: *im, outcome: &outcome{}, above: parents[im.Digest]}
			if s, ok := at[im.Subject]; ok {
				p.above = append(p.above, s)
			}
			at[im.Digest] = p.outcome
			for _, c := range im.Children {
				if c != im.Digest {
					parents[c] = append(parents[c], p.outcome)
				}
			}
			i := number[im.Digest]
			p.item = content.Expiry{
				Repository: repo, Digest: im.Digest, Version: im.Version, Reason: o.Reason(),
				Uses: x.uses(i, o, len(ds)), StillUnused: g.stillUnused(i, o),
			}
			x.levels[l] = append(x.levels[l], p)
			x.queued++
		}
	}
}

// uses are the last uses of image i for the audit log.
func (x *execution) uses(i int, o *Decision, of int) []usage.Use {
	var us []usage.Use
	if of <= 1000 { // Graph.Uses walks the whole repository
		us = x.v.decider.g.Uses(x.v.decider.node[i], x.e.deps.Ledger.Uses)
	} else {
		us = x.e.deps.Ledger.Uses(o.Image.Digest)
	}
	if len(us) > lastUses {
		us = us[:lastUses]
	}
	return us
}

// flush does what was queued: level by level, so that nothing is hidden that
// something needs which could not be.
func (x *execution) flush(ctx context.Context) error {
	levels, sweep := x.levels, x.sweep
	x.levels, x.sweep, x.queued = nil, nil, 0
	for _, level := range levels {
		var items []content.Expiry
		var of []*pending
		for i := range level {
			p := &level[i]
			stays := false
			for _, a := range p.above {
				stays = stays || !a.gone
			}
			if stays {
				x.r.Changed++
				continue
			}
			items, of = append(items, p.item), append(of, p)
		}
		if len(items) == 0 {
			continue
		}
		x.fresh.renew()
		errs, err := x.e.deps.Content.Expire(ctx, items)
		if err != nil {
			return fmt.Errorf("expire images: %w", err)
		}
		for i, p := range of {
			switch err := errs[i]; {
			case err == nil:
				p.outcome.gone = true
				x.r.Expired++
				x.r.Bytes += p.image.Size
				x.hidden.add(&p.image, p.item.Repository)
			case errors.Is(err, content.ErrChanged):
				x.r.Changed++
			default:
				x.fail(p.item.Repository, fmt.Errorf("expire %s@%s: %w", p.item.Repository, p.item.Digest, err))
			}
		}
	}
	if len(sweep) == 0 {
		return nil
	}
	errs, err := x.e.deps.Content.Sweep(ctx, sweep)
	if err != nil {
		return fmt.Errorf("sweep images: %w", err)
	}
	for i, err := range errs {
		switch {
		case err == nil:
			x.r.Swept++
		case errors.Is(err, content.ErrChanged):
			x.r.Changed++
		default:
			x.fail(sweep[i].Repository, fmt.Errorf("sweep %s@%s: %w", sweep[i].Repository, sweep[i].Digest, err))
		}
	}
	return nil
}

func (x *execution) fail(repo string, err error) {
	x.r.Failed++
	if len(x.r.Errors) < 20 {
		x.r.Errors = append(x.r.Errors, err.Error())
	}
	x.e.problem(repo, err)
}

// ReviveUsed brings back the hidden images that were used since it was last
// called, as far as the ledger is a [Feed]; the loop calls it every two seconds.
func (e *Engine) ReviveUsed(ctx context.Context) error {
	feed, ok := e.deps.Ledger.(Feed)
	if !ok {
		return nil
	}
	e.running.Lock()
	defer e.running.Unlock()
	digests, next, all := feed.Changed(e.seen)
	hidden := e.hidden.Load()
	repos := map[string]bool{}
	if all {
		hidden.all(repos)
	}
	for _, d := range digests {
		for _, r := range hidden.repositories(d) {
			repos[r] = true
		}
	}
	var errs []error
	for _, repo := range slices.Sorted(maps.Keys(repos)) {
		errs = append(errs, e.reviveIn(ctx, repo))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	e.seen = next
	return nil
}

func (e *Engine) reviveIn(ctx context.Context, repo string) error {
	v, err := e.view(ctx, e.deps.Clock.Now())
	if err != nil {
		return err
	}
	images, err := e.deps.Content.ImagesOf(ctx, repo)
	if err != nil {
		return fmt.Errorf("read images of %s: %w", repo, err)
	}
	ds, err := e.decide(ctx, v, repo, images)
	if err != nil {
		return err
	}
	var errs []error
	n := 0
	for i := range ds {
		if o := &ds[i]; o.Action == Revive {
			if err := e.deps.Content.Revive(ctx, repo, o.Image.Digest, o.Reason()); err != nil {
				errs = append(errs, fmt.Errorf("revive %s@%s: %w", repo, o.Image.Digest, err))
			} else {
				n++
			}
		}
	}
	e.mu.Lock()
	e.totals.Revived += int64(n)
	e.mu.Unlock()
	return errors.Join(errs...)
}
