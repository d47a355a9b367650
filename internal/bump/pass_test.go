package bump

import (
	"errors"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/code"
	"cairn.dev/cairn/internal/forge"
)

const (
	main1 = "api = \"cairn.test/api:1.1\"\nweb = \"nginx:1.1\"\n"
	main2 = "api = \"cairn.test/api:1.2\"\nweb = \"nginx:1.1\"\n"
	main3 = "api = \"cairn.test/api:1.3\"\nweb = \"nginx:1.1\"\n"
)

// begun is a rig with one repository of code and one image at 1.1.
func begun(t *testing.T) (*rig, *Engine) {
	g := newRig(t)
	g.push("cairn.test/api", "1.1")
	g.push("docker.io/library/nginx", "1.1")
	g.add(map[string]string{"main.tf": main1})
	e := g.engine("a")
	g.pass(e)
	g.none()
	return g, e
}

func TestOpensUpdatesAndClosesWhenMerged(t *testing.T) {
	g, e := begun(t)
	if s := g.status(e, "cairn.test/api:1.1"); s.State != "current" || s.Reason == "" {
		t.Errorf("%+v", s)
	}
	g.push("cairn.test/api", "1.2")
	g.pass(e)
	p := g.one()
	g.holds(p, "main.tf", main2)
	if p.Title != "Bump cairn.test/api from 1.1 to 1.2" || !strings.HasPrefix(p.Branch, "cairn/cairn-test-api-") {
		t.Errorf("%q on %q", p.Title, p.Branch)
	}
	if s := g.status(e, "cairn.test/api:1.1"); s.Pull != p.URL || s.Reason != p.URL+" proposes it" {
		t.Errorf("%+v", s)
	}
	// Nothing changed: nothing is written.
	g.quietly(e)

	g.push("cairn.test/api", "1.3")
	g.pass(e)
	q := g.one()
	if q.Number != p.Number {
		t.Errorf("a second pull request for a still newer tag: %d and %d", p.Number, q.Number)
	}
	g.holds(q, "main.tf", main3)
	if q.Title != "Bump cairn.test/api from 1.1 to 1.3" {
		t.Error(q.Title)
	}
	if parents := g.forge.Parents("team/app", q.Head); len(parents) != 1 || parents[0] != g.forge.Branches("team/app")["main"] {
		t.Error("the commit is not one on the base")
	}

	if err := g.forge.MergeByHand("team/app", q.Number); err != nil {
		t.Fatal(err)
	}
	g.pass(e)
	g.none()
	if n := len(g.forge.Branches("team/app")); n != 1 {
		t.Errorf("%d branches are left", n)
	}
	g.quietly(e)
}

// quietly makes a pass that must not write to the forge.
func (g *rig) quietly(e *Engine) {
	g.Helper()
	before := len(g.forge.Calls())
	g.pass(e)
	for _, c := range g.forge.Calls()[before:] {
		switch c.Name {
		case "Commit", "CreatePull", "EditPull", "Comment", "DeleteBranch", "Merge", "EnsureIssue", "CloseIssue":
			g.Errorf("nothing changed, and %s was called", c.Name)
		}
	}
}

func TestRebasesOnlyWhenTheTouchedFilesMoved(t *testing.T) {
	g, e := begun(t)
	g.push("cairn.test/api", "1.2")
	g.pass(e)
	p := g.one()
	g.forge.Push("team/app", "main", map[string]string{"other.tf": "x = \"redis:1\"\n"})
	g.quietly(e)
	if g.one().Head != p.Head {
		t.Error("the branch moved although the change applies as it is")
	}
	g.forge.Push("team/app", "main", map[string]string{"main.tf": "# a comment\n" + main1})
	g.pass(e)
	q := g.one()
	g.holds(q, "main.tf", "# a comment\n"+main2)
	if q.Number != p.Number || g.forge.Parents("team/app", q.Head)[0] != g.forge.Branches("team/app")["main"] {
		t.Error("it was not moved onto the new base in place")
	}
}

func TestDoneByHand(t *testing.T) {
	g, e := begun(t)
	g.push("cairn.test/api", "1.2")
	g.pass(e)
	p := g.one()
	g.forge.Push("team/app", "main", map[string]string{"main.tf": main2})
	g.pass(e)
	g.none()
	if c := g.forge.Comments("team/app", p.Number); len(c) != 1 || !strings.Contains(c[0], "nothing newer than 1.2") {
		t.Errorf("comments %q", c)
	}
	if n := len(g.forge.Branches("team/app")); n != 1 {
		t.Errorf("%d branches are left", n)
	}
	// That we closed it is no person's wish.
	g.forge.Push("team/app", "main", map[string]string{"main.tf": main1})
	g.pass(e)
	g.one()
}

