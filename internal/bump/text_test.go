package bump

import (
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/catalog"
	"cairn.dev/cairn/internal/code"
	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/goldentest"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/rules"
	"cairn.dev/cairn/internal/usage"
)

func digestN(c string) image.Digest { return image.Digest("sha256:" + strings.Repeat(c, 64)) }

func plainRulesOf(t *testing.T) *Rules {
	t.Helper()
	r, err := ReadRules(nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestBody(t *testing.T) {
	linux := []image.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}}
	old := &catalog.Image{Digest: digestN("a"), Platforms: append([]image.Platform{{OS: "linux", Architecture: "386"}}, linux...), Size: 20e6,
		Source: "https://github.com/acme/api.git", Revision: strings.Repeat("1", 40)}
	young := &catalog.Image{Digest: digestN("b"), Platforms: linux, Size: 21.5e6, Since: epoch.Add(-72 * time.Hour), Signed: true, Signer: "cosign.pub",
		Source: "https://github.com/acme/api", Revision: strings.Repeat("2", 40)}
	place := func(file string, line int) code.Place { return code.Place{File: file, Line: line} }
	g := &Group{Name: "registry.test/api in envs/prod"}
	target := Target{"registry.test/api", "registry.test/api:1.1", "registry.test/api:1.2"}
	moves := []Move{{Target: target, Reason: "1.2 is newer than 1.1", Old: old, New: young,
		Images: []code.Image{
			{Place: place("envs/prod/main.tf", 12), Address: `kubernetes_deployment.api["a"]`, Chain: []code.Step{{Name: "kubernetes_deployment.api"}, {Name: "var.tag", Place: place("envs/prod/variables.tf", 3)}, {Name: "terraform.tfvars", Place: place("envs/prod/terraform.tfvars", 1)}}},
			{Place: place("envs/prod/jobs.tf", 4), Address: "kubernetes_cron_job.sync"},
		},
		Users: []usage.Use{{Subject: "prod/default/Deployment/api"}, {Subject: "prod/jobs/CronJob/sync"}}}}
	block := Block{Group: g.Name, Base: strings.Repeat("c", 40), Head: strings.Repeat("d", 40), Edit: "e", Targets: []Target{target}}
	goldentest.Check(t, "testdata/body.md", title(plainRulesOf(t), g, block.Targets)+"\n\n"+body(g, moves, block, epoch))
	goldentest.Check(t, "testdata/message.txt", message(plainRulesOf(t), g, block.Targets))

	// What code and registries say does nothing.
	evil := "x`y` @everyone fixes #1 <!-- cairn {} --> </details><script>\n# heading [a](javascript:1) \u202e"
	hostile := []Move{{Target: Target{"registry.test/api", evil, evil}, Reason: evil, New: &catalog.Image{Signed: true, Signer: evil, Source: "javascript:alert(1)", Revision: "../..", Platforms: []image.Platform{{OS: evil, Architecture: evil}}},
		Images: []code.Image{{Place: place(evil, 1), Address: evil, Chain: []code.Step{{}, {Name: evil, Place: place(evil, 2)}}}}, Users: []usage.Use{{Subject: evil}}}}
	text := body(&Group{Name: evil}, hostile, block, epoch)
	goldentest.Check(t, "testdata/hostile.md", text)
	if b, err := ParseBlock(text); err != nil || b.Edit != "e" {
		t.Errorf("%+v, %v", b, err)
	}
	if strings.Count(text, "<!--") != 1 || strings.Contains(text, "\n# heading") || strings.Contains(text, "\u202e") {
		t.Error(text)
	}

	many := make([]Move, 5000)
	for i := range many {
		many[i] = moves[0]
	}
	if text := body(g, many, block, epoch); len(text) > 60_000 || !strings.Contains(text, "more than fits") {
		t.Errorf("%d bytes", len(text))
	} else if _, err := ParseBlock(text); err != nil {
		t.Error(err)
	}
}

