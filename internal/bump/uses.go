package bump

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/code"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
)

// A codeUse is a reference in code, or in an open pull request of ours.
type codeUse struct {
	Repository string       `json:"repository"` // with its host
	Tag        string       `json:"tag,omitempty"`
	Digest     image.Digest `json:"digest,omitempty"`
	Subject    string       `json:"subject"`
	Pull       int64        `json:"pull,omitempty"` // of the pull request that would use it
}

// namedUse is a use whose repository is called by its one name.
type namedUse struct {
	codeUse
	name, own string
}

// An index finds who names an image, by memory alone.
type index struct {
	mu   sync.RWMutex
	uses map[string][]namedUse            // by the key of the repository of code
	by   map[string]map[string]bool       // name of an image's repository -> keys
	own  map[string]map[string][]namedUse // name in our registry -> key -> uses
}

func newIndex() *index {
	return &index{uses: map[string][]namedUse{}, by: map[string]map[string]bool{}, own: map[string]map[string][]namedUse{}}
}

// set replaces what the code of key uses.
func (x *index) set(key string, uses []namedUse) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, u := range x.uses[key] {
		delete(x.by[u.name], key)
		if len(x.by[u.name]) == 0 {
			delete(x.by, u.name)
		}
		delete(x.own[u.own], key)
		if len(x.own[u.own]) == 0 {
			delete(x.own, u.own)
		}
	}
	if len(uses) == 0 {
		delete(x.uses, key)
		return
	}
	x.uses[key] = uses
	for _, u := range uses {
		if x.by[u.name] == nil {
			x.by[u.name] = map[string]bool{}
		}
		x.by[u.name][key] = true
		if u.own == "" {
			continue
		}
		if x.own[u.own] == nil {
			x.own[u.own] = map[string][]namedUse{}
		}
		x.own[u.own][key] = append(x.own[u.own][key], u)
	}
}

// readers are the keys of the code that names images of the repository.
func (x *index) readers(name string) []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	out := make([]string, 0, len(x.by[name]))
	for key := range x.by[name] {
		out = append(out, key)
	}
	slices.Sort(out)
	return out
}

// ofOwn are the uses of images of a repository of our registry.
func (x *index) ofOwn(own string) (out []namedUse, keys []string) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for key, uses := range x.own[own] {
		for _, u := range uses {
			out, keys = append(out, u), append(keys, key)
		}
	}
	return out, keys
}

// name is the one name of a repository of images, and its name with us.
func (e *Engine) name(repository string) (name, own string) {
	if e.deps.Registry == nil {
		return repository, ""
	}
	return e.deps.Registry.Name(repository)
}

func (e *Engine) named(uses []codeUse) []namedUse {
	out := make([]namedUse, 0, len(uses))
	for _, u := range uses {
		name, own := e.name(u.Repository)
		out = append(out, namedUse{u, name, own})
	}
	return out
}

// useOf is the use that a reference makes, without its subject.
func useOf(ref code.Reference) codeUse {
	u := codeUse{Repository: ref.Repository(), Tag: ref.Tag, Digest: ref.Digest}
	if u.Tag == "" && u.Digest == "" {
		u.Tag = "latest"
	}
	return u
}

// usesOf are the uses that code makes. Where a file could not be read, what it
// named when it last could is taken to be named still.
func usesOf(key string, res *code.Result, before []codeUse) []codeUse {
	var out []codeUse
	seen := map[codeUse]bool{}
	add := func(u codeUse) {
		if !seen[u] {
			seen[u] = true
			out = append(out, u)
		}
	}
	for _, im := range res.Images {
		ref, err := code.ParseReference(im.Value)
		if err != nil {
			continue
		}
		u := useOf(ref)
		u.Subject = key + ": " + im.Place.File
		add(u)
	}
	broken := map[string]bool{}
	for _, p := range res.Problems {
		broken[key+": "+p.Place.File] = true
	}
	for _, u := range before {
		if broken[u.Subject] {
			add(u)
		}
	}
	return out
}

// InUse says what code uses of a repository of our registry: what the default
// branches name, and what our open pull requests would. It is an
// retention.Owner. Until each repository of code was tried once since it was
// configured, it fails: nobody knows then.
func (e *Engine) InUse(ctx context.Context, repository string) (map[image.Digest][]usage.Use, error) {
	if n := e.unread.Load(); n > 0 {
		return nil, fmt.Errorf("%d forges or repositories of code were not read yet since they were configured, so that nobody knows what they use; see `cairn bump status`", n)
	}
	uses, keys := e.index.ofOwn(repository)
	if len(uses) == 0 {
		return nil, nil
	}
	out := map[image.Digest][]usage.Use{}
	tags := map[string]image.Digest{}
	for i, u := range uses {
		d := u.Digest
		if d == "" {
			var known bool
			if d, known = tags[u.Tag]; !known {
				var err error
				if d, err = e.deps.Registry.Resolve(ctx, repository, u.Tag); err != nil {
					return nil, fmt.Errorf("which image %s:%s is, that %s names: %w", repository, u.Tag, u.Subject, err)
				}
				tags[u.Tag] = d
			}
		}
		if d == "" {
			continue // no such image here: nothing to keep
		}
		at := time.Time{}
		if r := e.repository(keys[i]); r != nil {
			at = r.record().checked
		}
		out[d] = append(out[d], usage.Use{Digest: d, Repository: repository, Source: usage.Code, Subject: u.Subject, At: at, Now: true})
	}
	for _, list := range out {
		slices.SortFunc(list, func(a, b usage.Use) int { return strings.Compare(a.Subject, b.Subject) })
	}
	return out, nil
}

