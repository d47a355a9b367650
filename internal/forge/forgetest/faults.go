package forgetest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/forge"
)

// An Eager clock is a fake one on which waiting takes no time: whoever waits
// moves it.
type Eager struct{ *clock.Fake }

// After implements [clock.Clock].
func (e Eager) After(d time.Duration) <-chan time.Time {
	e.Advance(d)
	return e.Fake.After(0)
}

// wireFaults are all that is done to every request of every call. Some tell
// the token that they were asked with.
func wireFaults(token string) map[string]WireFault {
	faults := map[string]WireFault{
		"no answer":               {},
		"no answer, late":         {Late: true},
		"429":                     {Status: 429, Header: http.Header{"Retry-After": {"7"}}},
		"403 for too many":        {Status: 403, Header: http.Header{"X-Ratelimit-Remaining": {"0"}, "X-Ratelimit-Reset": {fmt.Sprint(1_790_000_000 + 3600)}}},
		"302 to nowhere":          {Status: 302, Header: http.Header{"Location": {"http://127.0.0.1:1/login"}}},
		"200 from a portal":       {Status: 200, Header: http.Header{"Content-Type": {"text/html"}}, Body: "<html>Sign on</html>"},
		"200 with JSON of a kind": {Status: 200, Body: `"surprise"`},
		"200 with half an answer": {Status: 200, Body: `{"sha": "`},
	}
	for _, status := range []int{400, 401, 403, 404, 405, 409, 410, 422, 423, 500, 502, 503, 504} {
		faults[fmt.Sprint(status)] = WireFault{Status: status, Body: `{"message":"no, ` + token + `"}`}
	}
	for _, status := range []int{500, 504} {
		faults[fmt.Sprintf("%d, late", status)] = WireFault{Status: status, Late: true}
	}
	return faults
}

// A step is one call with what has to be true once it, and what follows a
// fault, is through.
type step struct {
	name    string
	prepare func(t testing.TB, f forge.Forge, r *sweep)
	call    func(ctx context.Context, f forge.Forge, r *sweep) error
	// again is what a caller does after an error; call where it is nil.
	again func(ctx context.Context, f forge.Forge, r *sweep) error
	holds func(r *sweep) error
}

type sweep struct {
	m    *Memory
	repo string
	head string // of main
	one  string // of our branch
	pull int64
}

const sweepBranch = "cairn/app"

func prepareCommit(t testing.TB, f forge.Forge, r *sweep) {
	t.Helper()
	r.one = must[string](t)(f.Commit(t.Context(), r.repo, edit(sweepBranch, r.head, "", "1.1")))
}

func preparePull(t testing.TB, f forge.Forge, r *sweep) {
	t.Helper()
	prepareCommit(t, f, r)
	r.pull = must[forge.Pull](t)(f.CreatePull(t.Context(), r.repo, forge.NewPull{Title: "t", Branch: sweepBranch, Base: "main"})).Number
}

// commit is how a caller makes a branch hold the change: whatever is there.
func commit(ctx context.Context, f forge.Forge, r *sweep) error {
	head, err := f.Head(ctx, r.repo, sweepBranch)
	if errors.Is(err, forge.ErrNotFound) {
		head, err = "", nil
	}
	if err == nil {
		_, err = f.Commit(ctx, r.repo, edit(sweepBranch, r.head, head, "1.2"))
	}
	return err
}

func committed(r *sweep) error {
	b := r.m.Branches(r.repo)
	if b["main"] != r.head {
		return fmt.Errorf("main moved to %s", b["main"])
	}
	if len(b) != 2 || r.m.Files(r.repo, sweepBranch)["main.tf"] != edited("1.2")["main.tf"] {
		return fmt.Errorf("the branches are %v", b)
	}
	return nil
}