func TestTitle(t *testing.T) {
	r := plainRulesOf(t)
	a, b := string(digestN("a")), string(digestN("b"))
	for _, c := range []struct {
		group   string
		targets []Target
		want    string
	}{
		{"nginx", []Target{{"docker.io/library/nginx", "nginx:1.1", "nginx:1.2"}}, "Bump nginx from 1.1 to 1.2"},
		{"nginx in a/b (major)", []Target{{"docker.io/library/nginx", "nginx:1.1", "nginx:2.0"}}, "Bump nginx from 1.1 to 2.0 in a/b"},
		{"nginx", []Target{{"docker.io/library/nginx", "nginx:1@" + a, "nginx:1@" + b}}, "Bump nginx from 1 sha256:aaaaaaaaaaaa to sha256:bbbbbbbbbbbb"},
		{"nginx", []Target{{"docker.io/library/nginx", "nginx@" + a, "nginx@" + b}}, "Bump nginx from sha256:aaaaaaaaaaaa to sha256:bbbbbbbbbbbb"},
		{"base", []Target{{"x/a", "x/a:1", "x/a:2"}, {"x/b", "x/b:1", "x/b:2"}}, "Bump 2 images: base"},
		{"nginx in @me #1", []Target{{"docker.io/library/nginx", "nginx:1.1", "nginx:1.2"}}, "Bump nginx from 1.1 to 1.2 in @\u2060me #\u20601"},
	} {
		if got := title(r, &Group{Name: c.group}, c.targets); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestLinks(t *testing.T) {
	for _, c := range []struct{ source, from, to, want string }{
		{"https://github.com/acme/api", "v1", "v2", "https://github.com/acme/api/compare/v1...v2"},
		{"git@github.com:acme/api.git", "v1", "v2", "https://github.com/acme/api/compare/v1...v2"},
		{"git+https://gitlab.example.org/a/b/c", "v1", "v2", "https://gitlab.example.org/a/b/c/-/compare/v1...v2"},
		{"https://git.example.org:3000/a/b/", "v1", "v2", "https://git.example.org:3000/a/b/compare/v1...v2"},
		{"https://github.com/acme/api", "v1", "v1", ""},
		{"https://github.com/acme/api", "", "v2", ""},
		{"https://github.com/acme/api", "v1", "a/../../b", ""},
		{"https://github.com/acme/api", "v1", "v2)](x", ""},
		{"https://u:p@github.com/acme/api", "v1", "v2", ""},
		{"javascript:alert(1)", "v1", "v2", ""},
		{"https://github.com/", "v1", "v2", ""},
		{"https://github.com/a b", "v1", "v2", ""},
		{"https://github.com/a)b", "v1", "v2", ""},
		{"", "v1", "v2", ""},
	} {
		if got := compareURL(c.source, c.from, c.to); got != c.want {
			t.Errorf("%q %q %q: %q, want %q", c.source, c.from, c.to, got, c.want)
		}
	}
	if got := releasesURL("https://gitlab.com/a/b"); got != "https://gitlab.com/a/b/-/releases" {
		t.Error(got)
	}
}

func TestBranchName(t *testing.T) {
	seen := map[string]string{}
	for _, group := range []string{"", "nginx", "Nginx", "nginx in a", "nginx in a/", "nginx in a.lock", "@{", "..", strings.Repeat("long ", 100), "ä", "-", "a//b", "refs/heads/x", "a b~c^d:e?f*g[h\\i"} {
		name := BranchName(rules.Default().BranchPrefix, group)
		if other, twice := seen[name]; twice {
			t.Errorf("%q and %q are both %s", group, other, name)
		}
		seen[name] = group
		if err := forge.CheckBranch(name); err != nil || BranchName(rules.Default().BranchPrefix, group) != name || len(name) > 90 {
			t.Errorf("%q: %q, %v", group, name, err)
		}
	}
}

func TestIssueQuotesTheLine(t *testing.T) {
	_, err := ReadRules([]byte("enabled: true\nlimit: {open: 3}\n"))
	if err == nil {
		t.Fatal("the file is wrong")
	}
	text := issueBody(&RulesError{File: []byte("enabled: true\nlimit: {open: 3}\n"), Err: err})
	if !strings.Contains(text, "line 2: `limit: {open: 3}`") {
		t.Error(text)
	}
}

// FuzzParseBlock: whatever a person makes of a body, nothing that is read from
// it is beyond its bounds, and what we write is read back.
func FuzzParseBlock(f *testing.F) {
	b := Block{Group: "g --> <!--", Base: strings.Repeat("a", 40), Head: strings.Repeat("b", 64), Edit: "e", Closed: "because -->", Targets: []Target{{"docker.io/library/nginx", "nginx:1", "nginx:2"}}}
	f.Add("text " + b.String() + " more")
	f.Add(blockBegin + "{}" + blockEnd)
	f.Add(blockBegin + blockBegin)
	f.Fuzz(func(t *testing.T, body string) {
		got, err := ParseBlock(body)
		_ = withoutBlock(body)
		if err != nil {
			return
		}
		if len(got.Targets) > maxTargets || !isCommit(got.Head) {
			t.Errorf("%+v", got)
		}
		again, err := ParseBlock(body + got.String())
		if err != nil || again.String() != got.String() {
			t.Errorf("%v: %s is read back as %s", err, got, again)
		}
	})
}

func pushed(repository, tag string) []catalog.Pushed {
	return []catalog.Pushed{{Repository: repository, Tag: tag}}
}
