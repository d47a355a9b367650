package scan

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"cairn.dev/cairn/internal/code"
)

// surround is how many unchanged lines are shown around changed ones.
const surround = 3

// Diff draws the splices of a tree as a unified diff that patch and git apply
// take. Lines keep their endings, a carriage return included.
func Diff(t *code.Tree, splices []code.Splice) (string, error) {
	by := map[string][]code.Splice{}
	for _, s := range splices {
		by[s.File] = append(by[s.File], s)
	}
	var names []string
	for name := range by {
		names = append(names, name)
	}
	slices.Sort(names)
	after, err := t.With(splices)
	if err != nil {
		return "", fmt.Errorf("diff: %w", err)
	}
	var b strings.Builder
	for _, name := range names {
		was, err := t.Read(name)
		if err != nil {
			return "", fmt.Errorf("diff: %w", err)
		}
		is, err := after.Read(name)
		if err != nil {
			return "", fmt.Errorf("diff: %w", err)
		}
		if hunks := hunksOf(lines(was.Data), lines(is.Data), edits(was.Data, by[name])); len(hunks) > 0 {
			fmt.Fprintf(&b, "--- a/%s\n+++ b/%s\n", name, name)
			for _, h := range hunks {
				b.WriteString(h)
			}
		}
	}
	return b.String(), nil
}

// lines cuts data behind each newline.
func lines(data []byte) []string {
	var list []string
	for l := range bytes.Lines(data) {
		list = append(list, string(l))
	}
	return list
}

// An edit is a run of lines, [from, to), that becomes more or fewer lines.
type edit struct {
	from, to int
	more     int // how many lines more it becomes
}

// edits are the lines that the splices touch; those that touch or follow one
// another are one.
func edits(data []byte, splices []code.Splice) []edit {
	splices = slices.Clone(splices)
	slices.SortFunc(splices, func(a, b code.Splice) int { return a.Start - b.Start })
	lineOf := func(offset int) int { return bytes.Count(data[:offset], []byte("\n")) }
	var list []edit
	for _, s := range splices {
		e := edit{from: lineOf(s.Start), to: lineOf(s.End) + 1}
		e.more = strings.Count(s.New, "\n") - bytes.Count(data[s.Start:s.End], []byte("\n"))
		if n := len(list); n > 0 && e.from <= list[n-1].to {
			list[n-1].to = max(list[n-1].to, e.to)
			list[n-1].more += e.more
			continue
		}
		list = append(list, e)
	}
	return list
}

// hunksOf draws the edits of a file.
func hunksOf(was, is []string, list []edit) []string {
	var hunks []string
	moved := 0 // how many lines more there are in is, up to here
	for i := 0; i < len(list); {
		last := i
		for last+1 < len(list) && list[last+1].from-list[last].to <= 2*surround {
			last++
		}
		var b strings.Builder
		from := max(list[i].from-surround, 0)
		to := min(list[last].to+surround, len(was))
		// Counted, because a last line without its end makes lines come and go.
		at, shift, gone, come, differs := from, moved, 0, 0, false
		for _, e := range list[i : last+1] {
			for ; at < e.from; at++ {
				line(&b, ' ', was[at])
			}
			oldTo := min(e.to, len(was))
			before, now := was[e.from:oldTo], is[e.from+shift:min(e.to+shift+e.more, len(is))]
			differs = differs || !slices.Equal(before, now)
			for _, l := range before {
				line(&b, '-', l)
			}
			for _, l := range now {
				line(&b, '+', l)
			}
			at, shift = oldTo, shift+e.more
			gone, come = gone+len(before), come+len(now)
		}
		for ; at < to; at++ {
			line(&b, ' ', was[at])
		}
		if differs {
			hunks = append(hunks, fmt.Sprintf("@@ -%s +%s @@\n", span(from, to-from), span(from+moved, to-from-gone+come))+b.String())
		}
		moved, i = shift, last+1
	}
	return hunks
}

// span is how a diff says which lines it is about.
func span(from, n int) string {
	switch n {
	case 0:
		return fmt.Sprintf("%d,0", from)
	case 1:
		return fmt.Sprintf("%d", from+1)
	}
	return fmt.Sprintf("%d,%d", from+1, n)
}

func line(b *strings.Builder, sign byte, l string) {
	b.WriteByte(sign)
	b.WriteString(l)
	if !strings.HasSuffix(l, "\n") {
		b.WriteString("\n\\ No newline at end of file\n")
	}
}
