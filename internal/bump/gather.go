package bump

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"cairn.dev/cairn/internal/forge"
)

// onForge is what a forge has of ours in one repository, with what is remembered.
type onForge struct {
	branches map[string]*Branch
	known    map[string]*branchRecord
	declined map[string]map[string]bool
}

// maxPulls bounds the pull requests of ours that are looked at.
const maxPulls = 2000

// gather lists the pull requests, and learns from closed ones what people want.
func (e *Engine) gather(ctx context.Context, r *repository, x *reading, now time.Time) (st *onForge, err error) {
	rec := r.record()
	st = &onForge{branches: map[string]*Branch{}}
	if st.known, err = e.store.branches(ctx, rec.id); err != nil {
		return nil, err
	}
	if st.declined, err = e.store.declined(ctx, rec.id); err != nil {
		return nil, err
	}
	if r.pullless {
		return st, nil
	}
	since := now.Add(-lookBack)
	if !rec.listed.IsZero() {
		since = rec.listed.Add(-overlap)
	}
	account, err := e.account(ctx, r.source)
	if err != nil {
		return nil, err
	}
	pulls, err := r.source.Forge.ListPulls(ctx, r.name, x.rules.Prefix, since)
	if errors.Is(err, forge.ErrUnsupported) {
		r.pullless = true
		return st, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list pull requests: %w", err)
	}
	if len(pulls) > maxPulls {
		return nil, fmt.Errorf("there are more than %d pull requests on branches that begin with %q: close some", maxPulls, x.rules.Prefix)
	}
	slices.SortFunc(pulls, func(a, b forge.Pull) int { return int(a.Number - b.Number) })
	for _, p := range pulls {
		if !p.Open {
			continue
		}
		b := st.branches[p.Branch]
		if b == nil {
			b = &Branch{Name: p.Branch, Head: p.Head}
			st.branches[p.Branch] = b
		}
		b.Pulls = append(b.Pulls, p)
		// What somebody else's pull request says of itself is nothing to go by.
		if b.Block == nil && (account == "" || p.Author == account) {
			b.Block = st.block(&p)
		}
		if b.Block != nil {
			// A person opened it again.
			if err := e.undecline(ctx, r, st, p.Branch, b.Block.Targets, now); err != nil {
				return nil, err
			}
		}
	}
	// Newest first: of several of one branch, the last says where it was left.
	for _, p := range slices.Backward(pulls) {
		if p.Open || account != "" && p.Author != account {
			continue
		}
		if err := e.learn(ctx, r, st, &p, now); err != nil {
			return nil, err
		}
	}
	return st, nil
}

// block is what is known of a pull request of ours: what it says, or, when a
// person has edited that away, what was last written.
func (st *onForge) block(p *forge.Pull) *Block {
	if b, err := ParseBlock(p.Body); err == nil {
		return b
	}
	if k := st.known[p.Branch]; k != nil && k.pull == p.Number {
		return k.block
	}
	return nil
}

func (e *Engine) undecline(ctx context.Context, r *repository, st *onForge, branch string, targets []Target, now time.Time) error {
	for _, t := range targets {
		if st.declined[branch][t.key()] {
			for _, t := range targets {
				delete(st.declined[branch], t.key())
			}
			return e.store.decline(ctx, r.record().id, branch, targets, now, false)
		}
	}
	return nil
}

// learn takes from a closed pull request what it means: merged, closed by us,
// or declined by a person.
func (e *Engine) learn(ctx context.Context, r *repository, st *onForge, p *forge.Pull, now time.Time) error {
	block := st.block(p)
	known := st.known[p.Branch]
	if p.Merged || block != nil && block.Closed != "" {
		switch {
		case st.branches[p.Branch] != nil: // another one is open
			return nil
		case known != nil && (known.pull == p.Number || known.head == p.Head) && !known.done:
			known.done = true
		case known == nil && block != nil && block.Head == p.Head && !r.cleaned[p.Number]:
			// Not remembered, and the branch may be there still.
			known = &branchRecord{name: p.Branch, head: p.Head, edit: block.Edit, pull: p.Number, block: block, done: true}
			st.known[p.Branch] = known
		default:
			return nil
		}
		return e.store.saveBranch(ctx, r.record().id, known)
	}
	if block == nil {
		return nil
	}
	if b := st.branches[p.Branch]; b != nil && b.Block != nil {
		return nil // another one is open: what counts is what that says
	}
	var news []Target
	for _, t := range block.Targets {
		if !st.declined[p.Branch][t.key()] {
			news = append(news, t)
		}
	}
	if len(news) == 0 {
		return nil
	}
	if st.declined[p.Branch] == nil {
		st.declined[p.Branch] = map[string]bool{}
	}
	for _, t := range news {
		st.declined[p.Branch][t.key()] = true
	}
	return e.store.decline(ctx, r.record().id, p.Branch, news, now, true)
}