func TestDeclined(t *testing.T) {
	g, e := begun(t)
	g.push("cairn.test/api", "1.2")
	g.pass(e)
	p := g.one()
	shut, yes := false, true
	if err := g.forge.Edit("team/app", p.Number, forge.PullEdit{Open: &shut}, "ada"); err != nil {
		t.Fatal(err)
	}
	g.pass(e)
	g.none()
	if s := g.status(e, "cairn.test/api:1.1"); s.State != StateDeclined {
		t.Errorf("%+v", s)
	}
	g.quietly(e)
	// Another process learns it from the forge, long after.
	b := g.engine("b")
	g.pass(b)
	g.none()

	// Opened again by a person: it counts again.
	if err := g.forge.Edit("team/app", p.Number, forge.PullEdit{Open: &yes}, "ada"); err != nil {
		t.Fatal(err)
	}
	g.pass(e)
	if g.one().Number != p.Number {
		t.Error("another pull request was opened")
	}
	if err := g.forge.Edit("team/app", p.Number, forge.PullEdit{Open: &shut}, "ada"); err != nil {
		t.Fatal(err)
	}
	// A newer version is another question.
	g.push("cairn.test/api", "1.3")
	g.pass(e)
	q := g.one()
	if q.Number == p.Number {
		t.Error("the declined one was used again")
	}
	g.holds(q, "main.tf", main3)
}

func TestACommitOfAPersonIsLeftAlone(t *testing.T) {
	g, e := begun(t)
	g.push("cairn.test/api", "1.2")
	g.pass(e)
	p := g.one()
	theirs := g.forge.Push("team/app", p.Branch, map[string]string{"main.tf": main2 + "# mine\n"})
	g.push("cairn.test/api", "1.3")
	for _, engine := range []*Engine{e, g.engine("b")} {
		g.pass(engine)
		if q := g.one(); q.Head != theirs || q.Title != p.Title {
			t.Fatalf("the branch or the text moved: %+v", q)
		}
		if s := g.status(engine, "cairn.test/api:1.1"); s.Verb != Leave || !strings.Contains(s.Reason, "left to people") {
			t.Errorf("%+v", s)
		}
	}
	// Also when the base no longer needs it.
	g.forge.Push("team/app", "main", map[string]string{"main.tf": main3})
	g.pass(e)
	if g.one().Head != theirs {
		t.Error("moved")
	}
}

func TestAPersonHasTheBranchAlready(t *testing.T) {
	g, e := begun(t)
	name := BranchName(prefix, "cairn.test/api")
	theirs := g.forge.Push("team/app", name, map[string]string{"mine.tf": "y = 1\n"})
	g.push("cairn.test/api", "1.2")
	g.pass(e)
	g.none()
	if g.forge.Branches("team/app")[name] != theirs {
		t.Error("a person's branch was moved")
	}
	if s := g.status(e, "cairn.test/api:1.1"); s.Verb != Leave || !strings.Contains(s.Reason, "not ours") {
		t.Errorf("%+v", s)
	}
}

func TestSomebodyElsesPullIsNotOurs(t *testing.T) {
	g, e := begun(t)
	// A block in it that says so does not make it ours.
	name := BranchName(prefix, "cairn.test/api")
	theirs := g.forge.Push("team/app", name, map[string]string{"main.tf": main1 + "# theirs\n"})
	block := Block{Base: strings.Repeat("a", 40), Head: theirs, Edit: "x", Targets: []Target{{"cairn.test/api", "cairn.test/api:1.1", "cairn.test/api:1.9"}}}
	self := g.forge.Self
	g.forge.Self = "mallory"
	if _, err := g.forge.CreatePull(g.ctx, "team/app", forge.NewPull{Title: "t", Body: block.String(), Branch: name, Base: "main"}); err != nil {
		t.Fatal(err)
	}
	g.forge.Self = self
	g.push("cairn.test/api", "1.2")
	g.pass(e)
	if g.one().Head != theirs {
		t.Error("somebody's branch was moved because a text told us to")
	}
}

