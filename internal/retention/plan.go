package retention

import (
	"context"
	"fmt"
	"time"

	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
)

// A Summary counts what a plan says.
type Summary struct {
	At           time.Time `json:"at"`
	PlanningOnly bool      `json:"planning_only"` // nothing of it will be done; see [Status.Cure]
	Repositories int       `json:"repositories"`
	Images       int       `json:"images"`
	Live         int       `json:"live"`
	Keep         int       `json:"keep"`
	Expire       int       `json:"expire"`
	Revive       int       `json:"revive"`
	Hidden       int       `json:"hidden"`
	Sweep        int       `json:"sweep"`
	// ExpireBytes adds up the sizes of the images to expire; what they share
	// with others is in it, and counted each time.
	ExpireBytes int64 `json:"expire_bytes"`
	// Reasons counts images by [Code].
	Reasons map[string]int `json:"reasons"`
	// Bounded says how full the policies with MaxBytes are, before anything
	// goes for it.
	Bounded []Bounded `json:"bounded,omitempty"`
	codes   [KeptLong + 1]int
}

// Bounded is one policy with MaxBytes.
type Bounded struct {
	Policy   string `json:"policy"`
	Bytes    int64  `json:"bytes"`
	MaxBytes int64  `json:"max_bytes"`
	Over     int    `json:"over"` // images that go for it
}

func (s *Summary) count(ds []Decision) {
	if len(ds) > 0 {
		s.Repositories++
	}
	for i := range ds {
		o := &ds[i]
		s.Images++
		s.codes[o.Code]++
		if o.Image.State == content.Live {
			s.Live++
		}
		switch o.Action {
		case Keep:
			s.Keep++
		case Expire:
			s.Expire++
			s.ExpireBytes += o.Image.Size
		case Revive:
			s.Revive++
		case Hidden:
			s.Hidden++
		case Sweep:
			s.Sweep++
		}
	}
}

func (s *Summary) done() {
	s.Reasons = map[string]int{}
	for c, n := range s.codes {
		if n > 0 {
			s.Reasons[Code(c).String()] = n
		}
	}
}

