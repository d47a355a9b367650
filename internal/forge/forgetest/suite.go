package forgetest

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn.dev/cairn/internal/forge"
)

// A Site is a forge to be tested, and what other people do there. Files whose
// names end in "*" are made executable.
type Site struct {
	Forge forge.Forge
	// Add makes a repository whose branch main has one commit.
	Add func(t testing.TB, files map[string]string) (repository, head string)
	// Push is somebody's commit on top of a branch, Rewrite somebody's forced
	// push of a commit without parents.
	Push    func(t testing.TB, repository, branch string, files map[string]string) string
	Rewrite func(t testing.TB, repository, branch string, files map[string]string) string
	// Archive and Protect make the repository or a branch read only; nil where
	// the site has no such thing.
	Archive func(t testing.TB, repository string)
	Protect func(t testing.TB, repository, branch string)
	// Close is somebody's closing of a pull request; nil where there are none.
	Close func(t testing.TB, repository string, number int64)
	// Check sets the one check of a commit.
	Check func(t testing.TB, repository, commit string, s forge.CheckState)
	// Reviewer is an account that may be asked to look at pull requests, and
	// Reviewers who was.
	Reviewer  string
	Reviewers func(t testing.TB, repository string, number int64) []string
}

// Tree is what the suite's repositories begin with.
func Tree() map[string]string {
	return map[string]string{
		"main.tf":                 "# one\r\nimage = \"app:1.0\"\r\n",
		"env/prod/values.tfvars":  "\ttag = \"1.0\"",
		"env/prod/über größe.txt": "ü",
		"bin/deploy.sh*":          "#!/bin/sh\n",
		"empty":                   "",
		"env.tf":                  "sorts between env and env/",
	}
}

// Run runs the suite on a site.
func Run(t *testing.T, s Site) {
	t.Run("reads", s.reads)
	t.Run("commits", s.commits)
	t.Run("moves onto a new base", s.rebases)
	t.Run("races", s.races)
	t.Run("deletes branches", s.deletes)
	t.Run("refuses nonsense", s.nonsense)
	t.Run("gives up", s.givesUp)
	if s.Archive != nil {
		t.Run("archived", s.archived)
	}
	if s.Protect != nil {
		t.Run("protected", s.protected)
	}
	if s.Close == nil {
		t.Run("has no pull requests", s.without)
		return
	}
	t.Run("pull requests", s.pulls)
	t.Run("people close pull requests", s.closes)
	t.Run("merges", s.merges)
	t.Run("checks", s.checks)
	t.Run("issues", s.issues)
}

