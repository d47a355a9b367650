package bump

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"cairn.dev/cairn/internal/code"
	"cairn.dev/cairn/internal/scan"
)

// draft works out what each group comes to. Images that move along with an
// earlier group are of that group: one literal cannot be in two pull requests.
func (e *Engine) draft(ctx context.Context, x *reading, groups []Group, declined map[string]map[string]bool) ([]Proposal, error) {
	taken := map[string]string{} // image -> group
	out := make([]Proposal, 0, len(groups))
	for _, g := range groups {
		var wants []code.Want
		byID := map[string]*Wanted{}
		for _, w := range g.Images {
			if !g.wants(w) {
				continue
			}
			switch other := taken[w.Image.ID]; {
			case other != "":
				w.State, w.Reason = string(w.Choice.State), "it moves along with "+other
			case declined[g.Branch][w.target().key()]:
				w.State, w.Reason = StateDeclined, fmt.Sprintf("a person closed the pull request that proposed %s; a newer version will be proposed", w.Choice.To)
			default:
				wants = append(wants, code.Want{Image: w.Image.ID, To: w.Choice.To})
				byID[w.Image.ID] = w
			}
		}
		edit, err := e.edit(ctx, x, wants, byID)
		if err != nil {
			return nil, err
		}
		p := Proposal{Group: g, Edit: edit}
		p.Why, p.Unsure = Because(&g)
		if edit != nil {
			for _, f := range edit.Effects {
				taken[f.Image] = g.Name
			}
			p.Targets = targets(&g, edit)
		}
		out = append(out, p)
	}
	return out, nil
}

// targets are the different moves of a group.
func targets(g *Group, edit *Edit) (out []Target) {
	for _, w := range g.Images {
		if g.wants(w) && slices.ContainsFunc(edit.Effects, func(f code.Effect) bool { return f.Image == w.Image.ID }) {
			if t := w.target(); !slices.Contains(out, t) {
				out = append(out, t)
			}
		}
	}
	slices.SortFunc(out, func(a, b Target) int { return strings.Compare(a.Repository+" "+a.From, b.Repository+" "+b.From) })
	return out
}

// edit makes one verified change of what is wanted. Images that refuse are left
// out and told why; nil when nothing is left.
func (e *Engine) edit(ctx context.Context, x *reading, wants []code.Want, byID map[string]*Wanted) (*Edit, error) {
	var b strings.Builder
	for _, w := range wants {
		fmt.Fprintf(&b, "%q %q\n", w.Image, w.To)
	}
	key := b.String()
	x.mu.Lock()
	d := x.edits[key]
	x.mu.Unlock()
	if d == nil {
		var err error
		if d, err = e.verify(ctx, x, wants); err != nil {
			return nil, err
		}
		x.mu.Lock()
		x.edits[key] = d
		x.mu.Unlock()
	}
	for id, reason := range d.refused {
		if w := byID[id]; w != nil {
			w.State, w.Reason = StateRefused, "it cannot be edited: "+reason
		}
	}
	return d.edit, nil
}

func (e *Engine) verify(ctx context.Context, x *reading, wants []code.Want) (*drafted, error) {
	d := &drafted{refused: map[string]string{}}
	scanOnce := func(t *code.Tree) (*code.Result, error) { return e.deps.Scanner.Scan(ctx, t, x.rules.Options) }
	for len(wants) > 0 {
		change, err := scan.Change(ctx, scanOnce, x.tree, x.result, wants)
		var refused *code.RefusedError
		if errors.As(err, &refused) {
			left := slices.DeleteFunc(slices.Clone(wants), func(w code.Want) bool { return w.Image == refused.Image })
			if len(left) == len(wants) {
				return nil, fmt.Errorf("change the code: %w", err)
			}
			d.refused[refused.Image], wants = refused.Reason, left
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("change the code: %w", err)
		}
		if len(change.Splices) == 0 {
			return d, nil
		}
		d.change = change
		d.edit, err = editOf(x.tree, change)
		return d, err
	}
	return d, nil
}

// editOf is a change as whole files.
func editOf(t *code.Tree, c code.Change) (*Edit, error) {
	after, err := t.With(c.Splices)
	if err != nil {
		return nil, fmt.Errorf("change the code: %w", err)
	}
	before, files := map[string][]byte{}, map[string][]byte{}
	for _, s := range c.Splices {
		a, err := t.Read(s.File)
		if err != nil {
			return nil, fmt.Errorf("change the code: %w", err)
		}
		b, err := after.Read(s.File)
		if err != nil {
			return nil, fmt.Errorf("change the code: %w", err)
		}
		before[s.File], files[s.File] = a.Data, b.Data
	}
	return &Edit{Files: files, Sum: SumEdit(before, files), Effects: c.Effects}, nil
}
