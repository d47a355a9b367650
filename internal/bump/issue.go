package bump

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/rules"
)

// issueTitle is how we find our issue again.
const issueTitle = "Cairn cannot read " + rules.Name

// complain tells people in the repository that its .cairn.yaml is broken. Where
// there are no issues, the status of the repository has to do.
func (e *Engine) complain(ctx context.Context, r *repository, broken *RulesError) error {
	if r.info.Archived || !r.info.CanPush {
		return nil
	}
	_, err := r.source.Forge.EnsureIssue(ctx, r.name, issueTitle, issueBody(broken))
	if errors.Is(err, forge.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("tell people of it: %w", err)
	}
	r.change(func(rec *record) { rec.issue = true })
	return nil
}

// content takes the complaint back.
func (e *Engine) content(ctx context.Context, r *repository) error {
	if err := r.source.Forge.CloseIssue(ctx, r.name, issueTitle); err != nil && !errors.Is(err, forge.ErrUnsupported) {
		return fmt.Errorf("close the issue about %s: %w", rules.Name, err)
	}
	r.change(func(rec *record) { rec.issue = false })
	return nil
}

// issueBody quotes what is wrong, and the lines it is about.
func issueBody(broken *RulesError) string {
	var b strings.Builder
	fmt.Fprintf(&b, "The file %s on the default branch cannot be used, and no pull requests are opened or changed until it can:\n\n", codeSpan(rules.Name))
	lines := strings.Split(string(broken.File), "\n")
	n := 0
	for msg := range strings.SplitSeq(broken.Err.Error(), "\n") {
		if msg = strings.TrimSpace(msg); msg == "" {
			continue
		}
		if n++; n > 20 {
			b.WriteString("* and more\n")
			break
		}
		fmt.Fprintf(&b, "* %s\n", markdown(msg))
		if line := lineOf(msg); line > 0 && line <= len(lines) {
			fmt.Fprintf(&b, "  line %d: %s\n", line, codeSpan(strings.TrimSpace(lines[line-1])))
		}
	}
	b.WriteString("\nThis issue closes by itself when the file is right.\n")
	return b.String()
}

// lineOf finds the number in "…yaml:12: …"; 0 when there is none.
func lineOf(msg string) (n int) {
	_, rest, ok := strings.Cut(msg, "yaml:")
	if !ok {
		return 0
	}
	for _, c := range rest {
		if c < '0' || c > '9' || n > 1e6 {
			break
		}
		n = n*10 + int(c-'0')
	}
	return n
}