func want(t testing.TB, err, is error, what string) {
	t.Helper()
	if !errors.Is(err, is) {
		t.Errorf("%s: %v; want an error that is: %v", what, err, is)
	}
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// Read takes an archive apart: content by path, "*" behind executable ones.
func (s Site) Read(t testing.TB, repository, commit string) map[string]string {
	t.Helper()
	body := must[io.ReadCloser](t)(s.Forge.Archive(t.Context(), repository, commit))
	defer body.Close()
	buffered := bufio.NewReader(body)
	var r io.Reader = buffered
	if magic, _ := buffered.Peek(2); string(magic) == "\x1f\x8b" {
		r = must[*gzip.Reader](t)(gzip.NewReader(buffered))
	}
	files := map[string]string{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		name := h.Name
		if h.Mode&0o111 != 0 {
			name += "*"
		}
		b := must[[]byte](t)(io.ReadAll(tr))
		files[name] = string(b)
	}
	return inside(files)
}

// inside takes away the one folder that all files are in, if they are.
func inside(files map[string]string) map[string]string {
	top, stripped := "", map[string]string{}
	for name, body := range files {
		first, rest, ok := strings.Cut(name, "/")
		if !ok || top != "" && first != top {
			return files
		}
		top, stripped[rest] = first, body
	}
	return stripped
}

// holds compares a commit's files with those it should have.
func (s Site) holds(t testing.TB, repository, commit string, want map[string]string) {
	t.Helper()
	got := s.Read(t, repository, commit)
	for name, body := range want {
		if g, ok := got[name]; !ok || g != body {
			t.Errorf("%s is %q (%v), want %q", name, g, ok, body)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s should not be there", name)
		}
	}
}

func (s Site) reads(t *testing.T) {
	ctx := t.Context()
	repo, head := s.Add(t, Tree())
	if r := must[forge.Repository](t)(s.Forge.Repository(ctx, repo)); r.Name != repo || r.DefaultBranch != "main" || r.Archived || !r.CanPush || s.Close != nil && r.URL == "" {
		t.Errorf("Repository = %+v", r)
	}
	if h := must[string](t)(s.Forge.Head(ctx, repo, "main")); h != head {
		t.Errorf("Head = %s, want %s", h, head)
	}
	_, err := s.Forge.Head(ctx, repo, "no/such-branch")
	want(t, err, forge.ErrNotFound, "head of a branch that is not there")
	_, err = s.Forge.Repository(ctx, repo+"-not")
	want(t, err, forge.ErrNotFound, "a repository that is not there")
	_, err = s.Forge.Archive(ctx, repo, strings.Repeat("0", 39)+"1")
	want(t, err, forge.ErrNotFound, "the archive of a commit that is not there")
	s.holds(t, repo, head, Tree())

	if b := must[[]byte](t)(s.Forge.File(ctx, repo, head, "env/prod/über größe.txt")); string(b) != "ü" {
		t.Errorf("File = %q", b)
	}
	if b := must[[]byte](t)(s.Forge.File(ctx, repo, head, "main.tf")); string(b) != Tree()["main.tf"] {
		t.Errorf("File = %q", b)
	}
	_, err = s.Forge.File(ctx, repo, head, ".cairn.yaml")
	want(t, err, forge.ErrNotFound, "a file that is not there")
	_, err = s.Forge.File(ctx, repo, head, "env")
	want(t, err, forge.ErrNotFound, "a folder as a file")

	next := s.Push(t, repo, "main", map[string]string{"main.tf": "two", "new/ä.tf": "n"})
	paths, whole, err := s.Forge.Changed(ctx, repo, head, next)
	slices.Sort(paths)
	if err != nil || whole && !slices.Equal(paths, []string{"main.tf", "new/ä.tf"}) {
		t.Errorf("Changed = %q, %v, %v", paths, whole, err)
	}
	if paths, whole, err := s.Forge.Changed(ctx, repo, next, next); err != nil || len(paths) != 0 || !whole {
		t.Errorf("nothing Changed = %q, %v, %v", paths, whole, err)
	}
	other := s.Rewrite(t, repo, "main", map[string]string{"main.tf": "three"})
	// Two histories: not all paths can be told, or there is an error; a list
	// that calls itself whole must be.
	if paths, whole, err := s.Forge.Changed(ctx, repo, next, other); err == nil && whole && len(paths) < 6 {
		t.Errorf("after a forced push Changed = %q, %v", paths, whole)
	}
	if h := must[string](t)(s.Forge.Head(ctx, repo, "main")); h != other {
		t.Errorf("Head = %s, want the rewritten %s: an old answer was kept", h, other)
	}
	s.holds(t, repo, head, Tree()) // also when no branch holds it

	if who, err := s.Forge.Account(ctx); err != nil && !errors.Is(err, forge.ErrUnsupported) || err == nil && who == "" {
		t.Errorf("Account = %q, %v", who, err)
	}
	if names, err := s.Forge.Repositories(ctx); err != nil && !errors.Is(err, forge.ErrUnsupported) || err == nil && !slices.Contains(names, repo) {
		t.Errorf("Repositories = %q, %v; want %s among them", names, err, repo)
	}
}

// edit is a change of three files: one edited, one executable, one new.
func edit(branch, parent, head, mark string) forge.Commit {
	return forge.Commit{Branch: branch, Parent: parent, Head: head, Message: "app to " + mark + "\n\nBecause.",
		Files: map[string][]byte{"main.tf": []byte("# one\r\nimage = \"app:" + mark + "\"\r\n"), "bin/deploy.sh": []byte("#!/bin/sh\n# " + mark + "\n"), "a/b/new file.tf": []byte(mark)}}
}

func edited(mark string) map[string]string {
	files := Tree()
	files["main.tf"], files["bin/deploy.sh*"], files["a/b/new file.tf"] = "# one\r\nimage = \"app:"+mark+"\"\r\n", "#!/bin/sh\n# "+mark+"\n", mark
	return files
}

func (s Site) commits(t *testing.T) {
	ctx := t.Context()
	repo, head := s.Add(t, Tree())
	const branch = "cairn/app-1.1"
	one := must[string](t)(s.Forge.Commit(ctx, repo, edit(branch, head, "", "1.1")))
	if h := must[string](t)(s.Forge.Head(ctx, repo, branch)); h != one || one == head {
		t.Errorf("the branch is at %s, want %s", h, one)
	}
	s.holds(t, repo, one, edited("1.1"))

	_, err := s.Forge.Commit(ctx, repo, edit(branch, head, "", "9"))
	want(t, err, forge.ErrMoved, "a new branch that is there already")
	_, err = s.Forge.Commit(ctx, repo, edit("cairn/other", head, one, "9"))
	want(t, err, forge.ErrMoved, "a branch that should be there and is not")

	two := must[string](t)(s.Forge.Commit(ctx, repo, edit(branch, one, one, "1.2")))
	s.holds(t, repo, two, edited("1.2"))
	_, err = s.Forge.Commit(ctx, repo, edit(branch, one, one, "9"))
	want(t, err, forge.ErrMoved, "a commit on a head that is old")
	somebody := s.Push(t, repo, branch, map[string]string{"by-hand": "1"})
	_, err = s.Forge.Commit(ctx, repo, edit(branch, two, two, "9"))
	want(t, err, forge.ErrMoved, "a commit over somebody's")
	if h := must[string](t)(s.Forge.Head(ctx, repo, branch)); h != somebody {
		t.Errorf("the branch is at %s, want somebody's %s", h, somebody)
	}
	if h := must[string](t)(s.Forge.Head(ctx, repo, "main")); h != head {
		t.Errorf("main moved to %s", h)
	}
}

func (s Site) rebases(t *testing.T) {
	ctx := t.Context()
	repo, head := s.Add(t, Tree())
	const branch = "cairn/app"
	one := must[string](t)(s.Forge.Commit(ctx, repo, edit(branch, head, "", "1.1")))
	base := s.Push(t, repo, "main", map[string]string{"other.tf": "o"})
	two := must[string](t)(s.Forge.Commit(ctx, repo, edit(branch, base, one, "1.1")))
	files := edited("1.1")
	files["other.tf"] = "o"
	s.holds(t, repo, two, files)
	_, err := s.Forge.Commit(ctx, repo, edit(branch, base, one, "9"))
	want(t, err, forge.ErrMoved, "a forced move from a head that is old")

	// The base itself is rewritten: there is no common history any more.
	rewritten := s.Rewrite(t, repo, "main", map[string]string{"main.tf": "m", "bin/deploy.sh*": "d"})
	three := must[string](t)(s.Forge.Commit(ctx, repo, edit(branch, rewritten, two, "1.1")))
	files = map[string]string{"main.tf": edited("1.1")["main.tf"], "bin/deploy.sh*": edited("1.1")["bin/deploy.sh*"], "a/b/new file.tf": "1.1"}
	s.holds(t, repo, three, files)
	if h := must[string](t)(s.Forge.Head(ctx, repo, branch)); h != three {
		t.Errorf("the branch is at %s, want %s", h, three)
	}
}

func (s Site) races(t *testing.T) {
	ctx := t.Context()
	repo, head := s.Add(t, Tree())
	const branch = "cairn/race"
	one := ""
	for _, round := range []string{"new", "on top"} {
		parent := head
		if one != "" {
			parent = one
		}
		var mu sync.Mutex
		var won []string
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				h, err := s.Forge.Commit(ctx, repo, edit(branch, parent, one, round+strings.Repeat("!", i)))
				mu.Lock()
				defer mu.Unlock()
				var later *forge.LaterError
				switch {
				case err == nil:
					won = append(won, h)
				case !errors.Is(err, forge.ErrMoved) && !errors.As(err, &later):
					t.Errorf("%s: one who lost is told: %v", round, err)
				}
			})
		}
		wg.Wait()
		at := must[string](t)(s.Forge.Head(ctx, repo, branch))
		if len(won) != 1 || at != won[0] {
			t.Fatalf("%s: %d of 4 won: %q; the branch is at %s", round, len(won), won, at)
		}
		one = at
	}
}