// lookAtBranches finds out where the branches are that have no pull request but
// may be needed, and whose the commits on all of them are.
func (e *Engine) lookAtBranches(ctx context.Context, r *repository, x *reading, st *onForge, proposals []Proposal, now time.Time) error {
	edits := map[string]*Edit{}
	for i := range proposals {
		p := &proposals[i]
		name := p.Group.Branch
		edits[name] = p.Edit
		known := st.known[name]
		if st.branches[name] != nil || p.Edit == nil && (known == nil || !r.pullless) {
			continue
		}
		head, err := r.source.Forge.Head(ctx, r.name, name)
		switch {
		case errors.Is(err, forge.ErrNotFound):
			if r.pullless && known != nil && known.head != "" && p.Edit != nil && known.edit == p.Edit.Sum && known.block != nil {
				// Where there are no pull requests, to remove the branch is to decline.
				if err := e.store.decline(ctx, r.record().id, name, known.block.Targets, now, true); err != nil {
					return err
				}
				p.Edit, p.Why = nil, "a person removed the branch that proposed it; a newer version will be proposed"
				for _, w := range p.Group.Images {
					if p.Group.wants(w) {
						w.State, w.Reason = StateDeclined, p.Why
					}
				}
			}
			if known != nil && known.making == "" {
				if err := e.store.removeBranch(ctx, r.record().id, name); err != nil {
					return err
				}
				delete(st.known, name)
			}
			st.branches[name] = &Branch{Name: name}
		case err != nil:
			return fmt.Errorf("ask where the branch %s is: %w", name, err)
		default:
			st.branches[name] = &Branch{Name: name, Head: head}
		}
	}
	for name, b := range st.branches {
		if b.Head == "" {
			continue
		}
		if err := e.whose(ctx, r, x, st, b, edits[name]); err != nil {
			return err
		}
	}
	return nil
}

// whose finds out whether the head of a branch is a commit of ours, and what it
// holds: by what was remembered or written, by what was about to be made when a
// process ended, and by whether it is just what we would make now, as another
// process of ours may have.
func (e *Engine) whose(ctx context.Context, r *repository, x *reading, st *onForge, b *Branch, want *Edit) error {
	known := st.known[b.Name]
	switch {
	case known != nil && known.head == b.Head:
		b.Ours, b.Holds = true, known.edit
		return nil
	case b.Block != nil && b.Block.Head == b.Head:
		b.Ours, b.Holds = true, b.Block.Edit
		return nil
	}
	try := func(parent, sum string) (bool, error) {
		memo := b.Name + " " + b.Head + " " + parent + " " + sum
		if r.strange[memo] {
			return false, nil
		}
		got, err := e.sumOnForge(ctx, r, parent, b.Head)
		if err != nil {
			return false, err
		}
		if got != sum {
			if len(r.strange) > 1000 {
				clear(r.strange)
			}
			r.strange[memo] = true
			return false, nil
		}
		b.Ours, b.Holds = true, sum
		k := &branchRecord{name: b.Name, head: b.Head, edit: sum, block: b.Block}
		if known != nil {
			k.pull = known.pull
		}
		st.known[b.Name] = k
		return true, e.store.saveBranch(ctx, r.record().id, k)
	}
	if known != nil && known.making != "" {
		if ok, err := try(known.parent, known.making); ok || err != nil {
			return err
		}
	}
	if want != nil {
		if _, err := try(x.head, want.Sum); err != nil {
			return err
		}
	}
	return nil
}

// maxVerified bounds the files that are read to find out whose a commit is.
const maxVerified = 200

// sumOnForge is [Edit.Sum] of what lies between two commits; "" when that
// cannot be told, or is more than an edit of ours can be.
func (e *Engine) sumOnForge(ctx context.Context, r *repository, parent, head string) (string, error) {
	f := r.source.Forge
	paths, whole, err := f.Changed(ctx, r.name, parent, head)
	if errors.Is(err, forge.ErrNotFound) || errors.Is(err, forge.ErrInvalid) || err == nil && (!whole || len(paths) == 0 || len(paths) > maxVerified) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("compare %s with its base: %w", head, err)
	}
	before, after := map[string][]byte{}, map[string][]byte{}
	for _, p := range paths {
		for commit, to := range map[string]map[string][]byte{parent: before, head: after} {
			if to[p], err = f.File(ctx, r.name, commit, p); errors.Is(err, forge.ErrNotFound) {
				return "", nil // we neither add nor remove files
			}
			if err != nil {
				return "", fmt.Errorf("read %s at %s: %w", p, commit, err)
			}
		}
	}
	return SumEdit(before, after), nil
}
