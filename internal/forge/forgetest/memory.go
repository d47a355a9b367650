// Package forgetest is for tests of forges and of what uses them.
//
// It owns [Memory], a forge that lives in memory; [Run], the suite that every
// driver passes, and Memory with it; and the faults that both can be given. A
// Memory keeps real git objects, so that the fakes of GitHub and GitLab are a
// thin shape around it. It does not check what drivers send over the wire:
// their fakes do.
package forgetest

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/forge"
)

// Memory is a forge in memory: a [forge.Forge] to its user, and methods for
// what everybody else does there. It is safe for concurrent use.
type Memory struct {
	Self  string // the account that the user of the Forge has
	clock clock.Clock

	mu     sync.Mutex
	repos  map[string]*repo
	fault  func(Call) *Fault
	calls  []Call
	serial int // makes commits differ that change the same in the same second
}

// A Call is one use of the Forge's side of a Memory.
type Call struct {
	Name string // of the method: "CreatePull"
	Repo string
	N    int // how many calls were before it, of any kind
}

// A Fault is what happens to a call instead of its answer.
type Fault struct {
	Err error
	// Late: the call does what it does, and only its answer is lost.
	Late bool
	// Do happens before the call, with or without an error: somebody else was quicker.
	Do func()
}

type repo struct {
	name     string
	archived bool
	readOnly bool
	protects map[string]bool // branches
	objects  objects
	branches map[string]string
	pulls    []*pull
	issues   []*Issue
	checks   map[string]forge.CheckState
}

type pull struct {
	forge.Pull
	comments  []string
	reviewers []string
}

// An Issue as people see it.
type Issue struct {
	Number             int64
	Title, Body, State string
	Author             string
}

// NewMemory returns a forge without repositories whose user is called self.
func NewMemory(c clock.Clock, self string) *Memory {
	return &Memory{Self: self, clock: c, repos: map[string]*repo{}}
}

// Fail sets what is asked before each call; nil lets all succeed. A nil Fault
// does so for one call. It may be called at any time, also from a Fault.
func (m *Memory) Fail(f func(Call) *Fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = f
}

// Calls lists the calls so far.
func (m *Memory) Calls() []Call {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.calls)
}

// enter begins a call: it returns with the lock held, or with an error and not.
// leave ends it.
func (m *Memory) enter(ctx context.Context, name, repository string) (r *repo, leave func(*error), err error) {
	m.mu.Lock()
	c := Call{Name: name, Repo: repository, N: len(m.calls)}
	m.calls = append(m.calls, c)
	ask := m.fault
	m.mu.Unlock()
	var late error
	if ask != nil {
		if f := ask(c); f != nil {
			if f.Do != nil {
				f.Do()
			}
			if f.Err != nil && !f.Late {
				return nil, nil, f.Err
			}
			late = f.Err
		}
	}
	if ctx.Err() != nil {
		return nil, nil, ctx.Err()
	}
	m.mu.Lock()
	if repository != "" {
		if r = m.repos[repository]; r == nil {
			m.mu.Unlock()
			return nil, nil, fmt.Errorf("%s: %w", repository, forge.ErrNotFound)
		}
	}
	return r, func(e *error) {
		m.mu.Unlock()
		if *e == nil {
			*e = late
		}
	}, nil
}

// Account implements [forge.Forge].
func (m *Memory) Account(ctx context.Context) (self string, err error) {
	_, leave, err := m.enter(ctx, "Account", "")
	if err != nil {
		return "", err
	}
	defer leave(&err)
	return m.Self, nil
}

// Repositories implements [forge.Forge].
func (m *Memory) Repositories(ctx context.Context) (names []string, err error) {
	_, leave, err := m.enter(ctx, "Repositories", "")
	if err != nil {
		return nil, err
	}
	defer leave(&err)
	for _, name := range slices.Sorted(maps.Keys(m.repos)) {
		if r := m.repos[name]; !r.archived && !r.readOnly {
			names = append(names, name)
		}
	}
	return names, nil
}

// Repository implements [forge.Code].
func (m *Memory) Repository(ctx context.Context, repository string) (_ forge.Repository, err error) {
	r, leave, err := m.enter(ctx, "Repository", repository)
	if err != nil {
		return forge.Repository{}, err
	}
	defer leave(&err)
	return forge.Repository{Name: r.name, DefaultBranch: "main", Archived: r.archived, CanPush: !r.archived && !r.readOnly, URL: "https://forge.test/" + r.name}, nil
}

// Head implements [forge.Code].
func (m *Memory) Head(ctx context.Context, repository, branch string) (_ string, err error) {
	r, leave, err := m.enter(ctx, "Head", repository)
	if err != nil {
		return "", err
	}
	defer leave(&err)
	if h := r.branches[branch]; h != "" {
		return h, nil
	}
	return "", fmt.Errorf("branch %s of %s: %w", branch, repository, forge.ErrNotFound)
}

