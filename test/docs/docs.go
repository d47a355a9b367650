// Package docs keeps the documentation true.
//
// It owns the reading of Markdown pages into the blocks of commands they show,
// and the comparison of what a page says a command prints with what it prints.
// Its tests promise that every block marked "console" was run, in order, page
// by page, against a server of its own, that commands and flags in every block
// exist, and that links inside the repository lead somewhere. It does not run
// blocks marked otherwise, and does not judge prose.
//
//	go test ./test/docs            # check
//	go test ./test/docs -update    # write what commands print into the pages
package docs

import (
	"regexp"
	"strings"
)

// A Block is a fenced block of a page.
type Block struct {
	Kind  string // what stands behind the opening fence
	Line  int    // of the opening fence, from 1
	Lines []string
}

// A Step is one command of a console block and what it prints, as the page
// says it.
type Step struct {
	Line    int // of the command, from 1
	Command string
	Output  []string
}

// Blocks finds the fenced blocks of a page.
func Blocks(page string) []Block {
	var out []Block
	open := false
	for i, line := range strings.Split(page, "\n") {
		fence, isFence := strings.CutPrefix(line, "```")
		switch {
		case isFence && !open:
			out = append(out, Block{Kind: strings.TrimSpace(fence), Line: i + 1})
			open = true
		case isFence:
			open = false
		case open:
			b := &out[len(out)-1]
			b.Lines = append(b.Lines, line)
		}
	}
	return out
}

// Steps reads a console block: "$ " begins a command, which goes on over lines
// that end in a backslash or a here-document; the rest is output.
func (b Block) Steps() []Step {
	var out []Step
	end := "" // of a here-document
	more := false
	for i, line := range b.Lines {
		command, isCommand := strings.CutPrefix(line, "$ ")
		switch {
		case more || end != "":
			s := &out[len(out)-1]
			s.Command += "\n" + line
			if strings.TrimSpace(line) == end {
				end = ""
			}
			more = end == "" && strings.HasSuffix(line, "\\")
			if m := hereDocument.FindStringSubmatch(line); end == "" && m != nil {
				end = m[1]
			}
		case isCommand:
			out = append(out, Step{Line: b.Line + i + 1, Command: command})
			more = strings.HasSuffix(command, "\\")
			if m := hereDocument.FindStringSubmatch(command); m != nil {
				end = m[1]
			}
		case len(out) > 0:
			s := &out[len(out)-1]
			s.Output = append(s.Output, line)
		}
	}
	return out
}

var hereDocument = regexp.MustCompile(`<<'?([A-Za-z]+)'?`)

// Same compares what a page says with what was printed. In the page a line of
// three dots stands for any lines, and what differs from run to run (digests,
// times, durations, sizes, ports, progress, the width of columns) does not
// count.
func Same(page, printed []string) bool {
	return match(normal(page), normal(printed))
}

func match(want, got []string) bool {
	for len(want) > 0 {
		if want[0] == "..." || want[0] == "…" {
			for skip := 0; skip <= len(got); skip++ {
				if match(want[1:], got[skip:]) {
					return true
				}
			}
			return false
		}
		if len(got) == 0 || want[0] != got[0] {
			return false
		}
		want, got = want[1:], got[1:]
	}
	return len(got) == 0
}

// normal makes two runs look alike.
func normal(lines []string) []string {
	var out []string
	for _, line := range lines {
		for _, n := range varying() {
			line = n.from.ReplaceAllString(line, n.to)
		}
		line = strings.Join(strings.Fields(line), " ")
		if strings.HasPrefix(line, "… ") {
			continue // a progress line, which only a slow machine prints
		}
		out = append(out, line)
	}
	for len(out) > 0 && out[len(out)-1] == "" {
		out = out[:len(out)-1]
	}
	return out
}

type rule struct {
	from *regexp.Regexp
	to   string
}

// varying is what differs from run to run, in this order.
func varying() []rule {
	r := func(from, to string) rule { return rule{regexp.MustCompile(from), to} }
	return []rule{
		r(`sha(256|512):[0-9a-f]{6,128}…?`, "sha$1:DIGEST"),
		r(`\b0[0-9a-v]{23}\b`, "RUN"),
		r(`([a-z])-[0-9a-v]{5}\b`, "$1-SUFFIX"), // of a run's name
		r(`\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?( ?Z| ?UTC|[+-]\d\d:\d\d)?`, "TIME"),
		r(`\b\d{4}-\d\d-\d\d\b`, "DATE"),
		r(`\b(127\.0\.0\.1|localhost):\d+`, "ADDRESS"),
		r(`\b\d+(\.\d+)?(ns|µs|ms|s|m|h|d)( ?\d+(\.\d+)?(ms|s|m|h))*\b`, "DURATION"),
		r(`\b\d+(\.\d+)? ?([KMG]i?B|B|bytes)\b`, "SIZE"),
		r(`cairn_[A-Za-z0-9_-]{16,}`, "SECRET"),
		r(`─+|-{3,}|═+`, "---"),
	}
}

// Rewrite puts printed output into a page in place of that of the steps, which
// must be in the order of the page.
func Rewrite(page string, steps []Step, printed [][]string) string {
	lines := strings.Split(page, "\n")
	for i := len(steps) - 1; i >= 0; i-- {
		s := steps[i]
		from := s.Line + strings.Count(s.Command, "\n") // index of the line after the command
		to := from + len(s.Output)
		lines = append(lines[:from:from], append(append([]string(nil), printed[i]...), lines[to:]...)...)
	}
	return strings.Join(lines, "\n")
}