func TestTheBlockIsEditedAway(t *testing.T) {
	g, e := begun(t)
	g.push("cairn.test/api", "1.2")
	g.pass(e)
	p := g.one()
	text := "I removed what I did not understand."
	if err := g.forge.Edit("team/app", p.Number, forge.PullEdit{Body: &text}, "ada"); err != nil {
		t.Fatal(err)
	}
	// Who remembers what it said needs nothing from it.
	g.quietly(e)
	// Another process finds that it is just what it would propose, and says so.
	g.pass(g.engine("b"))
	q := g.one()
	if _, err := ParseBlock(q.Body); err != nil {
		t.Errorf("it was not written again: %v", err)
	}
	if q.Number != p.Number || q.Head != p.Head {
		t.Error("another pull request or commit")
	}
}

func TestGroupsMoveTogether(t *testing.T) {
	g := newRig(t)
	g.push("cairn.test/api", "1.1")
	g.push("docker.io/library/nginx", "1.1")
	g.push("cairn.test/api", "1.2")
	g.push("docker.io/library/nginx", "1.2")
	g.add(map[string]string{".cairn.yaml": "together", "main.tf": main1})
	e := g.engine("a")
	g.pass(e)
	p := g.one()
	g.holds(p, "main.tf", "api = \"cairn.test/api:1.2\"\nweb = \"nginx:1.2\"\n")
	// Grouped otherwise: the old one goes, new ones come.
	g.forge.Push("team/app", "main", map[string]string{".cairn.yaml": "apart"})
	g.pass(e)
	if n := len(g.pulls(true)); n != 2 {
		t.Errorf("%d are open, want 2", n)
	}
	if c := g.forge.Comments("team/app", p.Number); len(c) != 1 {
		t.Errorf("%q", c)
	}
}

func TestLimits(t *testing.T) {
	files := map[string]string{}
	g := newRig(t)
	for _, name := range []string{"a", "b", "c", "d"} {
		g.push("cairn.test/"+name, "1")
		g.push("cairn.test/"+name, "2")
		files[name+".tf"] = name + " = \"cairn.test/" + name + ":1\"\n"
	}
	files[".cairn.yaml"] = "max2"
	g.add(files)
	e := g.engine("a")
	g.pass(e)
	g.pass(e)
	if n := len(g.pulls(true)); n != 2 {
		t.Fatalf("%d are open, want 2", n)
	}
	waits := 0
	for name := range files {
		if name != ".cairn.yaml" {
			if s := g.status(e, "cairn.test/"+name[:1]+":1"); s.Verb == Wait && strings.Contains(s.Reason, "limit is 2") {
				waits++
			}
		}
	}
	if waits != 2 {
		t.Errorf("%d wait and say so, want 2", waits)
	}
	g.forge.Push("team/app", "main", map[string]string{".cairn.yaml": "hour1"})
	g.pass(e)
	if n := len(g.pulls(true)); n != 2 {
		t.Errorf("%d are open: two were opened within the hour already", n)
	}
	g.clock.Advance(61 * time.Minute)
	g.pass(e)
	g.pass(e)
	if n := len(g.pulls(true)); n != 3 {
		t.Errorf("%d are open, want one more an hour later", n)
	}
}

func TestSchedule(t *testing.T) {
	g, e := begun(t)
	g.forge.Push("team/app", "main", map[string]string{".cairn.yaml": "closed"})
	g.push("cairn.test/api", "1.2")
	g.pass(e)
	g.none()
	if s := g.status(e, "cairn.test/api:1.1"); s.Verb != Wait || !strings.Contains(s.Reason, "schedule") {
		t.Errorf("%+v", s)
	}
	g.forge.Push("team/app", "main", map[string]string{".cairn.yaml": ""})
	g.pass(e)
	g.one()
}

func TestBrokenRules(t *testing.T) {
	g, e := begun(t)
	g.push("cairn.test/api", "1.2")
	g.forge.Push("team/app", "main", map[string]string{".cairn.yaml": "BAD: true"})
	for range 2 {
		var broken *RulesError
		if err := g.try(e); !errors.As(err, &broken) {
			t.Fatalf("%v", err)
		}
	}
	g.none()
	issues := g.forge.Issues("team/app")
	if len(issues) != 1 || issues[0].State != "open" || !strings.Contains(issues[0].Body, "line 1: `BAD: true`") {
		t.Fatalf("%+v", issues)
	}
	// What the code uses is known all the same.
	if d := g.led.doubts(); len(d) != 0 {
		t.Errorf("%+v", d)
	}
	g.forge.Push("team/app", "main", map[string]string{".cairn.yaml": "fine"})
	g.pass(e)
	g.one()
	if issues := g.forge.Issues("team/app"); issues[0].State != "closed" {
		t.Error("the issue was not closed")
	}
}

