package bump

import (
	"context"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/forge/forgetest"
)

// bare is a git server: no pull requests, no issues.
type bare struct{ *forgetest.Memory }

func (bare) Account(context.Context) (string, error) { return "", forge.ErrUnsupported }
func (bare) ListPulls(context.Context, string, string, time.Time) ([]forge.Pull, error) {
	return nil, forge.ErrUnsupported
}
func (bare) EnsureIssue(context.Context, string, string, string) (string, error) {
	return "", forge.ErrUnsupported
}

// branch is the only branch beside main, and what it makes of main.tf; "" when
// there is none.
func (g *rig) branch() (name, text string) {
	g.Helper()
	for b, head := range g.forge.Branches("team/app") {
		if b != "main" {
			if name != "" {
				g.Fatalf("branches %s and %s", name, b)
			}
			name, text = b, g.forge.Files("team/app", head)["main.tf"]
		}
	}
	return name, text
}

func TestWithoutPullRequests(t *testing.T) {
	g := ready(t)
	g.site = bare{g.forge}
	e := g.engine("a")
	g.pass(e)
	g.push("cairn.test/api", "1.2")
	g.pass(e)
	name, text := g.branch()
	if text != main2 {
		t.Fatalf("%s: %q", name, text)
	}
	if s := g.status(e, "cairn.test/api:1.1"); !strings.Contains(s.Reason, "the branch "+name+" has it") {
		t.Errorf("%+v", s)
	}
	g.quietly(e)
	g.push("cairn.test/api", "1.3")
	g.pass(e)
	if _, text := g.branch(); text != main3 {
		t.Fatalf("%q", text)
	}

	// To remove the branch is to decline.
	g.forge.Drop("team/app", name)
	g.pass(e)
	if name, _ := g.branch(); name != "" {
		t.Error("it was made again")
	}
	if s := g.status(e, "cairn.test/api:1.1"); s.State != StateDeclined {
		t.Errorf("%+v", s)
	}
	g.quietly(e)
	g.push("cairn.test/api", "1.4")
	g.pass(e)
	name, _ = g.branch()
	if name == "" {
		t.Fatal("a newer version is another question")
	}

	// A person's commit stays.
	theirs := g.forge.Push("team/app", name, map[string]string{"x.tf": "mine"})
	g.push("cairn.test/api", "1.5")
	g.pass(e)
	if g.forge.Branches("team/app")[name] != theirs {
		t.Error("a person's commit was moved")
	}
	g.forge.Drop("team/app", name)
	g.push("cairn.test/api", "1.6")
	g.pass(e)
	if _, text := g.branch(); !strings.Contains(text, "api:1.6") {
		t.Fatalf("%q", text)
	}
	// Merged by hand: the branch is of no use any more.
	g.forge.Push("team/app", "main", map[string]string{"main.tf": strings.ReplaceAll(main1, "api:1.1", "api:1.6")})
	g.pass(e)
	if name, _ := g.branch(); name != "" {
		t.Error("the branch is left")
	}
	g.quietly(e)
}
