package bump

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cairn.dev/cairn/internal/code"
	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
)

// An actor carries out the actions of one pass. Each step leaves the forge and
// bump.db so that the next pass goes on from there, whoever makes it.
type actor struct {
	e    *Engine
	r    *repository
	x    *reading
	st   *onForge
	a    *answers
	now  time.Time
	soon time.Duration // when it is worth to look again; 0: at the interval
}

// do carries out one action. What the forge refuses is the action's reason; an
// error is one that ends the pass.
func (t *actor) do(ctx context.Context, a *Action) error {
	t.soon = 0
	var err error
	switch a.Verb {
	case Open:
		err = t.open(ctx, a)
	case Update:
		err = t.update(ctx, a)
	case Describe:
		err = t.describe(ctx, a)
	case Merge:
		err = t.merge(ctx, a)
	case Close:
		err = t.close(ctx, a)
	case Drop:
		err = t.drop(ctx, a.Branch)
	}
	if err == nil {
		return nil
	}
	var later *forge.LaterError
	if ctx.Err() != nil || errors.As(err, &later) || errors.Is(err, forge.ErrMoved) || errors.Is(err, forge.ErrExists) || errors.Is(err, forge.ErrUnauthorized) {
		return err
	}
	if !refused(err) {
		return err
	}
	t.e.deps.Log.Warn("a forge refused", "repository", t.r.key(), "branch", a.Branch.Name, "err", err)
	a.Verb, a.Reason = Leave, "the forge refused: "+err.Error()
	return nil
}

// refused: the forge said no to this, and may say yes to something else.
func refused(err error) bool {
	for _, no := range []error{forge.ErrForbidden, forge.ErrInvalid, forge.ErrNotFound, forge.ErrArchived, forge.ErrUnsupported} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}

// commit makes the branch hold the edit, on the head of the base.
func (t *actor) commit(ctx context.Context, a *Action) error {
	b, p := a.Branch, a.Proposal
	if b.Holds == p.Edit.Sum && b.Ours {
		return nil
	}
	k := &branchRecord{name: b.Name}
	if old := t.st.known[b.Name]; old != nil {
		*k = *old
	}
	// First what is about to be: should the answer be lost, the next pass finds
	// out whether the commit was made.
	k.parent, k.making = t.x.head, p.Edit.Sum
	if err := t.save(ctx, k); err != nil {
		return err
	}
	head, err := t.r.source.Forge.Commit(ctx, t.r.name, forge.Commit{Branch: b.Name, Parent: t.x.head, Head: b.Head, Message: message(t.x.rules, &p.Group, p.Targets), Files: p.Edit.Files})
	if err != nil {
		return fmt.Errorf("commit on %s: %w", b.Name, err)
	}
	b.Head, b.Holds, b.Ours = head, p.Edit.Sum, true
	made := *k
	made.head, made.edit, made.parent, made.making, made.done = head, p.Edit.Sum, "", "", false
	made.block = t.block(a)
	return t.save(ctx, &made)
}

func (t *actor) save(ctx context.Context, k *branchRecord) error {
	t.st.known[k.name] = k
	return t.e.store.saveBranch(ctx, t.r.record().id, k)
}

// block is what the pull request is to say to programs.
func (t *actor) block(a *Action) *Block {
	return &Block{Version: 1, Group: a.Proposal.Group.Name, Base: t.x.head, Head: a.Branch.Head, Edit: a.Proposal.Edit.Sum, Targets: a.Proposal.Targets}
}

// page is the text of a pull request, and of its title.
func (t *actor) page(a *Action) (subject, text string, block *Block) {
	p := a.Proposal
	block = t.block(a)
	images := map[string]code.Image{}
	for _, im := range t.x.result.Images {
		images[im.ID] = im
	}
	var moves []Move
	for _, target := range p.Targets {
		m := Move{Target: target}
		for _, w := range p.Group.Images {
			if p.Group.wants(w) && w.target() == target {
				m.Reason = w.Choice.Reason
				break
			}
		}
		if ref, err := code.ParseReference(target.From); err == nil {
			m.Old = t.a.describe(ref)
		}
		if ref, err := code.ParseReference(target.To); err == nil {
			m.New = t.a.describe(ref)
		}
		for _, f := range p.Edit.Effects {
			if f.From == target.From && f.To == target.To {
				m.Images = append(m.Images, images[f.Image])
			}
		}
		if m.Old != nil {
			m.Users = t.users(m.Old.Digest)
		}
		moves = append(moves, m)
	}
	return title(t.x.rules, &p.Group, p.Targets), body(&p.Group, moves, *block, t.now), block
}

