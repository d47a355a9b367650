package scan

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/code"
)

func TestDiff(t *testing.T) {
	tree := treeOf(t, "a.tf", "one\r\ntwo\r\nimage = \"nginx:1\"\r\nfour\r\nfive\r\nsix\r\nseven\r\n", "b.yaml", "image: x:1")
	at := func(file, text, with string) code.Splice {
		f, _ := tree.Read(file)
		i := bytes.Index(f.Data, []byte(text))
		return code.Splice{Range: code.Range{File: file, Start: i, End: i + len(text)}, New: with}
	}
	got, err := Diff(tree, []code.Splice{at("b.yaml", "1", "2"), at("a.tf", "nginx:1", "nginx:2")})
	if err != nil {
		t.Fatal(err)
	}
	want := "--- a/a.tf\n+++ b/a.tf\n@@ -1,6 +1,6 @@\n one\r\n two\r\n-image = \"nginx:1\"\r\n+image = \"nginx:2\"\r\n four\r\n five\r\n six\r\n" +
		"--- a/b.yaml\n+++ b/b.yaml\n@@ -1 +1 @@\n-image: x:1\n\\ No newline at end of file\n+image: x:2\n\\ No newline at end of file\n"
	if got != want {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
	if got, err := Diff(tree, []code.Splice{at("b.yaml", "1", "1")}); err != nil || got != "" {
		t.Errorf("nothing changed: %q %v", got, err)
	}
	if _, err := Diff(tree, []code.Splice{{Range: code.Range{File: "b.yaml", Start: 3, End: 99}}}); err == nil {
		t.Error("a splice beyond the end was drawn")
	}
}

// A diff that is applied gives what the splices give, for thousands of files
// and splices made at random.
func TestDiffApplies(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	text := func(n int) string {
		var b strings.Builder
		for range n {
			b.WriteString([]string{"a", "b", "c", "\n", "\n"}[r.IntN(5)])
		}
		return b.String()
	}
	for i := range 5000 {
		data := text(r.IntN(80))
		tree := treeOf(t, "f", data)
		var splices []code.Splice
		for at := 0; at < len(data); {
			start := at + r.IntN(len(data)-at)
			end := start + r.IntN(min(len(data)-start, 6)+1)
			splices = append(splices, code.Splice{Range: code.Range{File: "f", Start: start, End: end}, New: text(r.IntN(4))})
			at = end + 1 + r.IntN(20)
		}
		after, err := tree.With(splices)
		if err != nil {
			t.Fatal(err)
		}
		want, _ := after.Read("f")
		diff, err := Diff(tree, splices)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := apply(data, diff); err != nil || got != string(want.Data) {
			t.Fatalf("%d: %v\n%q with %v becomes %q, want %q, by\n%s", i, err, data, splices, got, want.Data, diff)
		}
	}
}

var hunkRE = regexp.MustCompile(`^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@$`)

// apply is the plainest patch: it checks every line and every number.
func apply(data, diff string) (string, error) {
	if diff == "" {
		return data, nil
	}
	was := lines([]byte(data))
	var out []string
	at := 0
	rest := lines([]byte(diff))[2:]
	for len(rest) > 0 {
		m := hunkRE.FindStringSubmatch(strings.TrimSuffix(rest[0], "\n"))
		if m == nil {
			return "", fmt.Errorf("no hunk: %q", rest[0])
		}
		number := func(s string) int {
			if s == "" {
				return 1
			}
			n, _ := strconv.Atoi(s)
			return n
		}
		from, n, to, k := number(m[1]), number(m[2]), number(m[3]), number(m[4])
		if n > 0 {
			from--
		}
		if k > 0 {
			to--
		}
		for ; at < from; at++ {
			out = append(out, was[at])
		}
		if len(out) != to {
			return "", fmt.Errorf("hunk %q at line %d of what it becomes", rest[0], len(out))
		}
		rest = rest[1:]
		for n > 0 || k > 0 {
			sign, l := rest[0][0], rest[0][1:]
			rest = rest[1:]
			if len(rest) > 0 && rest[0][0] == '\\' {
				l, rest = strings.TrimSuffix(l, "\n"), rest[1:]
			}
			if sign != '+' {
				if was[at] != l {
					return "", fmt.Errorf("line %d is %q, the diff says %q", at+1, was[at], l)
				}
				at++
				n--
			}
			if sign != '-' {
				out = append(out, l)
				k--
			}
		}
	}
	return strings.Join(append(out, was[at:]...), ""), nil
}
