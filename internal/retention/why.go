package retention

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
)

// An Explanation is all that decides about one image: what `cairn why` shows.
type Explanation struct {
	Repository string       `json:"repository"`
	Ref        string       `json:"ref"`
	Digest     image.Digest `json:"digest,omitempty"`
	// State is live, expired, deleted, swept or unknown.
	State    string        `json:"state"`
	Tags     []content.Tag `json:"tags,omitempty"`
	Size     int64         `json:"size,omitempty"`
	Pushed   time.Time     `json:"pushed,omitzero"`
	HiddenAt time.Time     `json:"hidden_at,omitzero"`
	Hidden   string        `json:"hidden_reason,omitempty"`
	// The decision, as of At.
	At        time.Time     `json:"at"`
	Action    string        `json:"action,omitempty"`
	Code      string        `json:"code,omitempty"`
	Reason    string        `json:"reason,omitempty"`
	Policy    string        `json:"policy,omitempty"`
	By        image.Digest  `json:"by,omitempty"` // the image that keeps this one
	LastUse   *usage.Use    `json:"last_use,omitempty"`
	Age       time.Duration `json:"age_ns,omitempty"` // covered
	Uncovered time.Duration `json:"uncovered_ns,omitempty"`
	ExpiresAt time.Time     `json:"expires_at,omitzero"` // or is swept, for a hidden one
	Horizon   string        `json:"horizon,omitempty"`
	// Uses count for the image, best first, each with the edge it came by.
	Uses []Used        `json:"uses,omitempty"`
	Pins []content.Pin `json:"pins,omitempty"`
	// Stops are the uncovered intervals since the last use, open ones first.
	Stops []usage.Interval `json:"stops,omitempty"`
	// Notes are what else a person should know, such as that the engine only
	// plans.
	Notes []string `json:"notes,omitempty"`
	// Log is what happened to it, newest first.
	Log []content.AuditEntry `json:"log,omitempty"`
	// Tried says where an unknown one was looked for.
	Tried []string `json:"tried,omitempty"`
}

// Used is a use and how it came to the image.
type Used struct {
	usage.Use
	Via string `json:"via"` // itself, or the edge: config, index, child, sibling, config of …
}

// Bounds of what Why returns and reads.
const (
	whyUses  = 100
	whyLog   = 20
	logPages = 20
	logPage  = 500
)

// Why explains what becomes of an image: ref is a tag or a digest. An image
// that is hidden or swept is explained, too; for one that was never here the
// explanation says what was tried, and is no error.
func (e *Engine) Why(ctx context.Context, repo, ref string) (Explanation, error) {
	now := e.deps.Clock.Now()
	x := Explanation{Repository: repo, Ref: ref, At: now, State: "unknown"}
	d, isDigest := image.Digest(""), false
	if p, err := image.ParseDigest(ref); err == nil {
		d, isDigest = p, true
	}
	im, err := e.deps.Content.Peek(ctx, repo, ref)
	switch {
	case err == nil:
		if err := e.whyHere(ctx, &x, im, now); err != nil {
			return x, err
		}
	case errors.Is(err, content.ErrManifestUnknown) || errors.Is(err, content.ErrRepositoryUnknown):
		x.Digest = d
		if isDigest {
			x.Tried = append(x.Tried, "manifests of the repository, live and hidden")
			for _, u := range e.deps.Ledger.Uses(d) {
				if len(x.Uses) == whyUses {
					break
				}
				x.Uses = append(x.Uses, Used{u, "itself"})
			}
			x.Tried = append(x.Tried, "uses of the digest in the ledger")
		} else {
			x.Tried = append(x.Tried, "tags of the repository, and those of hidden images")
		}
		x.Tried = append(x.Tried, "the audit log")
	default:
		return x, fmt.Errorf("look for %s in %s: %w", ref, repo, err)
	}
	if x.Log, err = e.log(ctx, repo, ref, x.Digest); err != nil {
		return x, err
	}
	if x.State == "unknown" && len(x.Log) > 0 {
		// It is not here any more, or under that tag no more.
		x.Digest, x.State = x.Log[0].Digest, "swept"
		if x.Log[0].Action != "sweep" {
			if im, err := e.deps.Content.Peek(ctx, repo, string(x.Digest)); err == nil {
				x.Notes = append(x.Notes, "the tag is gone; this is the image it last named")
				x.Tried = nil
				return x, e.whyHere(ctx, &x, im, now)
			}
		}
		x.Tried = nil
		for _, a := range x.Log {
			if len(a.Uses) > 0 && len(x.Uses) == 0 {
				for _, u := range a.Uses {
					x.Uses = append(x.Uses, Used{u, "related"})
				}
			}
		}
	}
	return x, nil
}