// Archive implements [forge.Code].
func (m *Memory) Archive(ctx context.Context, repository, commit string) (_ io.ReadCloser, err error) {
	r, leave, err := m.enter(ctx, "Archive", repository)
	if err != nil {
		return nil, err
	}
	defer leave(&err)
	return r.archive(commit)
}

// Changed implements [forge.Code].
func (m *Memory) Changed(ctx context.Context, repository, from, to string) (paths []string, whole bool, err error) {
	r, leave, err := m.enter(ctx, "Changed", repository)
	if err != nil {
		return nil, false, err
	}
	defer leave(&err)
	paths, err = r.changed(from, to)
	return paths, err == nil, err
}

// File implements [forge.Code].
func (m *Memory) File(ctx context.Context, repository, commit, path string) (_ []byte, err error) {
	r, leave, err := m.enter(ctx, "File", repository)
	if err != nil {
		return nil, err
	}
	defer leave(&err)
	files, err := r.files(commit)
	if err != nil {
		return nil, err
	}
	f, ok := files[path]
	if !ok {
		return nil, fmt.Errorf("%s in %s: %w", path, repository, forge.ErrNotFound)
	}
	return slices.Clone(f.body), nil
}

// Commit implements [forge.Code].
func (m *Memory) Commit(ctx context.Context, repository string, c forge.Commit) (_ string, err error) {
	r, leave, err := m.enter(ctx, "Commit", repository)
	if err != nil {
		return "", err
	}
	defer leave(&err)
	if err := c.Check(); err != nil {
		return "", err
	}
	if err := r.writable(c.Branch); err != nil {
		return "", err
	}
	if r.branches[c.Branch] != c.Head {
		return "", fmt.Errorf("branch %s of %s is at %q, not at %q: %w", c.Branch, repository, r.branches[c.Branch], c.Head, forge.ErrMoved)
	}
	hash, err := m.write(r, c.Parent, c.Files, c.Message, m.Self)
	if err != nil {
		return "", err
	}
	m.move(r, c.Branch, hash)
	return hash, nil
}

// DeleteBranch implements [forge.Code].
func (m *Memory) DeleteBranch(ctx context.Context, repository, branch, head string) (err error) {
	r, leave, err := m.enter(ctx, "DeleteBranch", repository)
	if err != nil {
		return err
	}
	defer leave(&err)
	switch at := r.branches[branch]; {
	case at == "":
		return nil
	case at != head:
		return fmt.Errorf("branch %s of %s is at %s, not at %s: %w", branch, repository, at, head, forge.ErrMoved)
	}
	if err := r.writable(branch); err != nil {
		return err
	}
	m.move(r, branch, "")
	return nil
}

// ListPulls implements [forge.Pulls].
func (m *Memory) ListPulls(ctx context.Context, repository, prefix string, since time.Time) (list []forge.Pull, err error) {
	r, leave, err := m.enter(ctx, "ListPulls", repository)
	if err != nil {
		return nil, err
	}
	defer leave(&err)
	for _, p := range slices.Backward(r.pulls) {
		if strings.HasPrefix(p.Branch, prefix) && (p.Open || !p.UpdatedAt.Before(since)) {
			list = append(list, p.copy())
		}
	}
	return list, nil
}

// CreatePull implements [forge.Pulls].
func (m *Memory) CreatePull(ctx context.Context, repository string, n forge.NewPull) (_ forge.Pull, err error) {
	r, leave, err := m.enter(ctx, "CreatePull", repository)
	if err != nil {
		return forge.Pull{}, err
	}
	defer leave(&err)
	switch {
	case r.archived:
		return forge.Pull{}, fmt.Errorf("%s: %w", repository, forge.ErrArchived)
	case r.branches[n.Branch] == "" || r.branches[n.Base] == "":
		return forge.Pull{}, fmt.Errorf("pull request from %s to %s: %w", n.Branch, n.Base, forge.ErrNotFound)
	case r.branches[n.Branch] == r.branches[n.Base]:
		return forge.Pull{}, fmt.Errorf("no commits between %s and %s: %w", n.Base, n.Branch, forge.ErrInvalid)
	}
	for _, p := range r.pulls {
		if p.Open && p.Branch == n.Branch && p.Base == n.Base {
			return forge.Pull{}, fmt.Errorf("pull request %d: %w", p.Number, forge.ErrExists)
		}
	}
	number := r.next()
	p := &pull{Pull: forge.Pull{Number: number, Title: n.Title, Body: n.Body, Branch: n.Branch, Head: r.branches[n.Branch], Base: n.Base,
		Open: true, Author: m.Self, Labels: slices.Clone(n.Labels), UpdatedAt: m.clock.Now(), URL: fmt.Sprintf("https://forge.test/%s/pulls/%d", r.name, number)},
		reviewers: slices.Clone(n.Reviewers)}
	r.pulls = append(r.pulls, p)
	return p.copy(), nil
}

