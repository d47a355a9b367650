package scan

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"cairn.dev/cairn/internal/code"
)

// maxTries bounds how often the tree is read again for one want.
const maxTries = 64

// Change finds splices after which every wanted image is exactly what is
// wanted. It promises nothing about how the value comes about and needs not
// know it: it guesses which bytes to change, has the changed tree read, and
// takes a guess only if what was read is right. Of guesses that are right it
// takes one that moves the fewest other images; those must be other tags of
// the same repository, unless they are wanted as well.
//
// before is what read says of t. An image that cannot become what is wanted
// is answered with a [*code.RefusedError]: the change is whole or there is none.
// Other errors are ctx's and read's own.
func Change(ctx context.Context, read func(*code.Tree) (*code.Result, error), t *code.Tree, before *code.Result, wants []code.Want) (code.Change, error) {
	e := &editor{ctx: ctx, read: read, tree: t, before: before, images: make(map[string]*code.Image, len(before.Images)), wanted: map[string]string{}, done: map[string]bool{}}
	for i := range before.Images {
		e.images[before.Images[i].ID] = &before.Images[i]
	}
	var jobs []job
	for _, w := range wants {
		j, err := e.job(w)
		if err != nil {
			return code.Change{}, err
		}
		if j != nil {
			jobs = append(jobs, *j)
		}
	}
	if len(jobs) == 0 {
		return code.Change{}, nil
	}
	if done, err := e.atOnce(jobs); err != nil || done {
		return e.change, err
	}
	for _, j := range jobs {
		if err := e.do(j); err != nil {
			return code.Change{}, err
		}
	}
	return e.change, nil
}

// An editor works on one change.
type editor struct {
	ctx    context.Context
	read   func(*code.Tree) (*code.Result, error)
	tree   *code.Tree
	before *code.Result
	images map[string]*code.Image // of before, by ID
	wanted map[string]string      // ID -> reference
	done   map[string]bool        // of wanted: what must not be moved any more

	change code.Change       // what was accepted
	values map[string]string // ID -> value with the change; nil before the first
}

// A job is one want that is not fulfilled yet, with the guesses for it.
type job struct {
	image   *code.Image
	to      string
	guesses []guess // the best first
}

// job checks a want; it is nil when there is nothing to do.
func (e *editor) job(w code.Want) (*job, error) {
	img := e.images[w.Image]
	if img == nil {
		return nil, refused(w.Image, "there is no such image in the tree: scan it again")
	}
	if old, twice := e.wanted[w.Image]; twice && old != w.To {
		return nil, refused(w.Image, "both %s and %s are wanted: want one of them", old, w.To)
	}
	if img.Value == w.To {
		e.wanted[w.Image], e.done[w.Image] = w.To, true
		return nil, nil
	}
	if img.Fixed != "" {
		return nil, refused(w.Image, "%s", img.Fixed)
	}
	from, err := code.ParseReference(img.Value)
	if err != nil {
		return nil, refused(w.Image, "what the code says now is not a reference (%v): write one", err)
	}
	to, err := code.ParseReference(w.To)
	if err != nil {
		return nil, refused(w.Image, "what is wanted is not a reference: %v", err)
	}
	if from.Name != to.Name {
		return nil, refused(w.Image, "%s is another image than %s: only tags and digests are changed", to.Name, from.Name)
	}
	_, twice := e.wanted[w.Image]
	e.wanted[w.Image] = w.To
	if twice {
		return nil, nil
	}
	parts, err := partsOf(from, to)
	if err != nil {
		return nil, refused(w.Image, "%v", err)
	}
	guesses, err := e.guesses(img, from.Name, parts)
	if err != nil {
		return nil, err
	}
	return &job{image: img, to: w.To, guesses: guesses}, nil
}

// atOnce tries the best guess of every job together: that is right nearly
// always, and then one reading is enough however many images are wanted.
func (e *editor) atOnce(jobs []job) (bool, error) {
	var all []code.Splice
	for _, j := range jobs {
		var ok bool
		if all, ok = unite(all, j.guesses[0].splices); !ok {
			return false, nil
		}
	}
	v, err := e.try(all)
	if err != nil || v.failed != "" || v.others > 0 {
		return false, err
	}
	for _, j := range jobs {
		if v.values[j.image.ID] != j.to {
			return false, nil
		}
	}
	e.accept(all, v)
	return true, nil
}

// do fulfils one job on top of what was accepted already.
func (e *editor) do(j job) error {
	id := j.image.ID
	if e.values != nil {
		switch e.values[id] {
		case j.to: // an earlier one has moved it along
			e.done[id] = true
			return nil
		case j.image.Value:
		default:
			return refused(id, "it is to be %s, and another change has made it %s: they share a literal, split it or change them apart", j.to, e.values[id])
		}
	}
	var best verdict
	var bestSplices []code.Splice
	why := ""
	for i, g := range j.guesses {
		if i == maxTries {
			why = cmp.Or(why, fmt.Sprintf("none of %d places that were tried makes it %s", maxTries, j.to))
			break
		}
		all, ok := unite(e.change.Splices, g.splices)
		if !ok {
			why = cmp.Or(why, fmt.Sprintf("%s is changed for another image already, to something else: split the literal", e.where(g.splices[0].Range)))
			continue
		}
		v, err := e.try(all)
		if err != nil {
			return err
		}
		if v.failed == "" && v.values[id] != j.to {
			v.failed = fmt.Sprintf("changing %s would make it %s: give it a reference of its own", e.where(g.splices[0].Range), cmp.Or(v.values[id], "unknown"))
		}
		if v.failed != "" {
			// The best guess is the one a person would have made.
			why = cmp.Or(why, v.failed)
			continue
		}
		if bestSplices == nil || v.others < best.others {
			best, bestSplices = v, all
		}
		if best.others == 0 {
			break
		}
	}
	if bestSplices == nil {
		return refused(id, "%s", why)
	}
	e.accept(bestSplices, best)
	e.done[id] = true
	return nil
}

