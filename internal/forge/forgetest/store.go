package forgetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/forge/object"
)

// objects by their hash.
type objects = map[string]object.Object

type file struct {
	body []byte
	mode string
}

// commit reads a commit.
func (r *repo) commit(hash string) (tree string, parents []string, err error) {
	o, ok := r.objects[hash]
	if !ok || o.Kind != object.Commit {
		return "", nil, fmt.Errorf("commit %s of %s: %w", hash, r.name, forge.ErrNotFound)
	}
	for line := range strings.Lines(string(o.Body)) {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch {
		case !ok:
			return tree, parents, nil
		case key == "tree":
			tree = value
		case key == "parent":
			parents = append(parents, value)
		}
	}
	return tree, parents, nil
}

// list is the folder dir of a commit.
func (r *repo) list(commit, dir string) ([]object.Entry, error) {
	tree, _, err := r.commit(commit)
	if err != nil {
		return nil, err
	}
	return r.folder(tree, dir)
}

// folder is the folder dir of a tree.
func (r *repo) folder(tree, dir string) ([]object.Entry, error) {
	for {
		entries, err := object.DecodeTree(object.SHA1, r.objects[tree].Body)
		if err != nil || dir == "" {
			return entries, err
		}
		var first string
		first, dir, _ = strings.Cut(dir, "/")
		i := slices.IndexFunc(entries, func(e object.Entry) bool { return e.Name == first && e.IsTree() })
		if i < 0 {
			return nil, fmt.Errorf("folder %s: %w", first, forge.ErrNotFound)
		}
		tree = entries[i].Hash
	}
}

// files are all files of a commit.
func (r *repo) files(commit string) (map[string]file, error) {
	files := map[string]file{}
	var walk func(dir string) error
	walk = func(dir string) error {
		entries, err := r.list(commit, dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			name := path.Join(dir, e.Name)
			if e.IsTree() {
				if err := walk(name); err != nil {
					return err
				}
				continue
			}
			files[name] = file{r.objects[e.Hash].Body, e.Mode}
		}
		return nil
	}
	return files, walk("")
}

// archive is a commit as forges send it: in a folder, compressed.
func (r *repo) archive(commit string) (io.ReadCloser, error) {
	files, err := r.files(commit)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	top := path.Base(r.name) + "-" + commit[:7] + "/"
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f := files[name]
		mode := int64(0o644)
		if f.mode == object.ModeExecutable {
			mode = 0o755
		}
		if err := w.WriteHeader(&tar.Header{Name: top + name, Mode: mode, Size: int64(len(f.body)), Typeflag: tar.TypeReg}); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.body); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return io.NopCloser(&b), nil
}

// changed are the paths in which two commits differ.
func (r *repo) changed(from, to string) ([]string, error) {
	a, err := r.files(from)
	if err != nil {
		return nil, err
	}
	b, err := r.files(to)
	if err != nil {
		return nil, err
	}
	differ := map[string]bool{}
	for name, f := range a {
		if g, ok := b[name]; !ok || f.mode != g.mode || !bytes.Equal(f.body, g.body) {
			differ[name] = true
		}
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			differ[name] = true
		}
	}
	return slices.Sorted(maps.Keys(differ)), nil
}

// writable: the user of the Forge may write the branch.
func (r *repo) writable(branch string) error {
	switch {
	case r.archived:
		return fmt.Errorf("%s: %w", r.name, forge.ErrArchived)
	case r.readOnly:
		return fmt.Errorf("write to %s: %w", r.name, forge.ErrForbidden)
	case r.protects[branch]:
		return fmt.Errorf("branch %s of %s is protected: %w", branch, r.name, forge.ErrForbidden)
	}
	return nil
}

// write makes a commit; no parent begins a new history. Names that end in "*"
// are of executable files.
func (m *Memory) write(r *repo, parent string, files map[string][]byte, message, by string) (string, error) {
	modes := map[string]string{}
	plain := map[string][]byte{}
	for name, body := range files {
		if p, ok := strings.CutSuffix(name, "*"); ok {
			modes[p], name = object.ModeExecutable, p
		}
		plain[name] = slices.Clone(body)
	}
	var parents []string
	tree := ""
	if parent != "" {
		var err error
		if tree, _, err = r.commit(parent); err != nil {
			return "", err
		}
		parents = []string{parent}
	}
	root, err := r.splice(tree, plain, modes)
	if err != nil {
		return "", err
	}
	m.serial++
	c := object.EncodeCommit(root, parents, object.Person{Name: by, Email: by + "@forge.test"}, m.clock.Now(), fmt.Sprintf("%s\n\nNo. %d", message, m.serial))
	return r.keep(c), nil
}