func TestAutomerge(t *testing.T) {
	g, e := begun(t)
	g.forge.Push("team/app", "main", map[string]string{".cairn.yaml": "automerge"})
	g.push("cairn.test/api", "1.2")
	g.pass(e)
	p := g.one()
	for _, state := range []forge.CheckState{forge.ChecksNone, forge.ChecksPending, forge.ChecksFailed} {
		g.forge.SetChecks("team/app", p.Head, state)
		g.pass(e)
		if s := g.status(e, "cairn.test/api:1.1"); s.Reason == "" || g.one().Number != p.Number {
			t.Errorf("%s: %+v", state, s)
		}
	}
	g.forge.SetChecks("team/app", p.Head, forge.ChecksPassed)
	g.pass(e)
	g.none()
	if got := g.forge.Files("team/app", g.forge.Branches("team/app")["main"])["main.tf"]; got != main2 {
		t.Errorf("main holds %q", got)
	}
}

func TestARegistryThatDoesNotAnswerClosesNothing(t *testing.T) {
	g, e := begun(t)
	g.push("cairn.test/api", "1.2")
	g.pass(e)
	p := g.one()
	g.regs.fail = map[string]error{"cairn.test/api": errors.New("503")}
	g.quietly(e)
	if g.one().Head != p.Head {
		t.Error("moved")
	}
	if s := g.status(e, "cairn.test/api:1.1"); s.State != "unknown" || !strings.Contains(s.Reason, "503") {
		t.Errorf("%+v", s)
	}
}

func TestWhyNot(t *testing.T) {
	g := newRig(t)
	g.push("cairn.test/api", "1.1")
	g.push("cairn.test/api", "1.2")
	g.add(map[string]string{"main.tf": "a = \"cairn.test/api:1.1\" # fixed\nb = \"cairn.test/none:1\"\nc = \"not an image\"\n"})
	e := g.engine("a")
	g.pass(e)
	for value, want := range map[string]string{"cairn.test/api:1.1": "it is made elsewhere", "cairn.test/none:1": "has no cairn.test/none", "not an image": "image"} {
		if s := g.status(e, value); !strings.Contains(s.Reason, want) {
			t.Errorf("%s: %+v, want %q", value, s, want)
		}
	}
}

func TestReadOnlyRepositories(t *testing.T) {
	g, e := begun(t)
	g.push("cairn.test/api", "1.2")
	g.forge.SetArchived("team/app", true)
	g.clock.Advance(2 * time.Hour)
	g.quietly(e)
	st, _ := e.Repository("team/app")
	if !strings.Contains(st.Note, "archived") {
		t.Errorf("%+v", st)
	}
	if s := g.status(e, "cairn.test/api:1.1"); s.Verb != Leave || !strings.Contains(s.Reason, "archived") {
		t.Errorf("%+v", s)
	}
}

func TestAProtectedBranch(t *testing.T) {
	g, e := begun(t)
	g.forge.Protect("team/app", BranchName(prefix, "cairn.test/api"))
	g.push("cairn.test/api", "1.2")
	g.pass(e)
	g.none()
	if s := g.status(e, "cairn.test/api:1.1"); s.Verb != Leave || !strings.Contains(s.Reason, "the forge refused") {
		t.Errorf("%+v", s)
	}
}

func TestAForcePushedBase(t *testing.T) {
	g, e := begun(t)
	g.push("cairn.test/api", "1.2")
	g.pass(e)
	g.forge.Rewrite("team/app", "main", map[string]string{"main.tf": "# new history\n" + main1})
	g.pass(e)
	q := g.one()
	g.holds(q, "main.tf", "# new history\n"+main2)
	if parents := g.forge.Parents("team/app", q.Head); parents[0] != g.forge.Branches("team/app")["main"] {
		t.Error("it is still on the old history")
	}
}

func TestBodyIsAboutEachPlace(t *testing.T) {
	g, e := begun(t)
	g.push("cairn.test/api", "1.2")
	g.pass(e)
	b, err := ParseBlock(g.one().Body)
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Targets) != 1 || b.Targets[0].To != "cairn.test/api:1.2" || b.Head != g.one().Head {
		t.Errorf("%+v", b)
	}
	if im, _ := code.ParseReference(b.Targets[0].From); im.Tag != "1.1" {
		t.Errorf("%+v", b.Targets)
	}
	if !strings.Contains(g.one().Body, "`main.tf:1`") {
		t.Error(g.one().Body)
	}
}