func (s Site) deletes(t *testing.T) {
	ctx := t.Context()
	repo, head := s.Add(t, Tree())
	one := must[string](t)(s.Forge.Commit(ctx, repo, edit("cairn/x", head, "", "1")))
	want(t, s.Forge.DeleteBranch(ctx, repo, "cairn/x", head), forge.ErrMoved, "deleting a branch that moved")
	if h := must[string](t)(s.Forge.Head(ctx, repo, "cairn/x")); h != one {
		t.Errorf("the branch is at %s, want %s", h, one)
	}
	for _, what := range []string{"there", "gone"} {
		if err := s.Forge.DeleteBranch(ctx, repo, "cairn/x", one); err != nil {
			t.Errorf("deleting a branch that is %s: %v", what, err)
		}
	}
	_, err := s.Forge.Head(ctx, repo, "cairn/x")
	want(t, err, forge.ErrNotFound, "the branch")
	must[string](t)(s.Forge.Commit(ctx, repo, edit("cairn/x", head, "", "2"))) // its name is free again
}

func (s Site) nonsense(t *testing.T) {
	ctx := t.Context()
	repo, head := s.Add(t, Tree())
	for what, c := range map[string]forge.Commit{
		"a branch's name":           edit("a b", head, "", "1"),
		"a branch's name: option":   edit("--upload-pack=x", head, "", "1"),
		"no whole commit":           edit("cairn/x", head[:10], "", "1"),
		"no files":                  {Branch: "cairn/x", Parent: head, Message: "m"},
		"no message":                {Branch: "cairn/x", Parent: head, Files: map[string][]byte{"a": nil}},
		"a path outside":            {Branch: "cairn/x", Parent: head, Message: "m", Files: map[string][]byte{"../a": nil}},
		"a path into .git":          {Branch: "cairn/x", Parent: head, Message: "m", Files: map[string][]byte{"a/.git/config": nil}},
		"a file that is a folder":   {Branch: "cairn/x", Parent: head, Message: "m", Files: map[string][]byte{"env": nil}},
		"a folder that is a file":   {Branch: "cairn/x", Parent: head, Message: "m", Files: map[string][]byte{"main.tf/a": nil}},
		"a file and folder at once": {Branch: "cairn/x", Parent: head, Message: "m", Files: map[string][]byte{"q": nil, "q/a": nil}},
	} {
		_, err := s.Forge.Commit(ctx, repo, c)
		want(t, err, forge.ErrInvalid, what)
	}
	_, err := s.Forge.Commit(ctx, repo, edit("cairn/x", strings.Repeat("1", 40), "", "1"))
	if err == nil {
		t.Error("a commit on a parent that is not there")
	}
	_, err = s.Forge.Head(ctx, repo, "cairn/x")
	want(t, err, forge.ErrNotFound, "the branch after all that")
}