// keep stores an object.
func (r *repo) keep(o object.Object) string {
	hash := object.SHA1.Hash(o)
	r.objects[hash] = o
	return hash
}

// splice writes files into a tree, and gives those that modes names these modes.
func (r *repo) splice(tree string, files map[string][]byte, modes map[string]string) (string, error) {
	made, root, err := object.Splice(context.Background(), object.SHA1, func(_ context.Context, dir string) ([]object.Entry, error) {
		if tree == "" {
			return nil, nil
		}
		return r.folder(tree, dir)
	}, files)
	if err != nil {
		return "", fmt.Errorf("%w: %w", err, forge.ErrInvalid)
	}
	for _, o := range made {
		r.keep(o)
	}
	return r.mark(root, "", modes)
}

// mark gives files of a tree other modes.
func (r *repo) mark(tree, dir string, modes map[string]string) (string, error) {
	if len(modes) == 0 {
		return tree, nil
	}
	entries, err := object.DecodeTree(object.SHA1, r.objects[tree].Body)
	if err != nil {
		return "", err
	}
	for i, e := range entries {
		name := path.Join(dir, e.Name)
		if e.IsTree() {
			if entries[i].Hash, err = r.mark(e.Hash, name, modes); err != nil {
				return "", err
			}
		} else if mode := modes[name]; mode != "" {
			entries[i].Mode = mode
		}
	}
	o, err := object.EncodeTree(entries)
	if err != nil {
		return "", err
	}
	return r.keep(o), nil
}

// move sets a branch, and the open pull requests from it; "" removes it, which
// closes them.
func (m *Memory) move(r *repo, branch, to string) {
	if to == "" {
		delete(r.branches, branch)
	} else {
		r.branches[branch] = to
	}
	for _, p := range r.pulls {
		if !p.Open || p.Branch != branch {
			continue
		}
		if to == "" {
			p.Open = false
		} else {
			p.Head = to
		}
		p.UpdatedAt = m.clock.Now()
	}
}

// merge makes the files of a pull request's head those of its base.
func (m *Memory) merge(r *repo, p *pull) error {
	from, _, err := r.base(p)
	if err != nil {
		return err
	}
	paths, err := r.changed(from, p.Head)
	if err != nil {
		return err
	}
	files, err := r.files(p.Head)
	if err != nil {
		return err
	}
	content := map[string][]byte{}
	for _, name := range paths {
		content[name] = files[name].body
	}
	hash, err := m.write(r, r.branches[p.Base], content, fmt.Sprintf("merge %d", p.Number), m.Self)
	if err != nil {
		return err
	}
	m.move(r, p.Base, hash)
	p.Open, p.Merged, p.UpdatedAt = false, true, m.clock.Now()
	return nil
}

// base is where a pull request's branch left its base, by first parents.
func (r *repo) base(p *pull) (commit string, distance int, err error) {
	seen := map[string]bool{}
	for h := r.branches[p.Base]; h != ""; {
		seen[h] = true
		_, parents, err := r.commit(h)
		if err != nil {
			return "", 0, err
		}
		if h = ""; len(parents) > 0 {
			h = parents[0]
		}
	}
	for h := p.Head; h != ""; distance++ {
		if seen[h] {
			return h, distance, nil
		}
		_, parents, err := r.commit(h)
		if err != nil {
			return "", 0, err
		}
		if h = ""; len(parents) > 0 {
			h = parents[0]
		}
	}
	return "", 0, fmt.Errorf("pull request %d has no history in common with %s: %w", p.Number, p.Base, forge.ErrInvalid)
}

func (r *repo) pull(number int64) (*pull, error) {
	for _, p := range r.pulls {
		if p.Number == number {
			return p, nil
		}
	}
	return nil, fmt.Errorf("pull request %d of %s: %w", number, r.name, forge.ErrNotFound)
}

// next is the number of the next pull request or issue.
func (r *repo) next() int64 { return int64(len(r.pulls) + len(r.issues) + 1) }

func (r *repo) issue(title, author string) *Issue {
	for _, i := range r.issues {
		if i.Title == title && i.Author == author && i.State == "open" {
			return i
		}
	}
	return nil
}

func (p *pull) copy() forge.Pull {
	c := p.Pull
	c.Labels = slices.Clone(c.Labels)
	return c
}
