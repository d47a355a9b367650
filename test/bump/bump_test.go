// Package bump_test tells how a newer image becomes a pull request: on a real
// forge, from the shipped program, with a registry of somebody else's beside
// it, and with Terraform's own word that the code is still right.
//
// It owns nothing but the story. Everything in it is real, and takes the time
// it takes.
package bump_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/test/gitea"
	"cairn.dev/cairn/test/images"
	"cairn.dev/cairn/test/parts"
	"cairn.dev/cairn/test/program"
)

// A place is a Cairn, a Gitea that tells it of pushes, and another registry
// that does so too.
type place struct {
	t       *testing.T
	program string
	cairn   string // host:port
	other   string // host:port of the other registry
	forge   *gitea.Server
	bot     gitea.Account
	people  gitea.Account
}

const secret = "of the webhooks"

func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{t: t, program: parts.Cairn(t), forge: gitea.Start(t), cairn: program.FreeAddress(t), other: program.FreeAddress(t)}
	p.people, p.bot = p.forge.Account(t, "people"), p.forge.Account(t, "cairn-bot")
	dir := t.TempDir()
	write(t, filepath.Join(dir, "token"), p.bot.Token)
	write(t, filepath.Join(dir, "secret"), secret)
	write(t, filepath.Join(dir, "cairn.yaml"), fmt.Sprintf(`
bump:
  interval: 1h
  forges:
  - name: gitea
    kind: gitea
    url: %s
    repositories: ["people/*"]
    token_file: token
    webhook_secret_file: secret
  registries:
  - {host: %q, url: "http://%s"}
  webhooks:
  - {name: other, kind: distribution, host: %q, secret_file: secret}
`, p.forge.URL, p.other, p.other, p.other))
	// The other registry tells Cairn of pushes.
	program.Distribution(t, p.other, fmt.Sprintf("[{name: cairn, url: %q, headers: {Authorization: [Bearer %s]}, timeout: 5s, threshold: 100, backoff: 200ms}]", "http://"+p.cairn+"/hooks/registry/other", secret))
	cmd := exec.Command(p.program, "serve", "--config", filepath.Join(dir, "cairn.yaml"), "--data", filepath.Join(dir, "data"), "--listen", p.cairn, "--open")
	cmd.Env = append(os.Environ(), "CAIRN_TOKEN=", "CAIRN_SERVER=")
	program.Serve(t, cmd, program.Answers("http://"+p.cairn+"/readyz"))
	return p
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// until waits for ok, which says what is missing.
func (p *place) until(what string, ok func() error) {
	p.t.Helper()
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = ok(); err == nil {
			return
		}
	}
	p.t.Fatalf("never came: %s: %v", what, err)
}

// command runs cairn against the server and returns what it prints.
func (p *place) command(args ...string) string {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), p.program, args...)
	cmd.Env = append(os.Environ(), "CAIRN_SERVER=http://"+p.cairn, "CAIRN_TOKEN=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		p.t.Fatalf("cairn %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// push pushes an image that nothing else is to a registry.
func (p *place) push(registry, ref string) {
	p.t.Helper()
	i := images.Variant(p.t, ref, ref)
	if err := i.Push(p.t.Context(), registry); err != nil {
		p.t.Fatal(err)
	}
}

// A pull is a pull request as Gitea tells it.
type pull struct {
	Number int64
	State  string
	Merged bool
	Title  string
	Body   string
	Head   struct{ Ref, Sha string }
}

func (p *place) pulls(repo string) []pull {
	p.t.Helper()
	var all []pull
	p.forge.Do(p.t, p.people, "GET", "/repos/people/"+repo+"/pulls?state=all&limit=50", nil, &all)
	return all
}

// open waits for the one open pull request whose title holds the words.
func (p *place) open(repo string, words ...string) pull {
	p.t.Helper()
	var found pull
	p.until(fmt.Sprintf("an open pull request about %q", words), func() error {
		n := 0
		for _, x := range p.pulls(repo) {
			has := x.State == "open"
			for _, w := range words {
				has = has && strings.Contains(x.Title, w)
			}
			if has {
				found, n = x, n+1
			}
		}
		if n != 1 {
			return fmt.Errorf("there are %d; all: %+v\n%s", n, p.pulls(repo), p.command("bump", "status"))
		}
		return nil
	})
	return found
}

// file is what a branch has in a file.
func (p *place) file(repo, branch, name string) string {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), "GET", fmt.Sprintf("%s/api/v1/repos/people/%s/raw/%s?ref=%s", p.forge.URL, repo, name, branch), nil)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Authorization", "token "+p.people.Token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		p.t.Fatalf("%s of %s: %s %v", name, branch, resp.Status, err)
	}
	return b.String()
}