// users are who runs an image now.
func (t *actor) users(d image.Digest) (out []usage.Use) {
	if t.e.deps.Ledger == nil {
		return nil
	}
	seen := map[string]bool{}
	for _, u := range t.e.deps.Ledger.Uses(d) {
		if u.Now && (u.Source == usage.Container || u.Source == usage.Workload) && !seen[u.Subject] {
			seen[u.Subject] = true
			out = append(out, u)
		}
	}
	slices.SortFunc(out, func(a, b usage.Use) int { return strings.Compare(a.Subject, b.Subject) })
	return out
}

func (t *actor) open(ctx context.Context, a *Action) error {
	if err := t.commit(ctx, a); err != nil {
		return err
	}
	if t.r.pullless {
		t.e.count(func(c *Counters) { c.Opened++ })
		a.Verb, a.Reason = Nothing, "the branch "+a.Branch.Name+" has it: merge it"
		return nil
	}
	if err := t.e.store.countOpened(ctx, t.r.record().id, t.now); err != nil {
		return err
	}
	g := &a.Proposal.Group
	subject, text, block := t.page(a)
	pull, err := t.r.source.Forge.CreatePull(ctx, t.r.name, forge.NewPull{Title: subject, Body: text, Branch: a.Branch.Name, Base: t.r.info.DefaultBranch, Labels: g.Labels, Reviewers: g.Reviewers})
	if err != nil {
		return fmt.Errorf("open a pull request of %s: %w", a.Branch.Name, err)
	}
	t.e.count(func(c *Counters) { c.Opened++ })
	t.e.deps.Log.Info("opened a pull request", "repository", t.r.key(), "pull", pull.URL, "title", subject)
	a.Pull, a.Reason = &pull, pull.URL+" proposes it"
	a.Branch.Pulls, a.Branch.Block = []forge.Pull{pull}, block
	return t.remember(ctx, a, block)
}

// remember notes which pull request a branch has, and what it says.
func (t *actor) remember(ctx context.Context, a *Action, block *Block) error {
	k := &branchRecord{name: a.Branch.Name, head: a.Branch.Head, edit: a.Branch.Holds, pull: a.Pull.Number, block: block}
	return t.save(ctx, k)
}

func (t *actor) update(ctx context.Context, a *Action) error {
	if err := t.commit(ctx, a); err != nil {
		return err
	}
	t.e.count(func(c *Counters) { c.Updated++ })
	return t.describe(ctx, a)
}

func (t *actor) describe(ctx context.Context, a *Action) error {
	subject, text, block := t.page(a)
	pull, err := t.r.source.Forge.EditPull(ctx, t.r.name, a.Pull.Number, forge.PullEdit{Title: &subject, Body: &text, Labels: a.Proposal.Group.Labels})
	if err != nil {
		return fmt.Errorf("edit pull request %d: %w", a.Pull.Number, err)
	}
	a.Pull, a.Reason = &pull, pull.URL+" proposes it"
	a.Branch.Block = block
	return t.remember(ctx, a, block)
}

// merge merges once all checks have passed. With no checks at all nothing says
// that the change is good, so that it is left to people.
func (t *actor) merge(ctx context.Context, a *Action) error {
	f := t.r.source.Forge
	state, err := f.Checks(ctx, t.r.name, a.Branch.Head)
	if err != nil {
		return fmt.Errorf("ask about the checks of pull request %d: %w", a.Pull.Number, err)
	}
	switch state {
	case forge.ChecksPassed:
	case forge.ChecksPending:
		t.soon = recheck
		a.Reason = a.Pull.URL + " is merged once its checks have passed"
		return nil
	case forge.ChecksFailed:
		a.Reason = a.Pull.URL + " is not merged: its checks failed"
		return nil
	default:
		t.soon = waiting
		a.Reason = a.Pull.URL + " is not merged by itself: no check has looked at it"
		return nil
	}
	if err := f.Merge(ctx, t.r.name, a.Pull.Number, a.Branch.Head); err != nil {
		return fmt.Errorf("merge pull request %d: %w", a.Pull.Number, err)
	}
	t.e.count(func(c *Counters) { c.Merged++ })
	t.e.deps.Log.Info("merged a pull request", "repository", t.r.key(), "pull", a.Pull.URL)
	a.Reason, t.soon = a.Pull.URL+" was merged", time.Second
	return nil
}