func (e *editor) accept(all []code.Splice, v verdict) {
	slices.SortFunc(all, func(a, b code.Splice) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Start, b.Start))
	})
	e.change, e.values = code.Change{Splices: all, Effects: v.effects}, v.values
}

// A verdict is what reading a changed tree says about the change.
type verdict struct {
	failed  string            // why it must not be made; "" if it may
	values  map[string]string // ID -> value
	effects []code.Effect     // by ID
	others  int               // effects that nobody wanted
}

// try reads the tree with the splices and judges what became of its images.
func (e *editor) try(splices []code.Splice) (verdict, error) {
	if err := e.ctx.Err(); err != nil {
		return verdict{}, err
	}
	changed, err := e.tree.With(splices)
	if err != nil {
		return verdict{}, fmt.Errorf("change the code: %w", err)
	}
	after, err := e.read(changed)
	if err != nil {
		return verdict{}, fmt.Errorf("read the changed code: %w", err)
	}
	v := verdict{values: make(map[string]string, len(after.Images))}
	where := e.where(splices[len(splices)-1].Range)
	if len(after.Problems) > len(e.before.Problems) {
		v.failed = fmt.Sprintf("changing %s would break the code: %s", where, news(e.before.Problems, after.Problems))
		return v, nil
	}
	for i := range after.Images {
		v.values[after.Images[i].ID] = after.Images[i].Value
		if e.images[after.Images[i].ID] == nil {
			v.failed = fmt.Sprintf("changing %s would also add %s: give the image a literal of its own", where, after.Images[i].ID)
			return v, nil
		}
	}
	for i := range e.before.Images {
		b := &e.before.Images[i]
		now, there := v.values[b.ID]
		to, wanted := e.wanted[b.ID]
		switch {
		case !there:
			v.failed = fmt.Sprintf("changing %s would also take %s away: give the image a literal of its own", where, b.ID)
			return v, nil
		case now == b.Value:
			continue
		case wanted && now == to:
		case e.done[b.ID]:
			v.failed = fmt.Sprintf("changing %s also changes %s to %s, which is to be %s: they share a literal, split it", where, b.ID, cmp.Or(now, "unknown"), to)
			return v, nil
		case !wanted && !e.concerns(b.Value):
			v.failed = fmt.Sprintf("changing %s also changes %s, which is another image (%s): split the variable", where, b.ID, cmp.Or(b.Value, "unknown"))
			return v, nil
		case !wanted && !e.chosen(now):
			v.failed = fmt.Sprintf("changing %s also changes %s from %s to %s, which nobody chose: split the variable", where, b.ID, b.Value, now)
			return v, nil
		default:
			v.others++
		}
		v.effects = append(v.effects, code.Effect{Image: b.ID, From: b.Value, To: now})
	}
	return v, nil
}

// chosen reports whether the reference has a tag or digest that some want has
// for its repository: what moves along is then an image that somebody looked
// at, and not a tag that may not exist.
func (e *editor) chosen(ref string) bool {
	r, err := code.ParseReference(ref)
	if err != nil {
		return false
	}
	for _, to := range e.wanted {
		w, err := code.ParseReference(to)
		if err == nil && w.Repository() == r.Repository() && (r.Tag != "" && r.Tag == w.Tag || r.Tag == "" && r.Digest == w.Digest) {
			return true
		}
	}
	return false
}

// concerns reports whether some want is for the repository of the reference.
func (e *editor) concerns(ref string) bool {
	r, err := code.ParseReference(ref)
	if err != nil {
		return false
	}
	for _, to := range e.wanted {
		if w, err := code.ParseReference(to); err == nil && w.Repository() == r.Repository() {
			return true
		}
	}
	return false
}

// unite puts splices together; it fails when two want the same bytes to be
// different things.
func unite(a, b []code.Splice) ([]code.Splice, bool) {
	out := slices.Clone(a)
next:
	for _, s := range b {
		for _, o := range out {
			if o == s {
				continue next
			}
			if o.File == s.File && s.Start < o.End && o.Start < s.End {
				return nil, false
			}
		}
		out = append(out, s)
	}
	return out, true
}

// news is the first problem that was not there before.
func news(before, after []code.Problem) string {
	for _, p := range after {
		if !slices.ContainsFunc(before, func(b code.Problem) bool { return b.Text == p.Text && b.Place.File == p.Place.File }) {
			return fmt.Sprintf("%s: %s", p.Place, p.Text)
		}
	}
	return "there would be more problems than now"
}

// where says for people which bytes are to be changed.
func (e *editor) where(r code.Range) string {
	f, err := e.tree.Read(r.File)
	if err != nil || r.Start < 0 || r.End > len(f.Data) || r.Start > r.End {
		return r.File
	}
	return fmt.Sprintf("%.100q at %s", f.Data[r.Start:r.End], code.PlaceOf(f, r.Start))
}

// at says for people where a literal stands. What it says may be a secret.
func (e *editor) at(r code.Range) string {
	f, err := e.tree.Read(r.File)
	if err != nil {
		return r.File
	}
	return code.PlaceOf(f, r.Start).String()
}

func refused(id, format string, args ...any) error {
	return &code.RefusedError{Image: id, Reason: strings.TrimSpace(fmt.Sprintf(format, args...))}
}
