package bump

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"cairn.dev/cairn/internal/code"
)

// A Target is a reference that becomes another one, wherever the group has it.
type Target struct {
	Repository string `json:"repository"` // with its host
	From       string `json:"from"`       // as code writes it
	To         string `json:"to"`
}

// key names what a person declines: not the way there, only the end.
func (t Target) key() string { return t.Repository + " " + t.To }

// A Block is what a pull request says of itself to programs, hidden in its body:
// what a process that knows nothing else needs to go on with it.
type Block struct {
	Version int      `json:"cairn"` // of this format: 1
	Group   string   `json:"group"`
	Base    string   `json:"base"` // the commit that the change was made on
	Head    string   `json:"head"` // our commit
	Edit    string   `json:"edit"` // [Edit.Sum]
	Targets []Target `json:"targets"`
	// Closed says why we closed it. A closed pull request that does not say so
	// was closed by a person.
	Closed string `json:"closed,omitempty"`
}

// Bounds of a block when it is read back: anybody may have edited it.
const (
	maxBlock   = 32 << 10
	maxTargets = 200
	maxText    = 1024
)

const blockBegin, blockEnd = "<!-- cairn ", " -->"

// ErrNoBlock: a body holds no block that can be relied on.
var ErrNoBlock = errors.New("the machine-readable block is not there or was changed")

// String is the block as a comment of HTML. JSON as it is made here escapes
// the '>' that would end the comment.
func (b Block) String() string {
	b.Version = 1
	if len(b.Targets) > maxTargets {
		b.Targets = b.Targets[:maxTargets]
	}
	j, err := json.Marshal(b)
	if err != nil { // strings and numbers only
		return ""
	}
	return blockBegin + string(j) + blockEnd
}

// ParseBlock finds the block in the body of a pull request. The last one
// counts: people quote above and append below, and ours ends the body.
func ParseBlock(body string) (*Block, error) {
	i := strings.LastIndex(body, blockBegin)
	if i < 0 {
		return nil, ErrNoBlock
	}
	text, _, ok := strings.Cut(body[i+len(blockBegin):], blockEnd)
	if !ok || len(text) > maxBlock {
		return nil, ErrNoBlock
	}
	var b Block
	if err := json.Unmarshal([]byte(text), &b); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoBlock, err)
	}
	if err := b.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoBlock, err)
	}
	return &b, nil
}

// withoutBlock is the body without its block, and with what people wrote.
func withoutBlock(body string) string {
	i := strings.LastIndex(body, blockBegin)
	if i < 0 {
		return body
	}
	_, after, _ := strings.Cut(body[i:], blockEnd)
	return body[:i] + after
}

func (b *Block) check() error {
	switch {
	case b.Version != 1:
		return fmt.Errorf("version %d is not known", b.Version)
	case !isCommit(b.Base) || !isCommit(b.Head):
		return errors.New("base or head is no commit")
	case len(b.Edit) > maxText || len(b.Group) > maxText || len(b.Closed) > maxText:
		return errors.New("a text is too long")
	case len(b.Targets) > maxTargets:
		return errors.New("too many targets")
	}
	for _, t := range b.Targets {
		if len(t.Repository) > maxText {
			return errors.New("a target is too long")
		}
		for _, ref := range []string{t.From, t.To} {
			if _, err := code.ParseReference(ref); err != nil {
				return err
			}
		}
	}
	return nil
}

// isCommit: hex digits, as many as SHA-1 or SHA-256 have.
func isCommit(s string) bool {
	return (len(s) == 40 || len(s) == 64) && strings.Trim(s, "0123456789abcdef") == ""
}
