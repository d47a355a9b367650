package bump

import (
	"fmt"
	"slices"
	"strings"

	"cairn.dev/cairn/internal/forge"
)

// A Proposal is what one group comes to: an edit, or the reason for none.
type Proposal struct {
	Group   Group
	Targets []Target
	Edit    *Edit // nil: nothing is wanted
	// Why nothing is wanted, for the comment that closes a pull request.
	Why string
	// Unsure: not everything about the group is known (a registry did not
	// answer, a change was refused): what is open stays as it is.
	Unsure bool
}

// A Branch is what the forge has under the name of a group's branch.
type Branch struct {
	Name string
	Head string // its commit; "" when there is no such branch
	// Ours: Head is a commit of ours on a commit of the base, and nobody else's.
	Ours bool
	// Holds is [Edit.Sum] of what Head has on top of the base; "" when not known.
	Holds string
	// Block of the pull request; nil when there is none that can be relied on.
	Block *Block
	// Pulls are its open pull requests, oldest first.
	Pulls []forge.Pull
}

// Facts are what [Decide] decides from.
type Facts struct {
	// Proposals are those of all groups, those that want nothing included.
	Proposals []Proposal
	// Branches by name: those of the groups, and all with an open pull request.
	Branches map[string]*Branch
	// Open: the schedule allows to open. What is open is kept up to date, merged
	// and closed at any time.
	Open bool
	// MaxOpen bounds open pull requests, PerHour those opened within an hour, of
	// which there were Opened. 0: no bound.
	MaxOpen, PerHour, Opened int
	// Pullless: the forge has no pull requests; a branch is all there is.
	Pullless bool
}

// A Verb is what is done about a group.
type Verb string

// The verbs.
const (
	Nothing  Verb = "nothing"  // there is nothing to do, or it is done
	Wait     Verb = "wait"     // for the schedule, or a limit
	Leave    Verb = "leave"    // a person has the branch now, or not all is known
	Open     Verb = "open"     // commit if need be, and open a pull request
	Update   Verb = "update"   // commit anew on the base, and say so in the pull request
	Describe Verb = "describe" // the branch is right and what the pull request says is not
	Merge    Verb = "merge"    // once checks passed
	Close    Verb = "close"    // the pull request, and remove the branch
	Drop     Verb = "drop"     // remove the branch: it has no pull request, and is of no use
)

// An Action is what is to be done about one branch, and why, for people.
type Action struct {
	Verb     Verb
	Branch   *Branch
	Proposal *Proposal // nil: no group has this branch any more
	Pull     *forge.Pull
	Reason   string
}

// Decide says what to do, branch by branch in the order of the proposals. It is
// pure, and stable: once its actions are carried out, it returns [Nothing],
// [Wait], [Leave] and [Merge] only.
func Decide(f Facts) []Action {
	var out []Action
	open := 0
	for _, b := range f.Branches {
		open += len(b.Pulls)
	}
	opened := f.Opened
	known := map[string]bool{}
	for i := range f.Proposals {
		p := &f.Proposals[i]
		known[p.Group.Branch] = true
		b := f.Branches[p.Group.Branch]
		if b == nil {
			b = &Branch{Name: p.Group.Branch}
		}
		a := decideOne(&f, p, b)
		if a.Verb == Open && !f.Pullless {
			switch {
			case f.MaxOpen > 0 && open >= f.MaxOpen:
				a.Verb, a.Reason = Wait, fmt.Sprintf("%d pull requests are open, and the limit is %d: merge or close some, or raise limits.open", open, f.MaxOpen)
			case f.PerHour > 0 && opened >= f.PerHour:
				a.Verb, a.Reason = Wait, fmt.Sprintf("%d pull requests were opened within the hour, and the limit is %d: it comes later, or raise limits.per_hour", opened, f.PerHour)
			default:
				open, opened = open+1, opened+1
			}
		}
		out = append(out, a)
		out = append(out, duplicates(p, b)...)
	}
	var strays []string
	for name := range f.Branches {
		if !known[name] {
			strays = append(strays, name)
		}
	}
	slices.Sort(strays)
	for _, name := range strays {
		b := f.Branches[name]
		for i := range b.Pulls {
			out = append(out, decideStray(b, &b.Pulls[i]))
		}
	}
	return out
}