// EditPull implements [forge.Pulls].
func (m *Memory) EditPull(ctx context.Context, repository string, number int64, e forge.PullEdit) (_ forge.Pull, err error) {
	r, leave, err := m.enter(ctx, "EditPull", repository)
	if err != nil {
		return forge.Pull{}, err
	}
	defer leave(&err)
	p, err := r.pull(number)
	if err != nil {
		return forge.Pull{}, err
	}
	if r.archived {
		return forge.Pull{}, fmt.Errorf("%s: %w", repository, forge.ErrArchived)
	}
	if err := m.edit(r, p, e, m.Self); err != nil {
		return forge.Pull{}, err
	}
	return p.copy(), nil
}

func (m *Memory) edit(r *repo, p *pull, e forge.PullEdit, by string) error {
	if e.Open != nil && *e.Open && !p.Open && (p.Merged || r.branches[p.Branch] == "") {
		return fmt.Errorf("pull request %d cannot be opened again: %w", p.Number, forge.ErrInvalid)
	}
	if e.Title != nil {
		p.Title = *e.Title
	}
	if e.Body != nil {
		p.Body = *e.Body
	}
	if e.Open != nil && *e.Open != p.Open {
		p.Open, p.ClosedBy = *e.Open, ""
		if !p.Open {
			p.ClosedBy = by
		} else {
			p.Head = r.branches[p.Branch]
		}
	}
	for _, l := range e.Labels {
		if !slices.Contains(p.Labels, l) {
			p.Labels = append(p.Labels, l)
		}
	}
	p.UpdatedAt = m.clock.Now()
	return nil
}

// Comment implements [forge.Pulls].
func (m *Memory) Comment(ctx context.Context, repository string, number int64, body string) (err error) {
	r, leave, err := m.enter(ctx, "Comment", repository)
	if err != nil {
		return err
	}
	defer leave(&err)
	p, err := r.pull(number)
	if err != nil {
		return err
	}
	p.comments = append(p.comments, body)
	p.UpdatedAt = m.clock.Now()
	return nil
}

// Checks implements [forge.Pulls].
func (m *Memory) Checks(ctx context.Context, repository, commit string) (_ forge.CheckState, err error) {
	r, leave, err := m.enter(ctx, "Checks", repository)
	if err != nil {
		return "", err
	}
	defer leave(&err)
	if _, ok := r.objects[commit]; !ok {
		return "", fmt.Errorf("commit %s: %w", commit, forge.ErrNotFound)
	}
	if s := r.checks[commit]; s != "" {
		return s, nil
	}
	return forge.ChecksNone, nil
}

// Merge implements [forge.Pulls].
func (m *Memory) Merge(ctx context.Context, repository string, number int64, head string) (err error) {
	r, leave, err := m.enter(ctx, "Merge", repository)
	if err != nil {
		return err
	}
	defer leave(&err)
	p, err := r.pull(number)
	switch {
	case err != nil:
		return err
	case p.Head != head:
		return fmt.Errorf("pull request %d is at %s, not at %s: %w", number, p.Head, head, forge.ErrMoved)
	case !p.Open:
		return fmt.Errorf("pull request %d is closed: %w", number, forge.ErrInvalid)
	}
	return m.merge(r, p)
}

// EnsureIssue implements [forge.Issues].
func (m *Memory) EnsureIssue(ctx context.Context, repository, title, body string) (_ string, err error) {
	r, leave, err := m.enter(ctx, "EnsureIssue", repository)
	if err != nil {
		return "", err
	}
	defer leave(&err)
	i := r.issue(title, m.Self)
	if i == nil {
		i = &Issue{Number: r.next(), Title: title, State: "open", Author: m.Self}
		r.issues = append(r.issues, i)
	}
	i.Body = body
	return fmt.Sprintf("https://forge.test/%s/issues/%d", r.name, i.Number), nil
}

// CloseIssue implements [forge.Issues].
func (m *Memory) CloseIssue(ctx context.Context, repository, title string) (err error) {
	r, leave, err := m.enter(ctx, "CloseIssue", repository)
	if err != nil {
		return err
	}
	defer leave(&err)
	if i := r.issue(title, m.Self); i != nil {
		i.State = "closed"
	}
	return nil
}

var _ forge.Forge = (*Memory)(nil)
