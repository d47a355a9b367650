// Package push writes to a repository over git's own protocol, without a clone
// and without git.
//
// It owns making one commit and sending it. It promises that the server moves
// the branch from the head that was named or not at all: the APIs of GitLab
// and Gitea that write files do not compare the branch's head, git's protocol
// always does, in one request that is answered once everything is done. It
// does not know how a forge lists folders or says why it refuses: its drivers do.
package push

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/forge/object"
	"cairn.dev/cairn/internal/forge/rest"
)

// ErrRefused: the server did not move the branch. Its driver finds out why.
var ErrRefused = errors.New("the push was refused")

// A Server takes pushes.
type Server struct {
	Client *rest.Client
	Clock  clock.Clock
	// Password to go with User, read for each push. Forges take a token so.
	User     string
	Password rest.Secret
}

// Commit makes the commit that c describes in the repository at path
// ("/owner/name.git", escaped), in by's name, and moves the branch. list lists
// folders of c.Parent.
func (s Server) Commit(ctx context.Context, path string, c forge.Commit, by object.Person, list object.List) (string, error) {
	f := object.FormatOf(c.Parent)
	objects, root, err := object.Splice(ctx, f, list, c.Files)
	if r := (*object.Refusal)(nil); errors.As(err, &r) {
		return "", fmt.Errorf("write %w: %w", err, forge.ErrInvalid)
	}
	if err != nil {
		return "", err
	}
	commit := object.EncodeCommit(root, []string{c.Parent}, by, s.Clock.Now(), c.Message)
	m := object.Move{Branch: c.Branch, Old: c.Head, New: f.Hash(commit)}
	if m.Old == "" {
		m.Old = f.Zero()
	}
	return m.New, s.send(ctx, path, f, m, append(objects, commit))
}

// Delete removes a branch that is at head.
func (s Server) Delete(ctx context.Context, path, branch, head string) error {
	f := object.FormatOf(head)
	return s.send(ctx, path, f, object.Move{Branch: branch, Old: head, New: f.Zero()}, nil)
}

func (s Server) send(ctx context.Context, path string, f object.Format, m object.Move, objects []object.Object) error {
	password, err := s.Password.Read()
	if err != nil {
		return err
	}
	answer, t, err := s.Client.Bytes(ctx, rest.Request{
		Method: "POST", Path: path + "/git-receive-pack", Raw: object.Push(f, m, objects), Type: "application/x-git-receive-pack-request",
		Header: map[string]string{
			"Accept":        "application/x-git-receive-pack-result",
			"Authorization": "Basic " + base64.StdEncoding.EncodeToString([]byte(s.User+":"+password)),
		}, Limit: 1 << 20})
	if err != nil {
		return err
	}
	if t != "application/x-git-receive-pack-result" {
		return &forge.LaterError{Err: fmt.Errorf("push to %s: answered with %.60q: is something else answering for git?", path, t)}
	}
	refused, err := object.ReadReport(m, answer)
	if err != nil {
		return &forge.LaterError{Err: err}
	}
	if refused != "" {
		return fmt.Errorf("push %s to %s: %w: %.200q", m.Branch, path, ErrRefused, refused)
	}
	return nil
}
