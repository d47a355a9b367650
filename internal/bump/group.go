package bump

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"cairn.dev/cairn/internal/choose"
	"cairn.dev/cairn/internal/code"
)

// A Wanted is one image of the code and what was chosen for it.
type Wanted struct {
	Image  code.Image
	Ref    code.Reference
	Choice choose.Choice
	// Group, Labels, Reviewers and Automerge are what the rules say.
	Group     string // "" for the default: the image's repository in its directory
	Labels    []string
	Reviewers []string
	Automerge bool
	// State and Reason say why there is nothing, where it is not the choice that does.
	State, Reason string

	also *Wanted // the major version that goes separately, beside this choice
}

// target is what the choice makes of the reference.
func (w *Wanted) target() Target {
	return Target{Repository: w.Ref.Repository(), From: w.Image.Value, To: w.Choice.To}
}

// A Group is images that are proposed together, on one branch.
type Group struct {
	Name      string // for people
	Branch    string
	Images    []*Wanted // all of them, also those that stay
	Labels    []string
	Reviewers []string
	Automerge bool // all of them want it
}

// GroupImages puts the images into groups, in the order of their branches. Images
// of one repository in one directory are a group unless the rules say otherwise;
// a major version that goes separately has a group of its own. What the branch is
// called follows from the group alone, so that a later pass finds it again.
func GroupImages(prefix string, images []*Wanted) []Group {
	by := map[string]*Group{}
	for _, w := range images {
		name := w.Group
		if name == "" {
			name = shortName(w.Ref.Repository())
			if w.Image.Dir != "." && w.Image.Dir != "" {
				name += " in " + w.Image.Dir
			}
		}
		// The group without "major" has all images, so that its pull request is
		// found to be of no use when nothing but a major version is left.
		join(by, prefix, name, w)
		switch {
		case w.Choice.State == choose.Newer && w.Choice.Major:
			join(by, prefix, name+" (major)", w)
		case w.Choice.Also != nil:
			also := *w
			also.Choice = *w.Choice.Also
			w.also = &also
			join(by, prefix, name+" (major)", &also)
		}
	}
	out := make([]Group, 0, len(by))
	for _, g := range by {
		slices.SortFunc(g.Images, func(a, b *Wanted) int { return strings.Compare(a.Image.ID, b.Image.ID) })
		out = append(out, *g)
	}
	slices.SortFunc(out, func(a, b Group) int { return cmp.Compare(a.Branch, b.Branch) })
	return out
}

func join(by map[string]*Group, prefix, name string, w *Wanted) {
	g := by[name]
	if g == nil {
		g = &Group{Name: name, Branch: BranchName(prefix, name), Automerge: true}
		by[name] = g
	}
	g.Images = append(g.Images, w)
	g.Automerge = g.Automerge && w.Automerge
	g.Labels = union(g.Labels, w.Labels)
	g.Reviewers = union(g.Reviewers, w.Reviewers)
}

func union(a, b []string) []string {
	for _, s := range b {
		if !slices.Contains(a, s) {
			a = append(a, s)
		}
	}
	return a
}

// major reports whether the group is that of major versions.
func (g *Group) major() bool { return strings.HasSuffix(g.Name, " (major)") }

// wants reports whether the image is to move with this group.
func (g *Group) wants(w *Wanted) bool {
	return w.Choice.State == choose.Newer && w.State == "" && w.Choice.Major == g.major()
}

// BranchName is the branch of a group: readable, a valid name of a git branch
// (git-check-ref-format), and another one for each group.
func BranchName(prefix, group string) string {
	var b strings.Builder
	dash := true
	for _, c := range strings.ToLower(group) {
		if b.Len() >= 60 {
			break
		}
		if 'a' <= c && c <= 'z' || '0' <= c && c <= '9' {
			b.WriteRune(c)
			dash = false
		} else if !dash {
			b.WriteByte('-')
			dash = true
		}
	}
	sum := sha256.Sum256([]byte(group))
	slug := strings.TrimSuffix(b.String(), "-")
	if slug != "" {
		slug += "-"
	}
	return prefix + slug + hex.EncodeToString(sum[:4])
}

// shortName is a repository as people say it: without the host that everybody
// means.
func shortName(repository string) string {
	return strings.TrimPrefix(strings.TrimPrefix(repository, "docker.io/"), "library/")
}

// An Edit is what a branch has on top of a commit of the base.
type Edit struct {
	Files map[string][]byte // the whole new content of each changed file
	// Sum names the edit by its paths and the contents before and after: it is
	// the same for as long as the same change applies to the same bytes,
	// whatever else happens in the repository.
	Sum string
	// Effects are all sinks that move, those asked for included.
	Effects []code.Effect
}

// SumEdit computes [Edit.Sum].
func SumEdit(before, after map[string][]byte) string {
	paths := make([]string, 0, len(after))
	for p := range after {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	h := sha256.New()
	for _, p := range paths {
		b, a := sha256.Sum256(before[p]), sha256.Sum256(after[p])
		fmt.Fprintf(h, "%q %x %x\n", p, b, a)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
