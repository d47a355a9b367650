package forge

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// All names are UTF-8: others would be other names once they went through JSON.

// CheckRepository tells whether a repository's name can be one: owner/name, or
// a longer path where the forge has groups in groups. Names come from
// configuration and from webhooks and end up in URLs.
func CheckRepository(name string) error {
	parts := strings.Split(name, "/")
	if len(name) > 500 || len(parts) < 2 || !utf8.ValidString(name) {
		return fmt.Errorf("%.100q is no name of a repository: write owner/name: %w", name, ErrInvalid)
	}
	for _, p := range parts {
		if p == "" || p == "." || p == ".." || strings.ContainsFunc(p, func(r rune) bool {
			return r <= ' ' || r == 0x7f || strings.ContainsRune(`\?#%:@`, r)
		}) {
			return fmt.Errorf("%.100q is no name of a repository: write owner/name: %w", name, ErrInvalid)
		}
	}
	return nil
}

// SplitRepository is owner and name of a repository at a forge that has no
// groups in groups.
func SplitRepository(repo string) (owner, name string, err error) {
	if err := CheckRepository(repo); err != nil {
		return "", "", err
	}
	owner, name, _ = strings.Cut(repo, "/")
	if strings.Contains(name, "/") {
		return "", "", fmt.Errorf("%.100q is no name of a repository here: write owner/name: %w", repo, ErrInvalid)
	}
	return owner, name, nil
}

// CheckBranch tells whether a branch can be called so (git-check-ref-format).
func CheckBranch(name string) error {
	bad := name == "" || name == "@" || len(name) > 250 || !utf8.ValidString(name) || strings.HasPrefix(name, "-") || strings.HasPrefix(name, "refs/") ||
		strings.HasSuffix(name, ".") || strings.Contains(name, "..") || strings.Contains(name, "@{")
	for p := range strings.SplitSeq(name, "/") {
		bad = bad || p == "" || strings.HasPrefix(p, ".") || strings.HasSuffix(p, ".lock")
	}
	if bad || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`~^:?*[\`, r) }) {
		return fmt.Errorf("%.100q is no name of a branch: %w", name, ErrInvalid)
	}
	return nil
}

// CheckPath tells whether a path can be one of a file in a repository.
func CheckPath(path string) error {
	bad := path == "" || len(path) > 4096 || !utf8.ValidString(path) || strings.ContainsRune(path, 0)
	for p := range strings.SplitSeq(path, "/") {
		bad = bad || p == "" || p == "." || p == ".." || strings.EqualFold(p, ".git")
	}
	if bad {
		return fmt.Errorf("%.100q is no path of a file in a repository: %w", path, ErrInvalid)
	}
	return nil
}

// CheckHash tells whether s is a whole name of a commit. Less would be looked
// up as a branch or a tag by some forges.
func CheckHash(s string) error {
	if len(s) != 40 && len(s) != 64 || strings.Trim(s, "0123456789abcdef") != "" {
		return fmt.Errorf("%.100q is no whole name of a commit: %w", s, ErrInvalid)
	}
	return nil
}

// Check tells whether a commit can be made as it is asked for.
func (c Commit) Check() error {
	if err := CheckBranch(c.Branch); err != nil {
		return err
	}
	if err := CheckHash(c.Parent); err != nil {
		return fmt.Errorf("parent: %w", err)
	}
	if c.Head != "" {
		if err := CheckHash(c.Head); err != nil {
			return fmt.Errorf("head: %w", err)
		}
	}
	if len(c.Files) == 0 {
		return fmt.Errorf("a commit on %s changes no file: %w", c.Branch, ErrInvalid)
	}
	if strings.TrimSpace(c.Message) == "" {
		return fmt.Errorf("a commit on %s has no message: %w", c.Branch, ErrInvalid)
	}
	for path := range c.Files {
		if err := CheckPath(path); err != nil {
			return err
		}
		for i, r := range path {
			if _, both := c.Files[path[:i]]; both && r == '/' {
				return fmt.Errorf("%s would be a file and a folder: %w", path[:i], ErrInvalid)
			}
		}
	}
	return nil
}
