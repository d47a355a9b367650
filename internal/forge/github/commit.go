package github

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/forge/object"
	"cairn.dev/cairn/internal/forge/rest"
)

// graph asks by GraphQL. asks says that nothing is changed by it.
func (g *Driver) graph(ctx context.Context, repo, query string, variables map[string]any, asks bool, into any) error {
	var answer struct {
		Data   json.RawMessage `json:"data"`
		Errors []struct {
			Type    string `json:"type"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	err := g.rest.JSON(ctx, rest.Request{Method: "POST", Path: g.graphql, As: repo, Asks: asks, Body: map[string]any{"query": query, "variables": variables}}, &answer)
	if err != nil {
		return err
	}
	if len(answer.Errors) > 0 {
		return meaning(repo, answer.Errors[0].Type, answer.Errors[0].Message)
	}
	if err := json.Unmarshal(answer.Data, into); err != nil {
		return &forge.LaterError{Err: fmt.Errorf("ask about %s by GraphQL: %w", repo, err)}
	}
	return nil
}

// meaning of an error of GraphQL. Kinds that are not known here are mostly
// GitHub's own troubles.
func meaning(repo, kind, message string) error {
	err := fmt.Errorf("ask about %s by GraphQL: %.300s", repo, strings.Join(strings.Fields(message), " "))
	var is error
	switch kind {
	case "NOT_FOUND":
		is = forge.ErrNotFound
	case "FORBIDDEN", "INSUFFICIENT_SCOPES", "BRANCH_PROTECTION_RULE_VIOLATION":
		is = forge.ErrForbidden
	case "STALE_DATA":
		is = forge.ErrMoved
	case "UNPROCESSABLE", "BAD_USER_INPUT":
		is = forge.ErrInvalid
	case "RATE_LIMITED":
		return &forge.LaterError{After: time.Minute, Err: err}
	default:
		return &forge.LaterError{Err: err}
	}
	return fmt.Errorf("%w: %w", err, is)
}

// ground is what a commit is built on.
type ground struct {
	id    string // of the repository
	head  string // where the branch is; "" nowhere
	tree  string // of the commit
	modes map[string]string
}

// foldersAtOnce is how many folders one question asks for.
const foldersAtOnce = 50

// survey reads where the branch is and what kinds of files the commit's are now.
func (g *Driver) survey(ctx context.Context, repo string, c forge.Commit) (ground, error) {
	owner, name, err := forge.SplitRepository(repo)
	if err != nil {
		return ground{}, err
	}
	folders := map[string]bool{"": true}
	for file := range c.Files {
		for dir := path.Dir(file); dir != "."; dir = path.Dir(dir) {
			folders[dir] = true
		}
	}
	var dirs []string
	for dir := range folders {
		dirs = append(dirs, dir)
	}
	slices.Sort(dirs)
	gr := ground{modes: map[string]string{}}
	for some := range slices.Chunk(dirs, foldersAtOnce) {
		variables := map[string]any{"owner": owner, "name": name, "ref": "refs/heads/" + c.Branch, "parent": c.Parent}
		declare, ask := "", ""
		for i, dir := range some {
			declare += fmt.Sprintf(",$d%d:String!", i)
			ask += fmt.Sprintf(" d%d:object(expression:$d%d){__typename ...on Tree{entries{name mode}}}", i, i)
			variables[fmt.Sprintf("d%d", i)] = c.Parent + ":" + dir
		}
		query := "query($owner:String!,$name:String!,$ref:String!,$parent:GitObjectID!" + declare + "){repository(owner:$owner,name:$name){id isArchived " +
			"ref(qualifiedName:$ref){target{oid}} parent:object(oid:$parent){__typename ...on Commit{tree{oid}}}" + ask + "}}"
		if err := g.surveySome(ctx, repo, query, variables, c, some, &gr); err != nil {
			return ground{}, err
		}
	}
	return gr, nil
}

func (g *Driver) surveySome(ctx context.Context, repo, query string, variables map[string]any, c forge.Commit, dirs []string, gr *ground) error {
	var answer struct {
		Repository map[string]json.RawMessage `json:"repository"`
	}
	if err := g.graph(ctx, repo, query, variables, true, &answer); err != nil {
		return err
	}
	if answer.Repository == nil {
		return fmt.Errorf("%s: %w", repo, forge.ErrNotFound)
	}
	type thing struct {
		Typename string `json:"__typename"`
		Tree     struct {
			OID string `json:"oid"`
		} `json:"tree"`
		Entries []struct {
			Name string `json:"name"`
			Mode uint32 `json:"mode"`
		} `json:"entries"`
	}
	var archived bool
	var ref *struct {
		Target struct {
			OID string `json:"oid"`
		} `json:"target"`
	}
	var parent *thing
	err := errors.Join(json.Unmarshal(answer.Repository["id"], &gr.id), json.Unmarshal(answer.Repository["isArchived"], &archived),
		json.Unmarshal(answer.Repository["ref"], &ref), json.Unmarshal(answer.Repository["parent"], &parent))
	if err != nil {
		return &forge.LaterError{Err: fmt.Errorf("read about %s: %w", repo, err)}
	}
	switch {
	case archived:
		return fmt.Errorf("%s: %w", repo, forge.ErrArchived)
	case parent == nil || parent.Typename != "Commit":
		return fmt.Errorf("commit %s of %s: %w", c.Parent, repo, forge.ErrNotFound)
	}
	gr.tree = parent.Tree.OID
	if gr.head = ""; ref != nil {
		gr.head = ref.Target.OID
	}
	for i, dir := range dirs {
		var tree *thing
		if err := json.Unmarshal(answer.Repository[fmt.Sprintf("d%d", i)], &tree); err != nil {
			return &forge.LaterError{Err: fmt.Errorf("read folder %q of %s: %w", dir, repo, err)}
		}
		if tree == nil {
			continue // it will be a new one
		}
		if tree.Typename != "Tree" {
			return fmt.Errorf("write to %s: %s is no folder: %w", repo, dir, forge.ErrInvalid)
		}
		for _, e := range tree.Entries {
			file := path.Join(dir, e.Name)
			if _, ours := c.Files[file]; !ours {
				continue
			}
			mode := strconv.FormatUint(uint64(e.Mode), 8)
			if mode != object.ModeFile && mode != object.ModeExecutable {
				return fmt.Errorf("write to %s: %s is no plain file (mode %s): %w", repo, file, mode, forge.ErrInvalid)
			}
			gr.modes[file] = mode
		}
	}
	return nil
}

// Commit implements [forge.Code]. GitHub signs a commit that is made on top of
// a branch, which is all that call can do, and it makes every file a plain
// one; so what moves a branch elsewhere or has executable files is put together
// from objects, which GitHub signs for apps.
func (g *Driver) Commit(ctx context.Context, repo string, c forge.Commit) (string, error) {
	if err := c.Check(); err != nil {
		return "", err
	}
	gr, err := g.survey(ctx, repo, c)
	if err != nil {
		return "", err
	}
	if gr.head != c.Head {
		return "", fmt.Errorf("%s of %s is at %q, not at %q: %w", c.Branch, repo, gr.head, c.Head, forge.ErrMoved)
	}
	plain := true
	for _, mode := range gr.modes {
		plain = plain && mode == object.ModeFile
	}
	var hash string
	switch {
	case plain && c.Head == "":
		hash, err = g.begin(ctx, repo, c, gr)
	case plain && c.Head == c.Parent:
		hash, err = g.append(ctx, repo, c)
	default:
		if hash, err = g.assemble(ctx, repo, c, gr); err != nil {
			return "", err
		}
		if c.Head == "" {
			err = g.create(ctx, repo, c.Branch, hash)
		} else {
			err = g.move(ctx, repo, gr.id, c.Branch, c.Head, hash)
		}
	}
	if err != nil {
		return "", g.why(ctx, repo, c.Branch, c.Head, err)
	}
	return hash, nil
}

// begin makes a branch and a commit on it. A branch that got no commit goes
// again, if it is still where it was made.
func (g *Driver) begin(ctx context.Context, repo string, c forge.Commit, gr ground) (string, error) {
	if err := g.create(ctx, repo, c.Branch, c.Parent); err != nil {
		return "", err
	}
	hash, err := g.append(ctx, repo, c)
	if err != nil {
		// Also when nobody waits any more; the client bounds it.
		if derr := g.move(context.WithoutCancel(ctx), repo, gr.id, c.Branch, c.Parent, zero); derr != nil {
			err = fmt.Errorf("%w; and the branch that was made for it may be left: %w", err, derr)
		}
	}
	return hash, err
}

// append makes a commit on top of a branch.
func (g *Driver) append(ctx context.Context, repo string, c forge.Commit) (string, error) {
	headline, body, _ := strings.Cut(c.Message, "\n")
	additions := []map[string]any{}
	for _, file := range sorted(c.Files) {
		additions = append(additions, map[string]any{"path": file, "contents": base64.StdEncoding.EncodeToString(c.Files[file])})
	}
	var answer struct {
		Create struct {
			Commit struct {
				OID string `json:"oid"`
			} `json:"commit"`
		} `json:"createCommitOnBranch"`
	}
	err := g.graph(ctx, repo, "mutation($input:CreateCommitOnBranchInput!){createCommitOnBranch(input:$input){commit{oid}}}", map[string]any{"input": map[string]any{
		"branch":          map[string]any{"repositoryNameWithOwner": repo, "branchName": c.Branch},
		"message":         map[string]any{"headline": headline, "body": strings.TrimSpace(body)},
		"expectedHeadOid": c.Parent,
		"fileChanges":     map[string]any{"additions": additions},
	}}, false, &answer)
	if err == nil && forge.CheckHash(answer.Create.Commit.OID) != nil {
		err = &forge.LaterError{Err: fmt.Errorf("commit to %s: the answer names no commit", repo)}
	}
	return answer.Create.Commit.OID, err
}

func sorted(files map[string][]byte) []string {
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// assemble makes a commit of objects, which no branch has yet.
func (g *Driver) assemble(ctx context.Context, repo string, c forge.Commit, gr ground) (string, error) {
	type made struct {
		SHA string `json:"sha"`
	}
	tree := []map[string]any{}
	for _, file := range sorted(c.Files) {
		mode := gr.modes[file]
		if mode == "" {
			mode = object.ModeFile
		}
		entry := map[string]any{"path": file, "mode": mode, "type": "blob"}
		if content := c.Files[file]; utf8.Valid(content) {
			entry["content"] = string(content)
		} else {
			var blob made
			if err := g.ask(ctx, "POST", repo, nil, map[string]any{"encoding": "base64", "content": base64.StdEncoding.EncodeToString(content)}, &blob, "git", "blobs"); err != nil {
				return "", err
			}
			entry["sha"] = blob.SHA
		}
		tree = append(tree, entry)
	}
	var root, commit made
	if err := g.ask(ctx, "POST", repo, nil, map[string]any{"base_tree": gr.tree, "tree": tree}, &root, "git", "trees"); err != nil {
		return "", err
	}
	err := g.ask(ctx, "POST", repo, nil, map[string]any{"message": c.Message, "tree": root.SHA, "parents": []string{c.Parent}}, &commit, "git", "commits")
	if err == nil && forge.CheckHash(commit.SHA) != nil {
		err = &forge.LaterError{Err: fmt.Errorf("commit to %s: the answer names no commit", repo)}
	}
	return commit.SHA, err
}

// create makes a branch that must not be there.
func (g *Driver) create(ctx context.Context, repo, branch, commit string) error {
	return g.ask(ctx, "POST", repo, nil, map[string]any{"ref": "refs/heads/" + branch, "sha": commit}, nil, "git", "refs")
}

// zero is the hash of nothing, in GraphQL's updates of references.
const zero = "0000000000000000000000000000000000000000"

// move moves a branch from one commit to another, wherever that is; to zero
// removes it. REST's calls do not compare.
func (g *Driver) move(ctx context.Context, repo, id, branch, from, to string) error {
	var done struct{}
	return g.graph(ctx, repo, "mutation($input:UpdateRefsInput!){updateRefs(input:$input){clientMutationId}}", map[string]any{"input": map[string]any{
		"repositoryId": id,
		"refUpdates":   []map[string]any{{"name": "refs/heads/" + branch, "beforeOid": from, "afterOid": to, "force": true}},
	}}, false, &done)
}

// DeleteBranch implements [forge.Code].
func (g *Driver) DeleteBranch(ctx context.Context, repo, branch, head string) error {
	if err := errors.Join(forge.CheckBranch(branch), forge.CheckHash(head)); err != nil {
		return err
	}
	owner, name, err := forge.SplitRepository(repo)
	if err != nil {
		return err
	}
	var answer struct {
		Repository *struct {
			ID  string `json:"id"`
			Ref *struct {
				Target struct {
					OID string `json:"oid"`
				} `json:"target"`
			} `json:"ref"`
		} `json:"repository"`
	}
	err = g.graph(ctx, repo, "query($owner:String!,$name:String!,$ref:String!){repository(owner:$owner,name:$name){id ref(qualifiedName:$ref){target{oid}}}}",
		map[string]any{"owner": owner, "name": name, "ref": "refs/heads/" + branch}, true, &answer)
	if err != nil {
		return err
	}
	r := answer.Repository
	switch {
	case r == nil || r.ID == "":
		return fmt.Errorf("%s: %w", repo, forge.ErrNotFound)
	case r.Ref == nil:
		return nil
	case r.Ref.Target.OID != head:
		return fmt.Errorf("%s of %s is at %s, not at %s: %w", branch, repo, r.Ref.Target.OID, head, forge.ErrMoved)
	}
	if err := g.move(ctx, repo, r.ID, branch, head, zero); err != nil {
		return g.why(ctx, repo, branch, head, err)
	}
	return nil
}

// why finds out whether a refusal means that somebody was quicker.
func (g *Driver) why(ctx context.Context, repo, branch, head string, err error) error {
	var later *forge.LaterError
	refused := errors.Is(err, forge.ErrInvalid) || rest.Status(err) == http.StatusConflict
	if !refused && !(errors.As(err, &later) && rest.Status(err) == 0 && later.After == 0) {
		return err
	}
	at, herr := g.Head(ctx, repo, branch)
	if herr != nil && !errors.Is(herr, forge.ErrNotFound) {
		return err
	}
	if at != head {
		return fmt.Errorf("%w: %s of %s is at %q, not at %q: %w", err, branch, repo, at, head, forge.ErrMoved)
	}
	if rest.Says(err, "protected") || strings.Contains(strings.ToLower(err.Error()), "protected") || strings.Contains(strings.ToLower(err.Error()), "rule violations") {
		return fmt.Errorf("%w: %w", err, forge.ErrForbidden)
	}
	return err
}
