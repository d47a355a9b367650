package bump

import (
	"context"
	"fmt"
	"time"

	"cairn.dev/cairn/internal/choose"
	"cairn.dev/cairn/internal/code"
)

// A Preview is what would be proposed for code that is at hand, all of it as
// one change. No forge is asked, so that nothing is known of what people
// declined, and limits and schedules do not count.
type Preview struct {
	// Images are all images, each with what was chosen or why nothing was, in
	// the order of their IDs.
	Images []*Wanted
	Change code.Change // no splices when there is nothing to do
}

// NewPreview is of a tree that was read by the scanner of deps with the options of
// the rules. Of deps, Scanner, Choose and Catalog are used. Major versions that
// would be proposed separately are left out.
func NewPreview(ctx context.Context, deps Deps, t *code.Tree, result *code.Result, rules *Rules, now time.Time) (*Preview, error) {
	e := &Engine{deps: deps}
	x := &reading{tree: t, result: result, rules: rules, edits: map[string]*drafted{}}
	p := &Preview{Images: e.pick(newAnswers(ctx, deps.Catalog), x, now)}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var wants []code.Want
	by := map[string]*Wanted{}
	for _, w := range p.Images {
		switch {
		case w.State != "" || w.Choice.State != choose.Newer:
		case w.Choice.Major:
			w.State, w.Reason = string(choose.Held), fmt.Sprintf("%s is a new major version, which is proposed separately", w.Choice.To)
		default:
			wants = append(wants, code.Want{Image: w.Image.ID, To: w.Choice.To})
			by[w.Image.ID] = w
		}
	}
	d, err := e.verify(ctx, x, wants)
	if err != nil {
		return nil, err
	}
	for id, reason := range d.refused {
		by[id].State, by[id].Reason = StateRefused, "it cannot be edited: "+reason
	}
	p.Change = d.change
	return p, nil
}