// whyHere explains an image that is in the registry.
func (e *Engine) whyHere(ctx context.Context, x *Explanation, im content.Image, now time.Time) error {
	x.Digest, x.State, x.Tags, x.Size, x.Pushed = im.Digest, im.State.String(), im.Tags, im.Size, im.Pushed
	if im.State != content.Live {
		x.HiddenAt, x.Hidden = im.HiddenAt, im.Reason
	}
	images, err := e.deps.Content.ImagesOf(ctx, x.Repository)
	if err != nil {
		return fmt.Errorf("read images of %s: %w", x.Repository, err)
	}
	v, err := e.view(ctx, now)
	if err != nil {
		return err
	}
	ds, err := e.decide(ctx, v, x.Repository, images)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(ds, func(o Decision) bool { return o.Image.Digest == im.Digest })
	if i < 0 { // gone between the two looks
		x.State = "swept"
		return nil
	}
	o := &ds[i]
	x.Action, x.Code, x.Reason, x.Policy, x.By = o.Action.String(), o.Code.String(), o.Reason(), o.PolicyName(), o.By
	x.Age, x.ExpiresAt, x.Horizon = o.Age, o.ExpiresAt, o.Horizon.String()
	since := im.HiddenAt
	if im.State == content.Live {
		since = o.LastUse.At
	}
	if o.LastUse.Now || !o.LastUse.At.IsZero() {
		u := o.LastUse
		x.LastUse = &u
	}
	if !o.LastUse.Now || im.State != content.Live {
		x.Uncovered = max(0, now.Sub(since)-o.Age)
	}
	for _, iv := range e.deps.Ledger.Uncovered() {
		if iv.Holds(x.Repository) && (iv.To.IsZero() || iv.To.After(since)) {
			x.Stops = append(x.Stops, iv)
		}
	}
	slices.SortStableFunc(x.Stops, func(a, b usage.Interval) int {
		if a.To.IsZero() != b.To.IsZero() {
			if a.To.IsZero() {
				return -1
			}
			return 1
		}
		return a.From.Compare(b.From)
	})
	x.Uses = e.whyUses(v, images, ds, i)
	for _, p := range v.pins[x.Repository] {
		if p.Digest == im.Digest {
			x.Pins = append(x.Pins, p)
		}
	}
	if e.planningOnly() {
		x.Notes = append(x.Notes, ErrPlanningOnly.Error())
	}
	st := e.Status()
	if st.Held != nil {
		x.Notes = append(x.Notes, (&EverythingError{Expire: st.Held.Expire, Live: st.Held.Live, Changed: true}).Error())
	}
	if st.Clock != "" {
		x.Notes = append(x.Notes, "nothing expires while the clock is in doubt: "+st.Clock)
	}
	if o.Policy != nil && o.Policy.MaxBytes > 0 && im.State == content.Live {
		note := fmt.Sprintf("the policy also bounds its images to %d bytes, least recently used first", o.Policy.MaxBytes)
		if st.LastRun != nil {
			for _, b := range st.LastRun.Plan.Bounded {
				if b.Policy == o.Policy.Name {
					note += fmt.Sprintf("; at the last run they took %d", b.Bytes)
				}
			}
		}
		x.Notes = append(x.Notes, note)
	}
	return nil
}