func steps() []step {
	title := "new title"
	open := func(r *sweep) (n int) {
		for _, p := range r.m.Pulls(r.repo) {
			if p.Open {
				n++
			}
		}
		return n
	}
	return []step{
		{name: "Repository", call: func(ctx context.Context, f forge.Forge, r *sweep) error {
			_, err := f.Repository(ctx, r.repo)
			return err
		}},
		{name: "Changed", call: func(ctx context.Context, f forge.Forge, r *sweep) error {
			_, _, err := f.Changed(ctx, r.repo, r.head, r.m.Push(r.repo, "main", map[string]string{"x": "y"}))
			return err
		}},
		{name: "File", call: func(ctx context.Context, f forge.Forge, r *sweep) error {
			_, err := f.File(ctx, r.repo, r.head, "main.tf")
			return err
		}},
		{name: "Archive", call: func(ctx context.Context, f forge.Forge, r *sweep) error {
			b, err := f.Archive(ctx, r.repo, r.head)
			if err == nil {
				b.Close()
			}
			return err
		}},
		{name: "Checks", call: func(ctx context.Context, f forge.Forge, r *sweep) error {
			_, err := f.Checks(ctx, r.repo, r.head)
			return err
		}},
		{name: "Commit to a new branch", call: commit, holds: committed},
		{name: "Commit on top", prepare: prepareCommit, again: commit, holds: committed, call: func(ctx context.Context, f forge.Forge, r *sweep) error {
			_, err := f.Commit(ctx, r.repo, edit(sweepBranch, r.one, r.one, "1.2"))
			return err
		}},
		{name: "Commit onto a new base", prepare: func(t testing.TB, f forge.Forge, r *sweep) {
			prepareCommit(t, f, r)
			r.head = r.m.Push(r.repo, "main", map[string]string{"x": "y"})
		}, call: commit, holds: committed},
		{name: "DeleteBranch", prepare: prepareCommit, call: func(ctx context.Context, f forge.Forge, r *sweep) error {
			return f.DeleteBranch(ctx, r.repo, sweepBranch, r.one)
		}, holds: func(r *sweep) error {
			if b := r.m.Branches(r.repo); len(b) != 1 {
				return fmt.Errorf("the branches are %v", b)
			}
			return nil
		}},
		{name: "CreatePull", prepare: prepareCommit, call: func(ctx context.Context, f forge.Forge, r *sweep) error {
			_, err := f.CreatePull(ctx, r.repo, forge.NewPull{Title: "t", Branch: sweepBranch, Base: "main", Labels: []string{"l"}, Reviewers: []string{"ada"}})
			return err
		}, again: func(ctx context.Context, f forge.Forge, r *sweep) error {
			l, err := f.ListPulls(ctx, r.repo, "cairn/", time.Time{})
			if err == nil && len(l) == 0 {
				_, err = f.CreatePull(ctx, r.repo, forge.NewPull{Title: "t", Branch: sweepBranch, Base: "main"})
			}
			return err
		}, holds: func(r *sweep) error {
			if len(r.m.Pulls(r.repo)) != 1 || open(r) != 1 {
				return fmt.Errorf("the pull requests are %+v", r.m.Pulls(r.repo))
			}
			return nil
		}},
		{name: "EditPull", prepare: preparePull, call: func(ctx context.Context, f forge.Forge, r *sweep) error {
			no := false
			_, err := f.EditPull(ctx, r.repo, r.pull, forge.PullEdit{Title: &title, Open: &no, Labels: []string{"l"}})
			return err
		}, holds: func(r *sweep) error {
			if p := r.m.Pulls(r.repo); len(p) != 1 || p[0].Title != title || p[0].Open || len(p[0].Labels) != 1 {
				return fmt.Errorf("the pull requests are %+v", p)
			}
			return nil
		}},
		{name: "ListPulls", prepare: func(t testing.TB, f forge.Forge, r *sweep) {
			preparePull(t, f, r)
			no := false
			if err := r.m.Edit(r.repo, r.pull, forge.PullEdit{Open: &no}, "somebody"); err != nil {
				t.Fatal(err)
			}
		}, call: func(ctx context.Context, f forge.Forge, r *sweep) error {
			l, err := f.ListPulls(ctx, r.repo, "cairn/", time.Time{})
			if err == nil && (len(l) != 1 || l[0].ClosedBy != "somebody") {
				return fmt.Errorf("a list that lacks something is taken for whole: %+v", l)
			}
			return err
		}},
		{name: "Comment", prepare: preparePull, call: func(ctx context.Context, f forge.Forge, r *sweep) error {
			return f.Comment(ctx, r.repo, r.pull, "c")
		}},
		{name: "Merge", prepare: preparePull, call: func(ctx context.Context, f forge.Forge, r *sweep) error {
			return f.Merge(ctx, r.repo, r.pull, r.one)
		}, again: func(ctx context.Context, f forge.Forge, r *sweep) error {
			l, err := f.ListPulls(ctx, r.repo, "cairn/", time.Time{})
			if err == nil && !l[0].Merged {
				err = f.Merge(ctx, r.repo, r.pull, r.one)
			}
			return err
		}, holds: func(r *sweep) error {
			if r.m.Files(r.repo, "main")["main.tf"] != edited("1.1")["main.tf"] {
				return errors.New("it is not merged")
			}
			return nil
		}},
		{name: "EnsureIssue", call: func(ctx context.Context, f forge.Forge, r *sweep) error {
			_, err := f.EnsureIssue(ctx, r.repo, "title", "body")
			return err
		}, holds: func(r *sweep) error {
			if l := r.m.Issues(r.repo); len(l) != 1 {
				return fmt.Errorf("the issues are %+v", l)
			}
			return nil
		}},
		{name: "CloseIssue", prepare: func(t testing.TB, f forge.Forge, r *sweep) {
			must[string](t)(f.EnsureIssue(t.Context(), r.repo, "title", "body"))
		}, call: func(ctx context.Context, f forge.Forge, r *sweep) error { return f.CloseIssue(ctx, r.repo, "title") },
			holds: func(r *sweep) error {
				if l := r.m.Issues(r.repo); len(l) != 1 || l[0].State != "closed" {
					return fmt.Errorf("the issues are %+v", l)
				}
				return nil
			}},
	}
}

