package docs

import (
	"bytes"
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn.dev/cairn/test/images"
	"cairn.dev/cairn/test/parts"
	"cairn.dev/cairn/test/program"
)

var update = flag.Bool("update", false, "write what commands print into the pages")

// The address that pages show; the tests use a free one in its place.
const shown = "127.0.0.1:5080"

// pages are the Markdown files that are checked, as paths from here.
func pages(t *testing.T) []string {
	t.Helper()
	list, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"} {
		list = append(list, "../../"+name)
	}
	return list
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestLinksLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, name := range pages(t) {
		for i, line := range strings.Split(read(t, name), "\n") {
			for _, m := range link.FindAllStringSubmatch(line, -1) {
				to, anchor, _ := strings.Cut(m[1], "#")
				if strings.Contains(to, "://") || strings.HasPrefix(to, "mailto:") {
					continue
				}
				target := name
				if to != "" {
					target = filepath.Join(filepath.Dir(name), to)
				}
				if _, err := os.Stat(target); err != nil {
					t.Errorf("%s:%d: link to %s: %v", name, i+1, m[1], err)
					continue
				}
				if anchor != "" && !hasHeading(read(t, target), anchor) {
					t.Errorf("%s:%d: %s has no heading %q", name, i+1, target, anchor)
				}
			}
		}
	}
}

// hasHeading reports whether a page has the heading that an anchor names.
func hasHeading(page, anchor string) bool {
	for line := range strings.Lines(page) {
		if !strings.HasPrefix(line, "#") {
			continue
		}
		text := strings.ToLower(strings.TrimSpace(strings.TrimLeft(line, "#")))
		text = regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(text, "")
		if strings.ReplaceAll(text, " ", "-") == anchor {
			return true
		}
	}
	return false
}

// built is a folder that holds the binary, for PATH, made by the first test that
// asks.
var built struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

func binary(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "cairn-docs-"); built.err != nil {
			return
		}
		_, built.err = parts.Compile(context.Background(), "cairn", built.dir)
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.dir
}

// Every command and flag that a block shows exists.
func TestCommandsExist(t *testing.T) {
	bin := binary(t)
	call := regexp.MustCompile(`(?:^|[\s|;&(])(?:\./cairn|cairn|go run \./cmd/cairn) ([a-z][^|;&>#]*)`)
	flagName := regexp.MustCompile(`(?:^|\s)(--[a-z][a-z-]*)`)
	seen := map[string]bool{}
	for _, name := range pages(t) {
		for _, block := range Blocks(read(t, name)) {
			switch block.Kind {
			case "", "sh", "console", "bash":
			default:
				continue
			}
			for i, line := range block.Lines {
				if block.Kind == "console" && !strings.HasPrefix(line, "$ ") {
					continue
				}
				for _, m := range call.FindAllStringSubmatch(line, -1) {
					if seen[m[1]] {
						continue
					}
					seen[m[1]] = true
					var words []string
					for w := range strings.FieldsSeq(m[1]) {
						if !regexp.MustCompile(`^[a-z][a-z-]*$`).MatchString(w) {
							break
						}
						words = append(words, w)
					}
					help := commandHelp(t, bin, words)
					if help == "" {
						t.Errorf("%s:%d: no command %q", name, block.Line+i+1, "cairn "+strings.Join(words, " "))
						continue
					}
					for _, f := range flagName.FindAllStringSubmatch(m[1], -1) {
						if !strings.Contains(help, f[1]) {
							t.Errorf("%s:%d: cairn %s has no flag %s", name, block.Line+i+1, strings.Join(words, " "), f[1])
						}
					}
				}
			}
		}
	}
}

// commandHelp is the help of the command that words begin with.
func commandHelp(t *testing.T, bin string, words []string) string {
	t.Helper()
	for n := len(words); n > 0; n-- {
		out, err := exec.Command(filepath.Join(bin, "cairn"), append(append([]string(nil), words[:n]...), "--help")...).CombinedOutput()
		if err == nil && bytes.Contains(out, []byte("cairn "+strings.Join(words[:n], " "))) {
			return string(out)
		}
	}
	return ""
}