// Plan decides about every image as of the time at and calls f with each
// decision, repository by repository in order of name; f may be nil. at may lie
// in the future: then nothing is taken to change until then, and what is in use
// now, or uncovered now, still to be so. Nothing is executed. A Decision and
// its Image are good until f returns. The result of f ends the plan if it is an
// error.
func (e *Engine) Plan(ctx context.Context, at time.Time, f func(Decision) error) (Summary, error) {
	return e.plan(ctx, at, func(_ string, ds []Decision) error {
		if f == nil {
			return nil
		}
		for i := range ds {
			if err := f(ds[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// view is what holds for all repositories of one plan.
type view struct {
	now       time.Time
	clockOK   bool
	coverages *usage.Coverages
	pins      map[string][]content.Pin
	over      map[string]map[image.Digest]bool // what goes for MaxBytes
	decider   decider
}

func (e *Engine) view(ctx context.Context, at time.Time) (*view, error) {
	v := &view{now: at, coverages: usage.NewCoverages(e.deps.Ledger.Uncovered()), pins: map[string][]content.Pin{}}
	v.clockOK, _ = e.deps.Ledger.ClockOK()
	pins, err := e.deps.Content.Pins(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("read pins: %w", err)
	}
	for _, p := range pins {
		v.pins[p.Repository] = append(v.pins[p.Repository], p)
	}
	return v, nil
}

// decide decides over one repository. The result is good until the next call.
func (e *Engine) decide(ctx context.Context, v *view, repo string, images []content.Image) ([]Decision, error) {
	owned, err := e.owned(ctx, v, repo)
	if err != nil {
		return nil, err
	}
	f := Facts{
		Repository: repo, Images: images, Last: e.deps.Ledger.LastUse, Owned: owned,
		Coverage: v.coverages.For(repo), ClockOK: v.clockOK, Now: v.now, Keep: e.cfg.Keep,
	}
	ds := v.decider.decide(Match(e.cfg.Policies, repo), &f)
	if over := v.over[repo]; len(over) > 0 && v.clockOK {
		v.decider.applyOver(&f, over)
	}
	return ds, nil
}

// owned collects the facts that Cairn owns about a repository.
func (e *Engine) owned(ctx context.Context, v *view, repo string) (map[image.Digest][]usage.Use, error) {
	var all map[image.Digest][]usage.Use
	for _, o := range e.deps.Owners {
		m, err := o.InUse(ctx, repo)
		if err != nil {
			return nil, fmt.Errorf("ask what is in use in %s: %w", repo, err)
		}
		for d, us := range m {
			if all == nil {
				all = map[image.Digest][]usage.Use{}
			}
			all[d] = append(all[d], us...)
		}
	}
	for _, p := range v.pins[repo] {
		if !p.Expires.IsZero() && !p.Expires.After(v.now) {
			continue
		}
		if all == nil {
			all = map[image.Digest][]usage.Use{}
		}
		all[p.Digest] = append(all[p.Digest], pinUse(p))
	}
	return all, nil
}

func pinUse(p content.Pin) usage.Use {
	subject := p.By
	if p.Reason != "" {
		if subject != "" {
			subject += ", "
		}
		subject += p.Reason
	}
	return usage.Use{Digest: p.Digest, Repository: p.Repository, Source: usage.Pin, Subject: subject, At: p.Created, Now: true}
}

// plan decides over all repositories in order.
func (e *Engine) plan(ctx context.Context, at time.Time, visit func(repo string, ds []Decision) error) (Summary, error) {
	s := Summary{At: at, PlanningOnly: e.planningOnly()}
	v, err := e.view(ctx, at)
	if err != nil {
		return s, err
	}
	if s.Bounded, err = e.squeeze(ctx, v); err != nil {
		return s, err
	}
	err = e.deps.Content.Scan(ctx, "", func(repo string, images []content.Image) error {
		ds, err := e.decide(ctx, v, repo, images)
		if err != nil {
			// Not knowing what is in use is no reason to stop elsewhere, and
			// every reason to touch nothing here.
			e.problem(repo, err)
			return ctx.Err()
		}
		s.count(ds)
		return visit(repo, ds)
	})
	s.done()
	if err != nil {
		return s, fmt.Errorf("plan retention: %w", err)
	}
	return s, nil
}

// squeeze finds what goes for MaxBytes and leaves it in v.over. It goes over
// all repositories of its own, before the plan: who is least recently used is
// known only after the last of them.
func (e *Engine) squeeze(ctx context.Context, v *view) ([]Bounded, error) {
	of := map[*Policy]*squeeze{}
	var in []*Policy
	for i := range e.cfg.Policies {
		if p := &e.cfg.Policies[i]; p.MaxBytes > 0 {
			of[p], in = newSqueeze(p.MaxBytes), append(in, p)
		}
	}
	if len(in) == 0 {
		return nil, nil
	}
	err := e.deps.Content.Scan(ctx, "", func(repo string, images []content.Image) error {
		s := of[Match(e.cfg.Policies, repo)]
		if s == nil {
			return nil
		}
		ds, err := e.decide(ctx, v, repo, images)
		if err != nil {
			e.problem(repo, err)
			return ctx.Err()
		}
		at := s.add(repo, ds, v.decider.facts)
		return e.deps.Content.BlobsOf(ctx, repo, func(manifest, blob image.Digest, size int64) error {
			if k, ok := at[manifest]; ok {
				s.refer(k, blob, size)
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("add up the bytes of images: %w", err)
	}
	v.over = map[string]map[image.Digest]bool{}
	var out []Bounded
	for _, p := range in {
		s := of[p]
		b := Bounded{Policy: p.Name, Bytes: s.total, MaxBytes: p.MaxBytes}
		s.over(func(repo string, d image.Digest) {
			m := v.over[repo]
			if m == nil {
				m = map[image.Digest]bool{}
				v.over[repo] = m
			}
			m[d] = true
			b.Over++
		})
		out = append(out, b)
	}
	return out, nil
}

// applyOver turns the images that go for MaxBytes from kept to expired, unless
// the facts have changed so that something which stays needs them.
func (d *decider) applyOver(f *Facts, over map[image.Digest]bool) {
	goes := make([]bool, len(d.out))
	at := make(map[image.Digest]int, len(d.out))
	for i := range d.out {
		o := &d.out[i]
		at[o.Image.Digest] = i
		goes[i] = over[o.Image.Digest] && o.Action == Keep && !d.facts[i].firm
	}
	for again := true; again; {
		again = false
		for i := range d.out {
			o := &d.out[i]
			if s := d.facts[i].subject; goes[i] && s >= 0 && !goes[s] && d.out[s].Action == Keep {
				goes[i], again = false, true
			}
			if goes[i] || o.Action != Keep && o.Action != Revive {
				continue
			}
			for _, c := range o.Image.Children {
				if c, ok := at[c]; ok && goes[c] {
					goes[c], again = false, true
				}
			}
		}
	}
	for i := range d.out {
		if !goes[i] {
			continue
		}
		o := &d.out[i]
		o.Action, o.Code, o.Horizon, o.ExpiresAt, o.By = Expire, TooLarge, At, f.Now, ""
		if s := d.facts[i].subject; s >= 0 {
			o.Code, o.By = SubjectGoes, f.Images[s].Digest
		}
	}
}