// Sweep does each fault to each request of each call of a driver: the error
// says what to do, tells no secret, and doing it ends where no fault would
// have ended.
func Sweep(t *testing.T, fake func(testing.TB, *Memory) *Fake, open func(t testing.TB, url string, c clock.Clock) forge.Forge) {
	m := NewMemory(Eager{clock.NewFake(time.Unix(1_790_000_000, 0))}, "cairn-bot")
	f := fake(t, m)
	n, cases := 0, 0
	for _, s := range steps() {
		begin := func(t testing.TB) (forge.Forge, *sweep) {
			n++
			r := &sweep{m: m, repo: fmt.Sprintf("team/app-%d", n)}
			r.head = m.AddRepository(r.repo, Tree())
			f.Fail(nil)
			d := open(t, f.URL, Eager{clock.NewFake(time.Unix(1_790_000_000, 0))})
			if s.prepare != nil {
				s.prepare(t, d, r)
			}
			return d, r
		}
		d, r := begin(t)
		f.Fail(nil)
		if err := s.call(t.Context(), d, r); err != nil {
			t.Fatalf("%s without a fault: %v", s.name, err)
		}
		asked := f.Asked()
		for at := range asked {
			for name, fault := range wireFaults(f.token) {
				cases++
				d, r := begin(t)
				f.Fail(func(_ *http.Request, n int) *WireFault {
					if n != at {
						return nil
					}
					return &fault
				})
				err := s.call(t.Context(), d, r)
				f.Fail(nil)
				where := fmt.Sprintf("%s, %s at %s", s.name, name, asked[at])
				if why := judge(f.token, fault, err); why != "" {
					t.Errorf("%s: %s: %v", where, why, err)
				}
				// Somebody else, later, with all that is known being on the forge.
				again := s.again
				if again == nil {
					again = s.call
				}
				if err != nil {
					d = open(t, f.URL, Eager{clock.NewFake(time.Unix(1_790_000_000, 0))})
					if err := again(t.Context(), d, r); err != nil {
						t.Errorf("%s: afterwards: %v", where, err)
					}
				}
				if s.holds != nil {
					if err := s.holds(r); err != nil {
						t.Errorf("%s: in the end %v", where, err)
					}
				}
				m.Remove(r.repo)
			}
		}
	}
	t.Logf("%d faults", cases)
}

// judge says what is wrong with the error that a fault came to; no error at
// all is right where the driver could do without.
func judge(token string, fault WireFault, err error) string {
	if err == nil {
		return ""
	}
	if s := err.Error(); strings.Contains(s, token) {
		return "the error tells the token"
	}
	var later *forge.LaterError
	isLater := errors.As(err, &later)
	typed := isLater
	for _, e := range []error{forge.ErrMoved, forge.ErrNotFound, forge.ErrForbidden, forge.ErrUnauthorized, forge.ErrArchived, forge.ErrExists, forge.ErrInvalid} {
		typed = typed || errors.Is(err, e)
	}
	switch {
	case !typed:
		return "the error does not say what to do"
	case fault.Status == 401 && !errors.Is(err, forge.ErrUnauthorized):
		return "it is not said that we are not signed on"
	case fault.Status == 429 && (!isLater || later.After != 7*time.Second):
		return "it is not said when to come back"
	case fault.Header.Get("X-Ratelimit-Reset") != "" && (!isLater || later.After < 59*time.Minute):
		return "it is not said when to come back"
	case (fault.Status == 0 || fault.Status >= 500) && !isLater && !errors.Is(err, forge.ErrMoved):
		return "it is not said that it may pass"
	}
	return ""
}