func (s Site) givesUp(t *testing.T) {
	repo, head := s.Add(t, Tree())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Forge.Head(ctx, repo, "main"); err == nil {
		t.Error("Head answers somebody who is gone")
	}
	if _, err := s.Forge.Commit(ctx, repo, edit("cairn/x", head, "", "1")); err == nil {
		t.Error("Commit works for somebody who is gone")
	}
}

func (s Site) archived(t *testing.T) {
	ctx := t.Context()
	repo, head := s.Add(t, Tree())
	s.Archive(t, repo)
	if r := must[forge.Repository](t)(s.Forge.Repository(ctx, repo)); !r.Archived || r.CanPush {
		t.Errorf("Repository = %+v", r)
	}
	_, err := s.Forge.Commit(ctx, repo, edit("cairn/x", head, "", "1"))
	want(t, err, forge.ErrArchived, "a commit to an archived repository")
	if names, err := s.Forge.Repositories(ctx); err == nil && slices.Contains(names, repo) {
		t.Error("an archived repository is listed")
	}
	s.holds(t, repo, head, Tree())
}

func (s Site) protected(t *testing.T) {
	ctx := t.Context()
	repo, head := s.Add(t, Tree())
	s.Protect(t, repo, "main")
	_, err := s.Forge.Commit(ctx, repo, edit("main", head, head, "1"))
	want(t, err, forge.ErrForbidden, "a commit to a protected branch")
	if h := must[string](t)(s.Forge.Head(ctx, repo, "main")); h != head {
		t.Errorf("main moved to %s", h)
	}
	must[string](t)(s.Forge.Commit(ctx, repo, edit("cairn/x", head, "", "1")))
}

func (s Site) without(t *testing.T) {
	ctx := t.Context()
	repo, head := s.Add(t, Tree())
	errs := map[string]error{}
	_, errs["ListPulls"] = s.Forge.ListPulls(ctx, repo, "", time.Time{})
	_, errs["CreatePull"] = s.Forge.CreatePull(ctx, repo, forge.NewPull{Title: "t", Branch: "b", Base: "main"})
	_, errs["EditPull"] = s.Forge.EditPull(ctx, repo, 1, forge.PullEdit{})
	errs["Comment"] = s.Forge.Comment(ctx, repo, 1, "c")
	_, errs["Checks"] = s.Forge.Checks(ctx, repo, head)
	errs["Merge"] = s.Forge.Merge(ctx, repo, 1, head)
	_, errs["EnsureIssue"] = s.Forge.EnsureIssue(ctx, repo, "t", "b")
	errs["CloseIssue"] = s.Forge.CloseIssue(ctx, repo, "t")
	for what, err := range errs {
		want(t, err, forge.ErrUnsupported, what)
	}
}
