// Package git calls the git program, for whoever reads or writes repositories
// of others.
//
// It owns how that is done: in an empty folder that is removed afterwards, with
// nothing of the repository's or the machine's configuration, without hooks,
// prompts, checkouts or protocols other than the one of the address; and the
// reading of commits, as lists of files and as tars. It promises that git and
// its children end with the context, that what they say is bounded, and that a
// password is in no argument. It does not know forges, branches that are ours,
// or what is done with the files.
package git

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Config says how git is called.
type Config struct {
	// User, and what tells the password for https; nil for none.
	User     string
	Password func() (string, error)
	// KeyFile is the private key for ssh and KnownHosts the file of the servers'
	// keys; ssh's own defaults when empty. Both are paths without quotes.
	KeyFile, KnownHosts string
	// Dir is where temporary folders are made; the system's when empty.
	Dir string
	// Timeout of one call of git; ten minutes when zero.
	Timeout time.Duration
	// Proxy is asked for https and http instead of the one of the environment.
	Proxy string
}

// Git is the program. It is safe for concurrent use.
type Git struct {
	Config
	program string
}

// New finds the program. It contacts nobody.
func New(c Config) (*Git, error) {
	program, err := exec.LookPath("git")
	if err != nil {
		return nil, fmt.Errorf("the git program is needed and not there: %w", err)
	}
	if strings.ContainsAny(c.KeyFile+c.KnownHosts, "'\n\x00") {
		return nil, errors.New("a path of a key has a quote in it")
	}
	if c.Timeout <= 0 {
		c.Timeout = 10 * time.Minute
	}
	return &Git{Config: c, program: program}, nil
}

// CheckAddress allows ssh://git@host/path, https://host/path and file:///path,
// without a password. Its error does not repeat the address.
func CheckAddress(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil, u.Path == "", !slices.Contains([]string{"ssh", "https", "http", "file"}, u.Scheme), u.Host == "" && u.Scheme != "file",
		strings.HasPrefix(u.Host, "-"), strings.HasPrefix(u.User.String(), "-"):
		return errors.New("write ssh://git@host/path or https://host/path")
	}
	if _, has := u.User.Password(); has {
		return errors.New("it has a password in it: put it into a file and name that")
	}
	return nil
}

// A Repository is an empty bare repository in a temporary folder, whose origin
// is an address. One goroutine at a time.
type Repository struct {
	g    *Git
	name string // what people call it
	dir  string
	env  []string
}

// Open makes the folder of an address; name is for people. Its few files are
// written here: one process less, and no template of the machine's gets in.
// Close it.
func (g *Git) Open(name, address string) (*Repository, error) {
	if err := CheckAddress(address); err != nil {
		return nil, fmt.Errorf("the address of %s: %w", name, err)
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(g.Dir, "cairn-git-")
	if err != nil {
		return nil, fmt.Errorf("make a folder to work in: %w", err)
	}
	r := &Repository{g: g, name: name, dir: dir}
	for _, sub := range []string{"objects", "refs"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			r.Close()
			return nil, err
		}
	}
	files := map[string]string{
		"HEAD": "ref: refs/heads/none\n",
		// promisor: blobs that were left out are fetched when they are read.
		"config": "[core]\n\trepositoryformatversion = 1\n\tbare = true\n[extensions]\n\tpartialClone = origin\n" +
			"[remote \"origin\"]\n\turl = " + strconv.Quote(address) + "\n\tpromisor = true\n\tpartialclonefilter = blob:none\n",
	}
	for file, text := range files {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			r.Close()
			return nil, err
		}
	}
	r.env, err = g.environment(dir, u)
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Close removes the folder.
func (r *Repository) Close() { _ = os.RemoveAll(r.dir) }

// Name is what people call it.
func (r *Repository) Name() string { return r.name }
