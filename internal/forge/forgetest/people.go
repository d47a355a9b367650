package forgetest

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"cairn.dev/cairn/internal/forge"
)

// AddRepository makes a repository whose branch main has one commit with the
// files, and returns that commit.
func (m *Memory) AddRepository(name string, files map[string]string) string {
	m.mu.Lock()
	r := &repo{name: name, protects: map[string]bool{}, objects: objects{}, branches: map[string]string{}, checks: map[string]forge.CheckState{}}
	m.repos[name] = r
	m.mu.Unlock()
	return m.Push(name, "main", files)
}

// Push is somebody's commit on a branch, on top of what it has; a branch that
// is not there begins at main's head. It returns the commit. Unlike the
// Forge's, it knows no protection. A name that ends in "*" makes the file executable.
func (m *Memory) Push(repository, branch string, files map[string]string) string {
	return m.push(repository, branch, files, false)
}

// Rewrite is somebody's forced push: the branch becomes one commit without
// parents that holds these files and no others.
func (m *Memory) Rewrite(repository, branch string, files map[string]string) string {
	return m.push(repository, branch, files, true)
}

func (m *Memory) push(repository, branch string, files map[string]string, force bool) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.must(repository)
	parent := r.branches[branch]
	if parent == "" {
		parent = r.branches["main"]
	}
	if force {
		parent = ""
	}
	content := map[string][]byte{}
	for name, body := range files {
		content[name] = []byte(body)
	}
	hash, err := m.write(r, parent, content, "somebody's change", "somebody")
	if err != nil {
		panic(fmt.Sprintf("forgetest: push to %s: %v", repository, err)) // a mistake in a test
	}
	m.move(r, branch, hash)
	return hash
}

func (m *Memory) must(repository string) *repo {
	r := m.repos[repository]
	if r == nil {
		panic("forgetest: no repository " + repository + ": AddRepository comes first")
	}
	return r
}

// Drop removes a branch, as people do after a merge.
func (m *Memory) Drop(repository, branch string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.move(m.must(repository), branch, "")
}

// Remove removes a repository.
func (m *Memory) Remove(repository string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.repos, repository)
}

// Files are those of a commit or of a branch, as text.
func (m *Memory) Files(repository, commit string) map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.must(repository)
	if h := r.branches[commit]; h != "" {
		commit = h
	}
	files, err := r.files(commit)
	if err != nil {
		panic("forgetest: " + err.Error())
	}
	text := map[string]string{}
	for name, f := range files {
		text[name] = string(f.body)
	}
	return text
}

// Parents are the commits that a commit was made on.
func (m *Memory) Parents(repository, commit string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, parents, _ := m.must(repository).commit(commit)
	return parents
}

// Branches are the heads of all branches.
func (m *Memory) Branches(repository string) map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.must(repository).branches)
}

// Pulls are all pull requests there ever were, oldest first.
func (m *Memory) Pulls(repository string) []forge.Pull {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []forge.Pull
	for _, p := range m.must(repository).pulls {
		list = append(list, p.copy())
	}
	return list
}

// Comments are those on a pull request; Reviewers who was asked to look at it.
func (m *Memory) Comments(repository string, number int64) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, err := m.must(repository).pull(number)
	if err != nil {
		return nil
	}
	return slices.Clone(p.comments)
}

// Reviewers are those who were asked to look at a pull request.
func (m *Memory) Reviewers(repository string, number int64) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, err := m.must(repository).pull(number)
	if err != nil {
		return nil
	}
	return slices.Clone(p.reviewers)
}

// Issues are all issues there ever were, oldest first.
func (m *Memory) Issues(repository string) []Issue {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []Issue
	for _, i := range m.must(repository).issues {
		list = append(list, *i)
	}
	return list
}

// Edit is what somebody does to a pull request: closes it, opens it, renames it.
func (m *Memory) Edit(repository string, number int64, e forge.PullEdit, by string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.must(repository)
	p, err := r.pull(number)
	if err != nil {
		return err
	}
	return m.edit(r, p, e, by)
}

// MergeByHand is somebody's merge of a pull request.
func (m *Memory) MergeByHand(repository string, number int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.must(repository)
	p, err := r.pull(number)
	if err != nil {
		return err
	}
	return m.merge(r, p)
}

// SetChecks says how the checks of a commit stand.
func (m *Memory) SetChecks(repository, commit string, s forge.CheckState) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.must(repository).checks[commit] = s
}

// SetArchived makes a repository read only for everybody; SetReadOnly for the
// user of the Forge.
func (m *Memory) SetArchived(repository string, is bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.must(repository).archived = is
}

// SetReadOnly takes the right to push from the user of the Forge.
func (m *Memory) SetReadOnly(repository string, is bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.must(repository).readOnly = is
}

// Protect keeps the user of the Forge from writing a branch.
func (m *Memory) Protect(repository, branch string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.must(repository).protects[branch] = true
}

// Site is the forge f to the suite, where people do what they do in m: m
// itself, or a driver that speaks to a fake around m.
func (m *Memory) Site(f forge.Forge) Site {
	n := 0
	return Site{
		Forge: f,
		Add: func(_ testing.TB, files map[string]string) (string, string) {
			n++
			name := fmt.Sprintf("team/app-%d", n)
			return name, m.AddRepository(name, files)
		},
		Push: func(_ testing.TB, r, b string, files map[string]string) string { return m.Push(r, b, files) },
		Rewrite: func(_ testing.TB, r, b string, files map[string]string) string {
			return m.Rewrite(r, b, files)
		},
		Archive: func(_ testing.TB, r string) { m.SetArchived(r, true) },
		Protect: func(_ testing.TB, r, b string) { m.Protect(r, b) },
		Close: func(t testing.TB, r string, number int64) {
			no := false
			if err := m.Edit(r, number, forge.PullEdit{Open: &no}, "somebody"); err != nil {
				t.Fatal(err)
			}
		},
		Check:     func(_ testing.TB, r, c string, s forge.CheckState) { m.SetChecks(r, c, s) },
		Reviewer:  "ada",
		Reviewers: func(_ testing.TB, r string, number int64) []string { return m.Reviewers(r, number) },
	}
}