// close closes a pull request, says why, and removes its branch. The body says
// first that it was us, so that nobody takes it for a person's wish.
func (t *actor) close(ctx context.Context, a *Action) error {
	f := t.r.source.Forge
	block := Block{Version: 1, Base: strings.Repeat("0", 40), Head: strings.Repeat("0", 40)}
	if a.Branch.Block != nil {
		block = *a.Branch.Block
	}
	block.Closed = oneLine(a.Reason, 500)
	if block.Closed == "" {
		block.Closed = "nothing is left to do"
	}
	text := strings.TrimRight(withoutBlock(a.Pull.Body), "\n") + "\n\n" + closing(a.Reason) + "\n" + block.String() + "\n"
	no := false
	if _, err := f.EditPull(ctx, t.r.name, a.Pull.Number, forge.PullEdit{Body: &text, Open: &no}); err != nil {
		return fmt.Errorf("close pull request %d: %w", a.Pull.Number, err)
	}
	t.e.count(func(c *Counters) { c.Closed++ })
	left := slices.DeleteFunc(slices.Clone(a.Branch.Pulls), func(p forge.Pull) bool { return p.Number == a.Pull.Number })
	defer func() { a.Branch.Pulls = left }()
	t.e.deps.Log.Info("closed a pull request", "repository", t.r.key(), "pull", a.Pull.URL, "why", a.Reason)
	if err := f.Comment(ctx, t.r.name, a.Pull.Number, closing(a.Reason)); err != nil {
		return fmt.Errorf("comment on pull request %d: %w", a.Pull.Number, err)
	}
	if len(a.Branch.Pulls) > 1 || !a.Branch.Ours {
		return nil // another pull request, or a person, has the branch
	}
	a.Pull = nil
	return t.drop(ctx, a.Branch)
}

// drop removes a branch of ours. One that somebody has moved is theirs now.
func (t *actor) drop(ctx context.Context, b *Branch) error {
	f := t.r.source.Forge
	err := f.DeleteBranch(ctx, t.r.name, b.Name, b.Head)
	if errors.Is(err, forge.ErrMoved) {
		at, herr := f.Head(ctx, t.r.name, b.Name)
		if herr != nil && !errors.Is(herr, forge.ErrNotFound) {
			return fmt.Errorf("ask where the branch %s is: %w", b.Name, herr)
		}
		if at != b.Head {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("remove the branch %s: %w", b.Name, err)
	}
	delete(t.st.known, b.Name)
	return t.e.store.removeBranch(ctx, t.r.record().id, b.Name)
}

// clean removes branches whose pull requests were merged, or closed by us just
// before the process ended.
func (t *actor) clean(ctx context.Context, proposals []Proposal) error {
	wanted := map[string]bool{}
	for _, p := range proposals {
		wanted[p.Group.Branch] = p.Edit != nil
	}
	for name, k := range t.st.known {
		if b := t.st.branches[name]; !k.done || wanted[name] || b != nil && len(b.Pulls) > 0 {
			continue
		}
		if err := t.drop(ctx, &Branch{Name: name, Head: k.head}); refused(err) {
			t.e.deps.Log.Warn("a branch that is of no use any more stays; it is tried again", "repository", t.r.key(), "branch", name, "err", err)
			continue
		} else if err != nil {
			return err
		}
		t.r.cleaned[k.pull] = true
	}
	return nil
}

// uses notes what open pull requests would use, so that it stays.
func (t *actor) uses() {
	var open []codeUse
	for _, b := range t.st.branches {
		if b.Block == nil {
			continue
		}
		for _, p := range b.Pulls {
			for _, target := range b.Block.Targets {
				if ref, err := code.ParseReference(target.To); err == nil {
					u := useOf(ref)
					u.Subject, u.Pull = fmt.Sprintf("%s: pull request %d", t.r.key(), p.Number), p.Number
					open = append(open, u)
				}
			}
		}
	}
	slices.SortFunc(open, func(a, b codeUse) int {
		return strings.Compare(a.Subject+a.Repository+a.Tag, b.Subject+b.Repository+b.Tag)
	})
	rec := t.r.change(func(rec *record) {
		code := slices.DeleteFunc(slices.Clone(rec.uses), func(u codeUse) bool { return u.Pull != 0 })
		rec.uses = append(code, open...)
	})
	t.e.index.set(t.r.key(), t.e.named(rec.uses))
}