// try notes that a pass over the repository has ended.
func (e *Engine) try(r *repository) {
	r.mu.Lock()
	first := !r.tried
	r.tried = true
	r.mu.Unlock()
	if first {
		e.unread.Add(-1)
	}
}

// doubtOf names the interval of the ledger that is about one repository of code.
func doubtOf(key string) string { return "code/" + key }

// stale says why it is not known what a repository of code uses, and since when;
// "" when it is.
func (e *Engine) stale(r *repository, now time.Time) (why string, since time.Time) {
	rec := r.record()
	limit := 3 * r.source.Interval
	r.mu.Lock()
	tried := r.tried
	r.mu.Unlock()
	switch {
	case rec.checked.IsZero() && tried:
		why, since = "its code could not be read yet", rec.since
	case !rec.checked.IsZero() && now.Sub(rec.checked) > limit:
		why, since = fmt.Sprintf("its code was last read at %s, more than three intervals ago", rec.checked.Format(time.RFC3339)), rec.checked
	default:
		return "", time.Time{}
	}
	if rec.status.Error != "" {
		why += ": " + oneLine(rec.status.Error, 300)
	}
	return fmt.Sprintf("nobody knows which images %s uses: %s", r.key(), why), since
}

// doubt tells the ledger which repositories of code are stale, so that nothing
// they may use expires, and which are not any more.
func (e *Engine) doubt(ctx context.Context) error {
	return e.doubtEach(ctx, e.all())
}

// doubtAbout is doubt after a pass over one of them.
func (e *Engine) doubtAbout(ctx context.Context, r *repository) error {
	return e.doubtEach(ctx, []*repository{r})
}

func (e *Engine) doubtEach(ctx context.Context, list []*repository) error {
	if e.deps.Ledger == nil {
		return nil
	}
	e.doubting.Lock() // or two would open the same
	defer e.doubting.Unlock()
	open := map[string]usage.Interval{}
	for _, iv := range e.deps.Ledger.Uncovered() {
		if iv.To.IsZero() && iv.ID != 0 {
			open[iv.Reporter] = iv
		}
	}
	now := e.deps.Clock.Now()
	for _, r := range list {
		name := doubtOf(r.key())
		why, since := e.stale(r, now)
		iv, is := open[name]
		switch {
		case why != "" && !is:
			cure := r.record().status.Cure
			if cure == "" {
				cure = "see `cairn bump status " + r.key() + "`; take the repository out of the configuration if it is of no interest any more"
			}
			// The scope is everything: what it uses now may be any image.
			if _, err := e.deps.Ledger.OpenInterval(ctx, usage.Interval{Scope: []string{"**"}, From: since, Why: why, Reporter: name, Cure: cure}); err != nil {
				return fmt.Errorf("tell the ledger that %s is stale: %w", r.key(), err)
			}
			e.deps.Log.Warn("a scan of code is stale; until it is not, nothing expires", "repository", r.key(), "why", why)
		case why == "" && is:
			if err := e.deps.Ledger.CloseInterval(ctx, iv.ID, now); err != nil {
				return fmt.Errorf("tell the ledger that %s was read: %w", r.key(), err)
			}
		}
	}
	return nil
}

// closeDoubt ends the doubt about a repository of code that is not watched any more.
func (e *Engine) closeDoubt(ctx context.Context, key string) error {
	if e.deps.Ledger == nil {
		return nil
	}
	for _, iv := range e.deps.Ledger.Uncovered() {
		if iv.To.IsZero() && iv.ID != 0 && iv.Reporter == doubtOf(key) {
			if err := e.deps.Ledger.CloseInterval(ctx, iv.ID, e.deps.Clock.Now()); err != nil {
				return fmt.Errorf("tell the ledger that %s is of no interest any more: %w", key, err)
			}
		}
	}
	return nil
}

// tendLoop looks for stale scans.
func (e *Engine) tendLoop(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := e.doubt(ctx); err != nil && ctx.Err() == nil {
			e.deps.Log.Error("could not look after stale scans of code; tried again in a minute", "err", err)
		}
		_ = clock.Sleep(ctx, e.deps.Clock, tend)
	}
	return nil
}