// duplicates closes what a forge that let two pull requests of one branch be
// opened has too many.
func duplicates(p *Proposal, b *Branch) (out []Action) {
	for i := 1; i < len(b.Pulls); i++ {
		out = append(out, Action{Close, b, p, &b.Pulls[i], fmt.Sprintf("#%d proposes the same", b.Pulls[0].Number)})
	}
	return out
}

func decideOne(f *Facts, p *Proposal, b *Branch) Action {
	a := Action{Verb: Nothing, Branch: b, Proposal: p, Reason: p.Why}
	do := func(v Verb, format string, args ...any) Action {
		a.Verb, a.Reason = v, fmt.Sprintf(format, args...)
		return a
	}
	if len(b.Pulls) > 0 {
		a.Pull = &b.Pulls[0]
	}
	switch {
	case p.Unsure && (a.Pull != nil || p.Edit == nil):
		return do(Leave, "%s", p.Why)
	case p.Edit == nil && a.Pull == nil:
		if f.Pullless && b.Head != "" && b.Ours {
			return do(Drop, "%s", p.Why)
		}
		return a
	case b.Head != "" && !b.Ours:
		if a.Pull == nil {
			return do(Leave, "the branch %s has commits that are not ours: delete it, or merge it yourself", b.Name)
		}
		return do(Leave, "%s has commits that are not ours and is left to people: merge or close it", a.Pull.URL)
	case p.Edit == nil:
		return do(Close, "%s", p.Why)
	case a.Pull == nil && (!f.Pullless || b.Holds != p.Edit.Sum):
		if !f.Open {
			return do(Wait, "the schedule of .cairn.yaml does not allow it now")
		}
		return do(Open, "a newer image is there")
	case a.Pull == nil:
		return do(Nothing, "the branch %s has it: merge it", b.Name)
	case b.Holds != p.Edit.Sum:
		return do(Update, "what is proposed, or the code that it changes, is not what it was")
	case b.Block == nil || b.Block.Edit != p.Edit.Sum || b.Block.Head != b.Head:
		return do(Describe, "the branch is newer than what the pull request says")
	case p.Group.Automerge:
		return do(Merge, "%s is merged once its checks passed", a.Pull.URL)
	}
	return do(Nothing, "%s proposes it", a.Pull.URL)
}

// decideStray decides about a pull request whose group is no more: the rules
// changed, or the code does not name the images any longer.
func decideStray(b *Branch, pull *forge.Pull) Action {
	a := Action{Verb: Leave, Branch: b, Pull: pull}
	switch {
	case b.Block == nil:
		a.Reason = fmt.Sprintf("%s is on a branch named as ours are, and nothing in it says that it is ours: merge or close it", pull.URL)
	case !b.Ours:
		a.Reason = fmt.Sprintf("%s has commits that are not ours and is left to people: merge or close it", pull.URL)
	default:
		a.Verb, a.Reason = Close, "the code does not name these images any more, or .cairn.yaml groups them otherwise"
	}
	return a
}

// Because says why a group wants nothing, of all that its images say.
func Because(g *Group) (why string, unsure bool) {
	var reasons []string
	for _, w := range g.Images {
		r := w.Reason
		if r == "" {
			r = w.Choice.Reason
		}
		if w.Choice.State == "unknown" {
			unsure = true
		}
		if r != "" && !slices.Contains(reasons, r) {
			reasons = append(reasons, r)
		}
	}
	if len(reasons) > 3 {
		reasons = append(reasons[:3], fmt.Sprintf("and %d other reasons", len(reasons)-3))
	}
	return strings.Join(reasons, "; "), unsure
}
