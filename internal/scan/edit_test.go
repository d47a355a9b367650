package scan

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/code"
)

// toy reads a language that has what makes editing hard and nothing else.
// Each line is one of
//
//	let NAME "TEXT"          a literal
//	image ID EXPRESSION      words put together: $NAME, or a literal in quotes
//	number ID REPO TAG       TAG as YAML has it: 1.10 is 1.1, unless quoted
//	fixed ID REASON
//	only NAME "TEXT"         it is a problem if NAME says something else
type toy struct{ reads int }

var (
	toyLine = regexp.MustCompile(`^(?:let (\w+) "([^"]*)"|image (\w+) (.*)|number (\w+) (\w+) ("?)([^"\s]+)("?)|fixed (\w+) (.+)|only (\w+) "([^"]*)"|#.*|)\r?$`)
	toyWord = regexp.MustCompile(`\$\w+|"[^"]*"`)
)

func (y *toy) read(t *code.Tree) (*code.Result, error) {
	y.reads++
	f, err := t.Read("f")
	if err != nil {
		return nil, err
	}
	res := &code.Result{}
	lets := map[string]code.Range{}
	text := func(r code.Range) string { return string(f.Data[r.Start:r.End]) }
	at := 0
	for line := range strings.Lines(string(f.Data)) {
		m := toyLine.FindStringSubmatchIndex(strings.TrimSuffix(line, "\n"))
		group := func(i int) code.Range { return code.Range{File: "f", Start: at + m[2*i], End: at + m[2*i+1]} }
		switch {
		case m == nil:
			res.Problems = append(res.Problems, code.Problem{Place: code.PlaceOf(f, at), Text: "what is this?"})
		case m[2] >= 0:
			lets[text(group(1))] = group(2)
		case m[6] >= 0:
			img := code.Image{ID: text(group(3))}
			words := group(4)
			for _, w := range toyWord.FindAllStringIndex(text(words), -1) {
				r := code.Range{File: "f", Start: words.Start + w[0] + 1, End: words.Start + w[1]}
				if f.Data[r.Start-1] == '"' {
					r.End--
				} else if r = lets[text(r)]; r.File == "" {
					continue
				}
				img.Value += text(r)
				img.Sources = append(img.Sources, r)
			}
			res.Images = append(res.Images, img)
		case m[10] >= 0:
			tag := text(group(8))
			if n, err := strconv.ParseFloat(tag, 64); err == nil && text(group(7)) == "" {
				tag = strconv.FormatFloat(n, 'f', -1, 64)
			}
			res.Images = append(res.Images, code.Image{ID: text(group(5)), Value: text(group(6)) + ":" + tag, Sources: []code.Range{group(8)}})
		case m[20] >= 0:
			res.Images = append(res.Images, code.Image{ID: text(group(10)), Value: "a:1", Fixed: text(group(11))})
		case m[24] >= 0:
			if r := lets[text(group(12))]; r.File == "" || text(r) != text(group(13)) {
				res.Problems = append(res.Problems, code.Problem{Place: code.PlaceOf(f, at), Text: "it must be " + text(group(13))})
			}
		}
		at += len(line)
	}
	slices.SortStableFunc(res.Images, func(a, b code.Image) int { return strings.Compare(a.ID, b.ID) })
	return res, nil
}