// resolved are the images that Terraform says a branch would make, by address.
func (p *place) resolved(repo, branch string) map[string]string {
	p.t.Helper()
	dir := p.t.TempDir()
	clone := exec.CommandContext(p.t.Context(), "git", "clone", "-q", "--depth=1", "--branch", branch, strings.Replace(p.forge.URL, "://", "://people:"+p.people.Token+"@", 1)+"/people/"+repo+".git", dir)
	if out, err := clone.CombinedOutput(); err != nil {
		p.t.Fatalf("git clone: %v\n%s", err, out)
	}
	mirror := p.t.TempDir()
	for source, part := range map[string]string{"hashicorp/kubernetes/1.13.4": "terraform-provider-kubernetes", "gavinbunney/kubectl/1.19.0": "terraform-provider-kubectl"} {
		to := filepath.Join(mirror, "registry.opentofu.org", filepath.FromSlash(source), runtime.GOOS+"_"+runtime.GOARCH)
		if err := os.MkdirAll(to, 0o755); err != nil {
			p.t.Fatal(err)
		}
		if err := os.Symlink(parts.Path(p.t, part), filepath.Join(to, part+"_v"+source[strings.LastIndexByte(source, '/')+1:])); err != nil {
			p.t.Fatal(err)
		}
	}
	rc := filepath.Join(mirror, "tofurc")
	write(p.t, rc, fmt.Sprintf("disable_checkpoint = true\nprovider_installation {\n  filesystem_mirror {\n    path = %q\n    include = [\"*/*\"]\n  }\n}\n", mirror))
	tofu := func(args ...string) []byte {
		p.t.Helper()
		cmd := exec.CommandContext(p.t.Context(), parts.Path(p.t, "tofu"), args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "TF_CLI_CONFIG_FILE="+rc, "TF_IN_AUTOMATION=1")
		var out, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &stderr
		if err := cmd.Run(); err != nil {
			p.t.Fatalf("tofu %s: %v\n%s%s", strings.Join(args, " "), err, out.Bytes(), stderr.Bytes())
		}
		return out.Bytes()
	}
	tofu("init", "-input=false", "-no-color")
	tofu("validate", "-no-color")
	tofu("plan", "-input=false", "-no-color", "-lock=false", "-out=plan")
	var plan struct {
		ResourceChanges []struct {
			Address string
			Change  struct{ After any }
		} `json:"resource_changes"`
	}
	if err := json.Unmarshal(tofu("show", "-json", "plan"), &plan); err != nil {
		p.t.Fatal(err)
	}
	found := map[string]string{}
	for _, r := range plan.ResourceChanges {
		words(r.Change.After, func(w string) {
			if registry, name, ok := strings.Cut(w, "/"); ok && (registry == p.cairn || registry == p.other) {
				found[r.Address] = name
			}
		})
	}
	return found
}

// words calls f with the words of all strings within a value of JSON.
func words(v any, f func(string)) {
	switch v := v.(type) {
	case string:
		for w := range strings.FieldsSeq(v) {
			f(strings.Trim(w, `"`))
		}
	case []any:
		for _, x := range v {
			words(x, f)
		}
	case map[string]any:
		for _, x := range v {
			words(x, f)
		}
	}
}