// whyUses lists the uses that count for image i, with their edges.
func (e *Engine) whyUses(v *view, images []content.Image, ds []Decision, i int) []Used {
	// The nearest edge names a digest: later entries are farther away.
	im := &images[i]
	edge := map[image.Digest]string{im.Digest: "itself"}
	name := func(d image.Digest, s string) {
		if _, ok := edge[d]; !ok && d != "" {
			edge[d] = s
		}
	}
	name(im.Config, "config")
	for _, c := range im.Children {
		name(c, "child")
	}
	for k := range images {
		if slices.Contains(images[k].Children, im.Digest) {
			name(images[k].Digest, "index")
		}
	}
	for k := range images {
		if edge[images[k].Digest] == "index" {
			for _, c := range images[k].Children {
				name(c, "sibling")
			}
		}
	}
	for k := range images {
		if s := edge[images[k].Digest]; s == "child" || s == "sibling" {
			name(images[k].Config, "config of "+s)
		}
	}
	via := func(d image.Digest) string {
		if s, ok := edge[d]; ok {
			return s
		}
		return "related"
	}
	facts := v.decider.g.Uses(v.decider.node[i], e.deps.Ledger.Uses)
	// What Cairn owns comes by the same edges, but Graph.Uses does not list it.
	reach := v.decider.g.Uses(v.decider.node[i], func(d image.Digest) []usage.Use {
		var us []usage.Use
		for k := range images {
			if images[k].Digest == d {
				us = append(us, usage.Use{Digest: d, Repository: images[k].Repository, Source: usage.Push, At: images[k].Pushed})
			}
		}
		for _, p := range v.pins[images[i].Repository] {
			if p.Digest == d && (p.Expires.IsZero() || p.Expires.After(v.now)) {
				us = append(us, pinUse(p))
			}
		}
		return us
	})
	all := append(facts, reach...)
	slices.SortStableFunc(all, func(a, b usage.Use) int {
		switch {
		case usage.Better(a, b):
			return -1
		case usage.Better(b, a):
			return 1
		}
		return 0
	})
	var out []Used
	for _, u := range all {
		if len(out) == whyUses {
			break
		}
		out = append(out, Used{u, via(u.Digest)})
	}
	return out
}

// log finds what the audit log says about a digest or tag, newest first.
func (e *Engine) log(ctx context.Context, repo, ref string, d image.Digest) ([]content.AuditEntry, error) {
	var out []content.AuditEntry
	before := int64(0)
	for range logPages {
		page, err := e.deps.Content.Audit(ctx, repo, before, logPage)
		if errors.Is(err, content.ErrRepositoryUnknown) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the audit log of %s: %w", repo, err)
		}
		for _, a := range page {
			if d != "" && a.Digest == d || d == "" && slices.Contains(a.Tags, ref) {
				if out = append(out, a); len(out) == whyLog {
					return out, nil
				}
			}
		}
		if len(page) < logPage {
			break
		}
		before = page[len(page)-1].ID
	}
	return out, nil
}

