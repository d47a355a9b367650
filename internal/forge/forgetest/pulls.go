package forgetest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"cairn.dev/cairn/internal/forge"
)

// open makes a branch with a change and a pull request of it.
func (s Site) open(t testing.TB, repo, head, branch string) (forge.Pull, string) {
	t.Helper()
	one := must[string](t)(s.Forge.Commit(t.Context(), repo, edit(branch, head, "", "1.1")))
	return must[forge.Pull](t)(s.Forge.CreatePull(t.Context(), repo, forge.NewPull{
		Title: "app to 1.1", Body: "Because <b>it</b> is `newer`.\n\n<!-- cairn:{\"a\":1} -->\n", Branch: branch, Base: "main", Labels: []string{"cairn"}})), one
}

func (s Site) list(t testing.TB, repo, prefix string) []forge.Pull {
	t.Helper()
	return must[[]forge.Pull](t)(s.Forge.ListPulls(t.Context(), repo, prefix, time.Time{}))
}

func (s Site) pulls(t *testing.T) {
	ctx := t.Context()
	repo, head := s.Add(t, Tree())
	who := must[string](t)(s.Forge.Account(ctx))
	if l := s.list(t, repo, "cairn/"); len(l) != 0 {
		t.Errorf("a new repository has %+v", l)
	}
	p, one := s.open(t, repo, head, "cairn/app")
	if p.Number == 0 || p.Title != "app to 1.1" || p.Body != "Because <b>it</b> is `newer`.\n\n<!-- cairn:{\"a\":1} -->\n" || p.Branch != "cairn/app" || p.Head != one || p.Base != "main" ||
		!p.Open || p.Merged || p.Author != who || !slices.Equal(p.Labels, []string{"cairn"}) || p.URL == "" || p.UpdatedAt.IsZero() {
		t.Errorf("CreatePull = %+v", p)
	}
	_, err := s.Forge.CreatePull(ctx, repo, forge.NewPull{Title: "again", Branch: "cairn/app", Base: "main"})
	want(t, err, forge.ErrExists, "a second pull request of a branch")
	_, err = s.Forge.CreatePull(ctx, repo, forge.NewPull{Title: "none", Branch: "cairn/none", Base: "main"})
	if !errors.Is(err, forge.ErrNotFound) && !errors.Is(err, forge.ErrInvalid) {
		t.Errorf("a pull request of a branch that is not there: %v", err)
	}
	q, _ := s.open(t, repo, head, "other/app")
	if l := s.list(t, repo, "cairn/"); len(l) != 1 || l[0].Number != p.Number {
		t.Errorf("ListPulls(cairn/) = %+v", l)
	}
	if l := s.list(t, repo, ""); len(l) != 2 || l[0].Number != q.Number || l[1].Body != p.Body {
		t.Errorf("ListPulls = %+v; want %d and %d", l, q.Number, p.Number)
	}

	title, body := "app to 1.2", ""
	e := must[forge.Pull](t)(s.Forge.EditPull(ctx, repo, p.Number, forge.PullEdit{Title: &title}))
	if e.Title != title || e.Body != p.Body || !e.Open {
		t.Errorf("EditPull of the title = %+v", e)
	}
	body = "new"
	e = must[forge.Pull](t)(s.Forge.EditPull(ctx, repo, p.Number, forge.PullEdit{Body: &body, Labels: []string{"late", "cairn"}}))
	slices.Sort(e.Labels)
	if e.Title != title || e.Body != body || !slices.Equal(e.Labels, []string{"cairn", "late"}) {
		t.Errorf("EditPull of body and labels = %+v", e)
	}
	two := must[string](t)(s.Forge.Commit(ctx, repo, edit("cairn/app", one, one, "1.2")))
	if l := s.settle(t, repo, func(l []forge.Pull) bool { return len(l) == 1 && l[0].Head == two }); l == nil {
		t.Error("the pull request does not follow its branch")
	}
	if err := s.Forge.Comment(ctx, repo, p.Number, "Superseded."); err != nil {
		t.Errorf("Comment: %v", err)
	}
	no, yes := false, true
	if e := must[forge.Pull](t)(s.Forge.EditPull(ctx, repo, p.Number, forge.PullEdit{Open: &no})); e.Open || e.Merged {
		t.Errorf("closed: %+v", e)
	}
	if e := must[forge.Pull](t)(s.Forge.EditPull(ctx, repo, p.Number, forge.PullEdit{Open: &yes})); !e.Open {
		t.Errorf("opened again: %+v", e)
	}
	_, err = s.Forge.EditPull(ctx, repo, 4711, forge.PullEdit{Title: &title})
	want(t, err, forge.ErrNotFound, "editing a pull request that is not there")
	want(t, s.Forge.Comment(ctx, repo, 4711, "c"), forge.ErrNotFound, "a comment on a pull request that is not there")

	if s.Reviewer != "" {
		must[string](t)(s.Forge.Commit(ctx, repo, edit("cairn/review", head, "", "1")))
		p := must[forge.Pull](t)(s.Forge.CreatePull(ctx, repo, forge.NewPull{Title: "look", Body: "b", Branch: "cairn/review", Base: "main", Reviewers: []string{s.Reviewer}}))
		if got := s.Reviewers(t, repo, p.Number); !slices.Equal(got, []string{s.Reviewer}) {
			t.Errorf("asked to look: %q, want %s", got, s.Reviewer)
		}
		// Nobody of that name: the pull request is worth more than its reviewer.
		must[string](t)(s.Forge.Commit(ctx, repo, edit("cairn/nobody", head, "", "1")))
		if p, err := s.Forge.CreatePull(ctx, repo, forge.NewPull{Title: "look", Body: "b", Branch: "cairn/nobody", Base: "main", Reviewers: []string{"nobody-is-called-so"}}); err != nil || !p.Open {
			t.Errorf("with a reviewer who is not there: %+v, %v", p, err)
		}
	}
}