// Console blocks are run, page by page, against a fresh server.
func TestConsoleBlocks(t *testing.T) {
	for _, name := range pages(t) {
		text := read(t, name)
		var steps []Step
		for _, block := range Blocks(text) {
			if block.Kind == "console" {
				steps = append(steps, block.Steps()...)
			}
		}
		if len(steps) == 0 {
			continue
		}
		t.Run(filepath.Base(name), func(t *testing.T) {
			s := startShell(t)
			if strings.Contains(text, "\n$ cairn run ") {
				s.image("library/alpine:latest", "alpine")
			}
			printed := make([][]string, len(steps))
			for i, step := range steps {
				printed[i] = s.run(step.Command)
				if Same(step.Output, printed[i]) {
					printed[i] = step.Output // do not touch what only varies
				} else if !*update {
					t.Errorf("%s:%d: $ %s\nthe page says\n%s\nit prints\n%s", name, step.Line, step.Command, strings.Join(step.Output, "\n"), strings.Join(printed[i], "\n"))
				}
			}
			if *update {
				if err := os.WriteFile(name, []byte(Rewrite(text, steps, printed)), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// shell runs the commands of one page.
type shell struct {
	t    *testing.T
	dir  string
	addr string
	env  []string
}

// startShell starts a server in open mode on a free port of loopback.
func startShell(t *testing.T) *shell {
	t.Helper()
	bin := binary(t)
	crane := parts.Path(t, "crane")
	if _, err := exec.LookPath("curl"); err != nil {
		parts.Apt(t, "curl")
	}
	s := &shell{t: t, dir: t.TempDir(), addr: program.FreeAddress(t)}
	s.env = append(os.Environ(),
		"PATH="+bin+string(os.PathListSeparator)+filepath.Dir(crane)+string(os.PathListSeparator)+os.Getenv("PATH"),
		"CAIRN_SERVER=http://"+s.addr, "HOME="+s.dir, "CAIRN_TOKEN=", "TZ=UTC", "NO_COLOR=1", "COLUMNS=120",
		"GOPATH="+goEnv(t, "GOPATH"), "GOCACHE="+goEnv(t, "GOCACHE"), "GOMODCACHE="+goEnv(t, "GOMODCACHE"))
	cmd := exec.Command(filepath.Join(bin, "cairn"), "serve", "--data", filepath.Join(s.dir, "data"), "--listen", s.addr, "--open")
	cmd.Env = s.env
	program.Serve(t, cmd, program.Answers("http://"+s.addr+"/readyz"))
	return s
}

// image puts an image that pages run into the server, where they find it.
func (s *shell) image(ref, name string) {
	s.t.Helper()
	images.Push(s.t, s.addr, ref)
	if out := s.run("crane copy --insecure " + shown + "/" + ref + " " + shown + "/" + name + " 2>/dev/null"); len(out) > 0 {
		s.t.Fatalf("name an image: %s", strings.Join(out, "\n"))
	}
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// run runs one command as a person would and returns the lines it prints, with
// the address that pages show.
func (s *shell) run(command string) []string {
	command = strings.ReplaceAll(command, shown, s.addr)
	command = strings.ReplaceAll(command, "go run ./cmd/cairn", "cairn")
	command = strings.ReplaceAll(command, "./cairn ", "cairn ")
	ctx, cancel := context.WithTimeout(s.t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", command)
	cmd.Dir, cmd.Env = s.dir, s.env
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		s.t.Errorf("$ %s: did not end within three minutes", command)
	}
	text := strings.TrimRight(strings.ReplaceAll(string(out), s.addr, shown), "\n")
	if text == "" && err == nil {
		return nil
	}
	lines := strings.Split(text, "\n")
	if err != nil && text == "" {
		lines = []string{err.Error()}
	}
	return lines
}