// Text renders the explanation for a terminal.
func (x *Explanation) Text() string {
	var b strings.Builder
	sep := ":"
	if strings.Contains(x.Ref, ":") {
		sep = "@"
	}
	line := func(key, format string, args ...any) {
		fmt.Fprintf(&b, "  %-10s %s\n", key, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(&b, "%s%s%s\n", x.Repository, sep, x.Ref)
	if x.State == "unknown" {
		line("state", "unknown: it is not here")
		for _, t := range x.Tried {
			line("tried", "%s", t)
		}
		x.textUses(&b)
		return b.String()
	}
	if string(x.Digest) != x.Ref {
		line("digest", "%s", x.Digest)
	}
	switch x.State {
	case "live":
		line("state", "live, %s", x.end())
	case "swept":
		line("state", "gone: it was swept and cannot be restored")
	default:
		line("state", "%s on %s, %s", x.State, stamp(x.HiddenAt), x.end())
		if x.Hidden != "" {
			line("because", "%s", x.Hidden)
		}
		line("restore", "cairn image restore %s@%s", x.Repository, x.Digest)
	}
	if x.Reason != "" {
		line(x.verb(), "%s", x.Reason)
	}
	if x.Policy != "" {
		line("policy", "%s", x.Policy)
	}
	if len(x.Tags) > 0 {
		names := make([]string, len(x.Tags))
		for i, t := range x.Tags {
			names[i] = t.Name
		}
		line("tags", "%s", strings.Join(names, ", "))
	}
	if u := x.LastUse; u != nil {
		when := stamp(u.At)
		if u.Now {
			when = "now"
		}
		line("last use", "%s, %s", when, describe(*u))
		if x.Uncovered >= time.Second {
			since := ""
			if x.State != "live" {
				since = " since it was hidden"
			}
			line("covered", "%s%s; for %s nobody can tell", Duration(x.Age), since, Duration(x.Uncovered))
		}
	}
	x.textUses(&b)
	for _, p := range x.Pins {
		until := "for ever"
		if !p.Expires.IsZero() {
			until = "until " + stamp(p.Expires)
		}
		line("pinned", "%s%s%s", until, prefixed(" by ", p.By), prefixed(": ", p.Reason))
	}
	for _, iv := range x.Stops {
		span := "since " + stamp(iv.From)
		if !iv.To.IsZero() {
			span = stamp(iv.From) + " to " + stamp(iv.To)
		}
		line("uncovered", "%s: %s%s", span, iv.Why, prefixed(" (", iv.Reporter)+closing(iv.Reporter))
		if iv.To.IsZero() && iv.Cure != "" {
			line("cure", "%s", iv.Cure)
		}
	}
	for _, n := range x.Notes {
		line("note", "%s", n)
	}
	for _, a := range x.Log {
		line("log", "%s %s%s: %s", stamp(a.At), a.Action, prefixed(" by ", a.Actor), a.Reason)
	}
	return b.String()
}

func (x *Explanation) textUses(b *strings.Builder) {
	const shown = 10
	for i, u := range x.Uses {
		if i == shown {
			fmt.Fprintf(b, "  %-10s and %d more\n", "", len(x.Uses)-shown)
			break
		}
		key := ""
		if i == 0 {
			key = "used by"
		}
		when := stamp(u.At)
		if u.Now {
			when = "now"
		}
		via := ""
		if u.Via != "itself" {
			via = fmt.Sprintf(" (%s %s)", u.Via, short(u.Digest))
		}
		fmt.Fprintf(b, "  %-10s %-20s %s%s\n", key, when, describe(u.Use), via)
	}
}

func (x *Explanation) verb() string {
	switch x.Action {
	case "keep":
		return "kept"
	case "expire":
		return "expires"
	case "revive":
		return "revived"
	case "sweep":
		return "swept"
	}
	return "hidden"
}

// end says when the image goes.
func (x *Explanation) end() string {
	goes := "expires"
	if x.State != "live" {
		goes = "is swept"
	}
	switch {
	case x.Action == "expire" || x.Action == "sweep":
		return goes + " at the next run"
	case x.Action == "revive":
		return "comes back at the next run"
	case x.Horizon == "never":
		return "stays as long as that holds"
	case x.Horizon == "unknown":
		return "when it goes cannot be told now"
	}
	return fmt.Sprintf("%s on %s (in %s) unless it is used", goes, stamp(x.ExpiresAt), Duration(x.ExpiresAt.Sub(x.At)))
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

func closing(s string) string {
	if s == "" {
		return ""
	}
	return ")"
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }
