package scan

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/code"
	"cairn.dev/cairn/internal/terraform"
)

var update = flag.Bool("update", false, "write what was found into the corpus; read the difference before it is committed")

// TestCorpus reads and changes the small trees of testdata/corpus. Each file is
// one tree, in sections that begin with a line "-- NAME --": files of the tree
// and, at the end,
//
//	-- want --            each image: ID = VALUE, or ID ! WHY NOT; then where
//	                      the sink stands and the chain to the literal
//	-- problems --        a part of each problem; none without the section
//	-- bump --            changes, each one or more lines ID -> REFERENCE
//	                      (the end of an ID is enough) followed by what is to
//	                      come of them, indented: lines of the changed files
//	                      (file:line:the whole line), "also ID" of images that
//	                      move along, or "! REASON" of a refusal
//
// All bytes but those of the lines that a bump names must stay. After its
// name, a section may have crlf, bom or noeol, which change its bytes. Above
// the first section stands what the tree is about, and perhaps
// "environment: NAME FILE…" and "sink: TYPE PATH".
func TestCorpus(t *testing.T) {
	files, err := filepath.Glob("testdata/corpus/*.txtar")
	if err != nil || len(files) < 150 {
		t.Fatalf("the corpus has %d trees, it should have 150 (%v)", len(files), err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) { specimen(t, name) })
	}
}

func specimen(t *testing.T, name string) {
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	c := parseSpecimen(t, string(data))
	tree, err := code.NewTree(c.files)
	if err != nil {
		t.Fatal(err)
	}
	reader := &terraform.Reader{}
	before, err := reader.Read(t.Context(), tree, c.options)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, i := range before.Images {
		fmt.Fprintln(&got, describe(i))
	}
	if *update && agrees(got.String(), c.want) {
		text := replaceSection(string(data), "want", got.String())
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if *update && !agrees(got.String(), c.want) || !*update && got.String() != c.want {
		t.Errorf("found\n%swant\n%s", got.String(), c.want)
	}
	matchProblems(t, before.Problems, c.problems)
	for _, b := range c.bumps {
		b.check(t, reader, tree, before, c.options)
	}
}

// agrees reports whether what was found is what somebody wrote down before:
// ID and value, or a part of why not. Only the places and the chain behind
// them are filled in by -update.
func agrees(got, want string) bool {
	g, w := strings.Split(strings.TrimSpace(got), "\n"), strings.Split(strings.TrimSpace(want), "\n")
	return slices.EqualFunc(g, w, func(g, w string) bool {
		g, _, _ = strings.Cut(g, " @ ")
		w, _, _ = strings.Cut(w, " @ ")
		gid, gwhy, fixed := strings.Cut(g, " ! ")
		wid, wwhy, wfixed := strings.Cut(w, " ! ")
		return gid == wid && fixed == wfixed && strings.Contains(gwhy, wwhy)
	})
}

func describe(i code.Image) string {
	s := i.ID + " = " + i.Value
	if i.Value == "" {
		s = i.ID
	}
	if i.Chart {
		s += " (chart)"
	}
	if i.Policy != "" {
		s += " (" + i.Policy + ")"
	}
	if i.Fixed != "" {
		s += " ! " + i.Fixed
	}
	s += " @ " + i.Place.String()
	for _, step := range i.Chain[1:] {
		s += " <- " + step.Name + " " + step.Place.String()
	}
	return s
}

func matchProblems(t *testing.T, got []code.Problem, want []string) {
	t.Helper()
	for i, p := range got {
		text := fmt.Sprintf("%s: %s", p.Place, p.Text)
		if i >= len(want) || !strings.Contains(text, want[i]) {
			t.Errorf("problem: %s", text)
		}
	}
	for _, w := range want[min(len(want), len(got)):] {
		t.Errorf("no problem with %q", w)
	}
}

// A testBump is one change and what is to come of it.
type testBump struct {
	wants  []code.Want
	lines  map[string]map[int]string // file -> line -> what it is to be
	also   []string
	refuse string
}

func (b testBump) check(t *testing.T, reader *terraform.Reader, tree *code.Tree, before *code.Result, o code.Options) {
	t.Helper()
	var wants []code.Want
	for _, w := range b.wants {
		wants = append(wants, code.Want{Image: complete(t, before, w.Image), To: w.To})
	}
	read := func(tree *code.Tree) (*code.Result, error) { return reader.Read(t.Context(), tree, o) }
	got, err := Change(t.Context(), read, tree, before, wants)
	if b.refuse != "" {
		var no *code.RefusedError
		if !errors.As(err, &no) || !strings.Contains(no.Reason, b.refuse) {
			t.Errorf("%v: got %v (%v), want a refusal with %q", wants, got.Splices, err, b.refuse)
		}
		return
	}
	if err != nil {
		t.Errorf("%v: %v", wants, err)
		return
	}
	changed, err := tree.With(got.Splices)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range tree.Paths() {
		old, err := tree.Read(p)
		if err != nil || old.Path != p {
			continue
		}
		now, _ := changed.Read(p)
		if want := withLines(old.Data, b.lines[p]); !bytes.Equal(now.Data, want) {
			t.Errorf("%v: %s is\n%s\nwant\n%s", wants, p, now.Data, want)
		}
	}
	var also, moved []string
	for _, id := range b.also {
		also = append(also, complete(t, before, id))
	}
	for _, e := range got.Effects {
		if !slices.ContainsFunc(wants, func(w code.Want) bool { return w.Image == e.Image }) {
			moved = append(moved, e.Image)
		}
	}
	slices.Sort(also)
	if !slices.Equal(also, moved) {
		t.Errorf("%v: also moved %q, want %q", wants, moved, also)
	}
}

// complete finds the image whose ID ends so.
func complete(t *testing.T, res *code.Result, end string) string {
	t.Helper()
	var found []string
	for _, i := range res.Images {
		if i.ID == end {
			return end
		}
		if strings.HasSuffix(i.ID, end) {
			found = append(found, i.ID)
		}
	}
	if len(found) != 1 {
		t.Errorf("%d images end in %q: %q", len(found), end, found)
		return end
	}
	return found[0]
}

// withLines replaces lines and keeps how they end.
func withLines(data []byte, lines map[int]string) []byte {
	var out bytes.Buffer
	n := 0
	for line := range bytes.Lines(data) {
		n++
		text, ok := lines[n]
		if !ok {
			out.Write(line)
			continue
		}
		if n == 1 && bytes.HasPrefix(line, []byte(bom)) {
			out.WriteString(bom)
		}
		out.WriteString(text)
		out.Write(line[len(bytes.TrimRight(line, "\r\n")):])
	}
	return out.Bytes()
}

const bom = "\ufeff"

// A testTree is one file of the corpus.
type testTree struct {
	files    []code.File
	options  code.Options
	want     string
	problems []string
	bumps    []testBump
}

func parseSpecimen(t *testing.T, text string) testTree {
	t.Helper()
	var c testTree
	head, sections := sections(text)
	for line := range strings.Lines(head) {
		f := strings.Fields(line)
		switch {
		case len(f) > 2 && f[0] == "environment:":
			if c.options.Environments == nil {
				c.options.Environments = map[string][]string{}
			}
			c.options.Environments[f[1]] = f[2:]
		case len(f) == 3 && f[0] == "sink:":
			c.options.Sinks = append(c.options.Sinks, code.Sink{Type: f[1], Path: f[2]})
		}
	}
	for _, s := range sections {
		f := strings.Fields(s.name)
		switch {
		case s.name == "want":
			c.want = s.body
		case s.name == "problems":
			c.problems = strings.Split(strings.TrimSuffix(s.body, "\n"), "\n")
		case s.name == "bump":
			c.bumps = parseBumps(t, s.body)
		case len(f) == 3 && f[1] == "->":
			c.files = append(c.files, code.File{Path: f[0], Link: f[2]})
		default:
			c.files = append(c.files, code.File{Path: f[0], Data: bent(s.body, f[1:])})
		}
	}
	return c
}

// bent is the text with the ends of lines, the mark at its start, and the end
// that its section asks for.
func bent(text string, how []string) []byte {
	for _, h := range how {
		switch h {
		case "crlf":
			text = strings.ReplaceAll(text, "\n", "\r\n")
		case "bom":
			text = bom + text
		case "noeol":
			text = strings.TrimRight(text, "\r\n")
		}
	}
	return []byte(text)
}

type section struct{ name, body string }

func sections(text string) (head string, list []section) {
	for line := range strings.Lines(text) {
		name, is := strings.CutPrefix(line, "-- ")
		if name, end := strings.CutSuffix(strings.TrimRight(name, "\n"), " --"); is && end {
			list = append(list, section{name: name})
			continue
		}
		if len(list) == 0 {
			head += line
			continue
		}
		list[len(list)-1].body += line
	}
	return head, list
}

func replaceSection(text, name, body string) string {
	head, list := sections(text)
	if !slices.ContainsFunc(list, func(s section) bool { return s.name == name }) {
		at := slices.IndexFunc(list, func(s section) bool { return s.name == "problems" || s.name == "bump" })
		if at < 0 {
			at = len(list)
		}
		list = slices.Insert(list, at, section{name: name})
	}
	out := head
	for _, s := range list {
		if s.name == name {
			s.body = body
		}
		out += "-- " + s.name + " --\n" + s.body
	}
	return out
}

func parseBumps(t *testing.T, text string) []testBump {
	t.Helper()
	var list []testBump
	done := true
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		inner, indented := strings.CutPrefix(line, "  ")
		if line == "" {
			continue
		}
		if !indented {
			if done {
				list = append(list, testBump{lines: map[string]map[int]string{}})
				done = false
			}
			id, to, ok := strings.Cut(line, " -> ")
			if !ok {
				t.Fatalf("a bump reads %q", line)
			}
			b := &list[len(list)-1]
			b.wants = append(b.wants, code.Want{Image: id, To: to})
			continue
		}
		done = true
		b := &list[len(list)-1]
		if why, ok := strings.CutPrefix(inner, "! "); ok {
			b.refuse = why
			continue
		}
		if id, ok := strings.CutPrefix(inner, "also "); ok {
			b.also = append(b.also, id)
			continue
		}
		f := strings.SplitN(inner, ":", 3)
		n, err := strconv.Atoi(f[min(1, len(f)-1)])
		if len(f) != 3 || err != nil {
			t.Fatalf("what comes of a bump reads %q", line)
		}
		if b.lines[f[0]] == nil {
			b.lines[f[0]] = map[int]string{}
		}
		b.lines[f[0]][n] = f[2]
	}
	return list
}