func toyTree(t testing.TB, text string) *code.Tree {
	t.Helper()
	tree, err := code.NewTree([]code.File{{Path: "f", Data: []byte(text)}})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

var (
	digestA = "sha256:" + strings.Repeat("a", 64)
	digestB = "sha256:" + strings.Repeat("b", 64)
)

func TestChange(t *testing.T) {
	for _, c := range []struct {
		name, text string
		wants      string // "ID=TO ID=TO"
		want       string // the new text, or
		refusal    string // a part of the reason
		effects    string
	}{
		{name: "a whole reference", text: "image a \"nginx:1.2\"\n", wants: "a=nginx:1.3", want: "image a \"nginx:1.3\"\n", effects: "a"},
		{name: "already there", text: "image a \"nginx:1.2\"\n", wants: "a=nginx:1.2", want: "image a \"nginx:1.2\"\n"},
		{name: "only this one of two", text: "image a \"nginx:1.2\"\nimage b \"nginx:1.2\"\n", wants: "b=nginx:1.3", want: "image a \"nginx:1.2\"\nimage b \"nginx:1.3\"\n", effects: "b"},
		{name: "CRLF and comments stay", text: "# 1.2\r\nimage a \"nginx:1.2\"\r\n# x\t1.2\r\n", wants: "a=nginx:1.3", want: "# 1.2\r\nimage a \"nginx:1.3\"\r\n# x\t1.2\r\n", effects: "a"},
		{name: "the tag by itself", text: "let v \"1.2\"\nimage a \"nginx:\" $v\n", wants: "a=nginx:1.3", want: "let v \"1.3\"\nimage a \"nginx:\" $v\n", effects: "a"},
		{name: "a tag that is in the name", text: "image a \"host1.2/x1.2:1.2\"\n", wants: "a=host1.2/x1.2:1.3", want: "image a \"host1.2/x1.2:1.3\"\n", effects: "a"},
		{name: "a tag that is the name", text: "let n \"latest\"\nlet v \"latest\"\nimage a $n \":\" $v\n", wants: "a=latest:1", want: "let n \"latest\"\nlet v \"1\"\nimage a $n \":\" $v\n", effects: "a"},
		{name: "a piece of the tag", text: "let v \"1.2\"\nimage a \"nginx:v\" $v \"-alpine\"\n", wants: "a=nginx:v1.3-alpine", want: "let v \"1.3\"\nimage a \"nginx:v\" $v \"-alpine\"\n", effects: "a"},
		{name: "minor only", text: "let major \"1\"\nlet minor \"2\"\nimage a \"nginx:\" $major \".\" $minor\n", wants: "a=nginx:1.3", want: "let major \"1\"\nlet minor \"3\"\nimage a \"nginx:\" $major \".\" $minor\n", effects: "a"},
		{name: "both pieces", text: "let major \"1\"\nlet minor \"2\"\nimage a \"nginx:\" $major \".\" $minor\n", wants: "a=nginx:2.0", refusal: "put together by an expression"},
		{name: "shared by the same repository", text: "let v \"1.2\"\nimage a \"x:\" $v\nimage b \"docker.io/library/x:\" $v\n", wants: "a=x:1.3", want: "let v \"1.3\"\nimage a \"x:\" $v\nimage b \"docker.io/library/x:\" $v\n", effects: "a b"},
		{name: "shared by another repository", text: "let v \"1.2\"\nimage a \"x:\" $v\nimage b \"y:\" $v\n", wants: "a=x:1.3", refusal: "also changes b, which is another image (y:1.2): split the variable"},
		{name: "shared, and both are wanted", text: "let v \"1.2\"\nimage a \"x:\" $v\nimage b \"y:\" $v\n", wants: "a=x:1.3 b=y:1.3", want: "let v \"1.3\"\nimage a \"x:\" $v\nimage b \"y:\" $v\n", effects: "a b"},
		{name: "shared, wanted apart", text: "let v \"1.2\"\nimage a \"x:\" $v\nimage b \"x:\" $v\n", wants: "a=x:1.3 b=x:1.4", refusal: "share a literal"},
		{name: "shared with a flavour that nobody chose", text: "let v \"1.2\"\nimage a \"x:\" $v\nimage b \"x:\" $v \"-alpine\"\n", wants: "a=x:1.3", refusal: "from x:1.2-alpine to x:1.3-alpine, which nobody chose"},
		{name: "shared with what is to stay", text: "let v \"1.2\"\nimage a \"x:\" $v\nimage b \"x:\" $v\n", wants: "a=x:1.3 b=x:1.2", refusal: "which is to be x:1.2"},
		{name: "the literal that moves fewest", text: "let v \"1.2\"\nlet over \"1.2\"\nimage a $none \"x:\" $over\nimage b \"x:\" $v\n", wants: "a=x:1.3", want: "let v \"1.2\"\nlet over \"1.3\"\nimage a $none \"x:\" $over\nimage b \"x:\" $v\n", effects: "a"},
		{name: "tag and digest in one", text: "image a \"x:1.2@" + digestA + "\"\n", wants: "a=x:1.3@" + digestB, want: "image a \"x:1.3@" + digestB + "\"\n", effects: "a"},
		{name: "tag and digest apart", text: "let v \"1.2\"\nlet d \"" + digestA + "\"\nimage a \"x:\" $v \"@\" $d\n", wants: "a=x:1.3@" + digestB, want: "let v \"1.3\"\nlet d \"" + digestB + "\"\nimage a \"x:\" $v \"@\" $d\n", effects: "a"},
		{name: "the digest only", text: "let v \"1.2\"\nlet d \"" + digestA + "\"\nimage a \"x:\" $v \"@\" $d\n", wants: "a=x:1.2@" + digestB, want: "let v \"1.2\"\nlet d \"" + digestB + "\"\nimage a \"x:\" $v \"@\" $d\n", effects: "a"},
		{name: "pinned", text: "image a \"x:1.2\"\n", wants: "a=x:1.3@" + digestB, want: "image a \"x:1.3@" + digestB + "\"\n", effects: "a"},
		{name: "no longer pinned", text: "image a \"x:1.2@" + digestA + "\"\n", wants: "a=x:1.3", want: "image a \"x:1.3\"\n", effects: "a"},
		{name: "a tag for none", text: "image a \"reg.example/x\"\n", wants: "a=reg.example/x:1", want: "image a \"reg.example/x:1\"\n", effects: "a"},
		{name: "two places would do, and one moves fewer", text: "let p \"1\"\nlet q \".1\"\nimage a \"x:\" $p $q\nimage b \"x:\" $p \".1\"\n", wants: "a=x:1.1.1", want: "let p \"1\"\nlet q \".1.1\"\nimage a \"x:\" $p $q\nimage b \"x:\" $p \".1\"\n", effects: "a"},
		{name: "it would break the code", text: "let v \"1\"\nimage a \"x:\" $v\nonly v \"1\"\n", wants: "a=x:2", refusal: "would break the code: f:3: it must be 1"},
		{name: "a number that stays one", text: "number a x 17\n", wants: "a=x:18", want: "number a x 18\n", effects: "a"},
		{name: "a number that has to be quoted", text: "number a x 1.9\n", wants: "a=x:1.10", want: "number a x \"1.10\"\n", effects: "a"},
		{name: "a number in quotes", text: "number a x \"1.9\"\n", wants: "a=x:1.10", want: "number a x \"1.10\"\n", effects: "a"},
		{name: "another image", text: "image a \"x:1\"\n", wants: "a=y:1", refusal: "only tags and digests"},
		{name: "fixed", text: "fixed a var.tag has no default\n", wants: "a=a:2", refusal: "var.tag has no default"},
		{name: "not there", text: "\n", wants: "a=a:2", refusal: "no such image"},
		{name: "not a reference", text: "image a \"x:1\"\n", wants: "a=x:a+b", refusal: "what is wanted is not a reference"},
		{name: "wanted twice", text: "image a \"x:1\"\n", wants: "a=x:2 a=x:3", refusal: "want one of them"},
		{name: "wanted twice the same", text: "image a \"x:1\"\n", wants: "a=x:2 a=x:2", want: "image a \"x:2\"\n", effects: "a"},
		{name: "many in one change", text: "image a \"x:1\"\nimage b \"y:1\"\nimage c \"z:1\"\n", wants: "a=x:2 c=z:22222222", want: "image a \"x:2\"\nimage b \"y:1\"\nimage c \"z:22222222\"\n", effects: "a c"},
		{name: "one of many is refused", text: "image a \"x:1\"\nfixed b never\n", wants: "a=x:2 b=a:2", refusal: "never"},
		{name: "no literal", text: "image a $none\n", wants: "a=a:2", refusal: "is not a reference"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tree := toyTree(t, c.text)
			y := &toy{}
			before, _ := y.read(tree)
			var wants []code.Want
			for _, w := range strings.Fields(c.wants) {
				id, to, _ := strings.Cut(w, "=")
				wants = append(wants, code.Want{Image: id, To: to})
			}
			got, err := Change(t.Context(), y.read, tree, before, wants)
			if c.refusal != "" {
				var no *code.RefusedError
				if !errors.As(err, &no) || !strings.Contains(err.Error(), c.refusal) {
					t.Fatalf("got %v, %v, want a refusal with %q", got, err, c.refusal)
				}
				if len(got.Splices) != 0 {
					t.Error("a refusal came with a change")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			after, err := tree.With(got.Splices)
			if err != nil {
				t.Fatal(err)
			}
			if f, _ := after.Read("f"); string(f.Data) != c.want {
				t.Errorf("got\n%s\nwant\n%s", f.Data, c.want)
			}
			var moved []string
			for _, x := range got.Effects {
				moved = append(moved, x.Image)
			}
			if s := strings.Join(moved, " "); s != c.effects {
				t.Errorf("moved %q, want %q", s, c.effects)
			}
		})
	}
}

func TestChangeReadsOnceWhenTheBestGuessIsRight(t *testing.T) {
	var text strings.Builder
	var wants []code.Want
	for i := range 200 {
		fmt.Fprintf(&text, "image i%03d \"x%d:1.2\"\n", i, i)
		wants = append(wants, code.Want{Image: fmt.Sprintf("i%03d", i), To: fmt.Sprintf("x%d:1.3", i)})
	}
	tree, y := toyTree(t, text.String()), &toy{}
	before, _ := y.read(tree)
	y.reads = 0
	if _, err := Change(t.Context(), y.read, tree, before, wants); err != nil || y.reads != 1 {
		t.Errorf("read %d times (%v), want once for 200 images", y.reads, err)
	}
}

func TestChangeIsBounded(t *testing.T) {
	// A reader whose image never becomes what is wanted.
	tree := toyTree(t, strings.Repeat("1.2 ", 10_000))
	res := &code.Result{Images: []code.Image{{ID: "a", Value: "x:1.2", Sources: []code.Range{{File: "f", End: 40_000}}}}}
	reads := 0
	_, err := Change(t.Context(), func(*code.Tree) (*code.Result, error) { reads++; return res, nil }, tree, res, []code.Want{{Image: "a", To: "x:1.3"}})
	var no *code.RefusedError
	if !errors.As(err, &no) || reads > maxTries+1 {
		t.Errorf("%d reads: %v", reads, err)
	}
}

func TestChangeEndsWithItsContext(t *testing.T) {
	tree, y := toyTree(t, "image a \"x:1\"\n"), &toy{}
	before, _ := y.read(tree)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Change(ctx, y.read, tree, before, []code.Want{{Image: "a", To: "x:2"}}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// Whatever the code says, a change is right or there is none.
func FuzzChange(f *testing.F) {
	f.Add("let v \"1.2\"\nimage a \"x:\" $v\nimage b \"y:\" $v \"-alpine\"\nnumber c z 1.9\n", "1.3")
	f.Fuzz(func(t *testing.T, text, tag string) {
		tree, y := toyTree(t, text), &toy{}
		before, _ := y.read(tree)
		for i := 1; i < len(before.Images); i++ {
			if before.Images[i].ID == before.Images[i-1].ID {
				return
			}
		}
		for _, img := range before.Images {
			ref, err := code.ParseReference(img.Value)
			if err != nil {
				continue
			}
			ref.Tag = tag
			got, err := Change(t.Context(), y.read, tree, before, []code.Want{{Image: img.ID, To: ref.String()}})
			if err != nil {
				var no *code.RefusedError
				if !errors.As(err, &no) {
					t.Fatal(err)
				}
				continue
			}
			changed, err := tree.With(got.Splices)
			if err != nil {
				t.Fatal(err)
			}
			after, _ := y.read(changed)
			i := slices.IndexFunc(after.Images, func(x code.Image) bool { return x.ID == img.ID })
			if i < 0 || after.Images[i].Value != ref.String() {
				t.Fatalf("%s is not %s after %v of %q", img.ID, ref, got.Splices, text)
			}
		}
	})
}