// settle waits for what a forge does behind its answers; nil when it does not.
func (s Site) settle(t testing.TB, repo string, ok func([]forge.Pull) bool) []forge.Pull {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		l := s.list(t, repo, "cairn/")
		if ok(l) {
			return l
		}
		if time.Now().After(end) {
			t.Logf("it stays at %+v", l)
			return nil
		}
	}
}

func (s Site) closes(t *testing.T) {
	ctx := t.Context()
	repo, head := s.Add(t, Tree())
	who := must[string](t)(s.Forge.Account(ctx))
	p, one := s.open(t, repo, head, "cairn/app")
	s.Close(t, repo, p.Number)
	l := s.list(t, repo, "cairn/")
	if len(l) != 1 || l[0].Open || l[0].Merged || l[0].ClosedBy == who || l[0].Body != p.Body {
		t.Fatalf("somebody closed it: %+v", l)
	}
	if l := must[[]forge.Pull](t)(s.Forge.ListPulls(ctx, repo, "cairn/", time.Now().Add(100*365*24*time.Hour))); len(l) != 0 {
		t.Errorf("closed before a time yet to come, and listed: %+v", l)
	}
	if err := s.Forge.DeleteBranch(ctx, repo, "cairn/app", one); err != nil {
		t.Fatal(err)
	}
	if l := s.list(t, repo, "cairn/"); len(l) != 1 || l[0].Branch != "cairn/app" {
		t.Errorf("without its branch: %+v; its name is how it is found", l)
	}
	// The branch of the same name gets a pull request of its own.
	again, _ := s.open(t, repo, head, "cairn/app")
	if again.Number == p.Number {
		t.Errorf("the closed one came back: %+v", again)
	}
}

func (s Site) merges(t *testing.T) {
	ctx := t.Context()
	repo, head := s.Add(t, Tree())
	p, one := s.open(t, repo, head, "cairn/app")
	want(t, s.Forge.Merge(ctx, repo, p.Number, head), forge.ErrMoved, "merging what was not looked at")
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		err := s.Forge.Merge(ctx, repo, p.Number, one)
		var later *forge.LaterError // a forge may still be finding out whether it can be merged
		if err == nil {
			break
		}
		if !errors.As(err, &later) || time.Now().After(end) {
			t.Fatalf("Merge: %v", err)
		}
	}
	if l := s.settle(t, repo, func(l []forge.Pull) bool { return len(l) == 1 && l[0].Merged && !l[0].Open }); l == nil {
		t.Error("it was merged, and is not shown so")
	}
	s.holds(t, repo, must[string](t)(s.Forge.Head(ctx, repo, "main")), edited("1.1"))
	if err := s.Forge.Merge(ctx, repo, p.Number, one); err == nil {
		t.Error("merged twice")
	}
}

func (s Site) checks(t *testing.T) {
	ctx := t.Context()
	repo, head := s.Add(t, Tree())
	for _, state := range []forge.CheckState{forge.ChecksNone, forge.ChecksPending, forge.ChecksFailed, forge.ChecksPassed} {
		if state != forge.ChecksNone {
			s.Check(t, repo, head, state)
		}
		if got := must[forge.CheckState](t)(s.Forge.Checks(ctx, repo, head)); got != state {
			t.Errorf("Checks = %s, want %s", got, state)
		}
	}
}

func (s Site) issues(t *testing.T) {
	ctx := t.Context()
	repo, _ := s.Add(t, Tree())
	const title = "cairn: .cairn.yaml cannot be read"
	if err := s.Forge.CloseIssue(ctx, repo, title); err != nil {
		t.Errorf("closing an issue that is not there: %v", err)
	}
	one := must[string](t)(s.Forge.EnsureIssue(ctx, repo, title, "line 3"))
	if two := must[string](t)(s.Forge.EnsureIssue(ctx, repo, title, "line 4")); one == "" || two != one {
		t.Errorf("two issues: %q and %q", one, two)
	}
	if other := must[string](t)(s.Forge.EnsureIssue(ctx, repo, title+" at all", "x")); other == one {
		t.Error("another title is the same issue")
	}
	if err := s.Forge.CloseIssue(ctx, repo, title); err != nil {
		t.Errorf("CloseIssue: %v", err)
	}
	if three := must[string](t)(s.Forge.EnsureIssue(ctx, repo, title, "line 5")); three == one {
		t.Error("a closed issue counts as open")
	}
}
