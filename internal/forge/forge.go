// Package forge is what Cairn asks of the places where code is kept: GitHub,
// GitLab, Gitea and Forgejo, and any git server.
//
// It owns the words for repositories, commits and pull requests, and, in the
// packages below it, a driver for each forge; forgetest is the suite that all
// of them pass. It promises that a commit is made on the head that was read or
// not at all ([ErrMoved]), that a repository is read without a clone, that an
// answer is bounded, that a webhook is believed only when its signature holds,
// and that no secret gets into an error or a log. It does not decide what to
// propose: that is bump's.
package forge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Errors that decide what the caller does next. Drivers wrap them.
var (
	// ErrMoved: the branch is not at the commit that was expected. Read again.
	ErrMoved = errors.New("the branch has moved")
	// ErrNotFound: no such repository, branch or pull request, or not for us.
	ErrNotFound = errors.New("not found")
	// ErrForbidden: the forge knows us and will not let us; trying again does not help.
	ErrForbidden = errors.New("not allowed")
	// ErrUnauthorized: the forge does not know us: the secret is wrong or ended.
	ErrUnauthorized = errors.New("not signed on")
	// ErrArchived: the repository is read only.
	ErrArchived = errors.New("the repository is archived")
	// ErrExists: a pull request of that branch is open already.
	ErrExists = errors.New("exists already")
	// ErrInvalid: the forge understood and refused (422); trying again does not help.
	ErrInvalid = errors.New("refused")
	// ErrUnsupported: this kind of forge has no such thing (plain git has no pull requests).
	ErrUnsupported = errors.New("not supported by this forge")
)

// A LaterError is an answer that will be another one later: 429, 5xx, no answer.
type LaterError struct {
	After time.Duration // how long the forge asked to be left alone; 0 when it did not say
	Err   error
}

func (e *LaterError) Error() string { return e.Err.Error() }
func (e *LaterError) Unwrap() error { return e.Err }

// A Repository as its forge describes it.
type Repository struct {
	Name          string // owner/name, or group/subgroup/name
	DefaultBranch string
	Archived      bool
	CanPush       bool
	URL           string // for people
}

// A Commit to be made.
type Commit struct {
	Branch string
	// Parent is the commit that it is made on. If Branch exists, it must be at
	// Head, and becomes this commit on Parent (a forced move when Head is not
	// Parent); "" for Head says that Branch must not exist yet.
	Parent string
	Head   string
	// Message: its first line is the subject.
	Message string
	// Files are the whole new content of each changed file, by path. Executable
	// bits and everything else about a file stay.
	Files map[string][]byte
}

// A Pull is a pull request (GitLab: merge request).
type Pull struct {
	Number    int64
	Title     string
	Body      string
	Branch    string // head
	Head      string // its commit
	Base      string // branch
	Open      bool
	Merged    bool
	ClosedBy  string // the account that closed it, where the forge says so
	Author    string
	Labels    []string
	UpdatedAt time.Time
	URL       string // for people
}

// A PullEdit says what a pull request is to become; nil leaves a field alone.
type PullEdit struct {
	Title, Body *string
	Open        *bool
	Labels      []string // added to those it has
}

// A NewPull is a pull request to be opened.
type NewPull struct {
	Title, Body  string
	Branch, Base string
	Labels       []string
	Reviewers    []string
}

// A CheckState is what all checks of a commit say together.
type CheckState string

// The states of checks.
const (
	ChecksNone    CheckState = "none" // there are none
	ChecksPending CheckState = "pending"
	ChecksPassed  CheckState = "passed"
	ChecksFailed  CheckState = "failed"
)

// Forge is what a driver does. Users declare the part of it that they need.
// Drivers are safe for concurrent use, give up when ctx ends, and try again
// only what changes nothing.
type Forge interface {
	Code
	Pulls
	Issues
	// Account is who we are there.
	Account(ctx context.Context) (string, error)
	// Repositories lists those that we may push to, archived ones left out.
	Repositories(ctx context.Context) ([]string, error)
}

// Code is reading and writing what a repository holds.
type Code interface {
	Repository(ctx context.Context, repo string) (Repository, error)
	// Head is the commit that a branch is at; ErrNotFound when there is none.
	Head(ctx context.Context, repo, branch string) (string, error)
	// Archive is the tree of a commit as a tar stream, gzip-compressed or not,
	// in a single folder or not (as the forge makes it). The caller closes it.
	Archive(ctx context.Context, repo, commit string) (io.ReadCloser, error)
	// Changed lists the paths that differ between two commits of one history;
	// whole is false when the forge did not tell all of them.
	Changed(ctx context.Context, repo, from, to string) (paths []string, whole bool, err error)
	// File is one file of a commit.
	File(ctx context.Context, repo, commit, path string) ([]byte, error)
	Commit(ctx context.Context, repo string, c Commit) (commit string, err error)
	// DeleteBranch removes it if it is at head; gone already is no error.
	DeleteBranch(ctx context.Context, repo, branch, head string) error
}

// Pulls is pull requests.
type Pulls interface {
	// ListPulls returns those whose branch begins with the prefix, newest first,
	// open ones and those closed since.
	ListPulls(ctx context.Context, repo, prefix string, since time.Time) ([]Pull, error)
	CreatePull(ctx context.Context, repo string, p NewPull) (Pull, error)
	EditPull(ctx context.Context, repo string, number int64, e PullEdit) (Pull, error)
	Comment(ctx context.Context, repo string, number int64, body string) error
	Checks(ctx context.Context, repo, commit string) (CheckState, error)
	// Merge merges it if its head is still at that commit.
	Merge(ctx context.Context, repo string, number int64, head string) error
}

// Issues is what we tell people outside of pull requests.
type Issues interface {
	// EnsureIssue makes sure that one open issue of ours has this title, with
	// this body; it returns its URL.
	EnsureIssue(ctx context.Context, repo, title, body string) (string, error)
	// CloseIssue closes our open issue of that title, if there is one.
	CloseIssue(ctx context.Context, repo, title string) error
}

// An Event is what a webhook said, once its signature held.
type Event struct {
	Repo string
	// Branch that was pushed to, with its new head; "" for other events.
	Branch, Head string
	Before       string // its head before; "" when it is new or the forge did not say
	// Pull that changed; 0 for other events.
	Pull int64
}

// Hooks reads a forge's webhooks.
type Hooks interface {
	// ReadHook verifies the body against the secret and returns what it says;
	// a nil Event is one that does not matter to us. header gives a header's value.
	ReadHook(secret []byte, header func(string) string, body []byte) (*Event, error)
}

// ErrSignature: a webhook that is not from whom it says.
var ErrSignature = fmt.Errorf("the signature of the webhook does not hold: is the secret the same on both sides? (%w)", ErrUnauthorized)
