package scan

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"cairn.dev/cairn/internal/code"
)

// maxPlaces bounds how many places of one part are looked at.
const maxPlaces = 64

// A part of a reference that has to become another text.
type part struct{ old, new string }

// partsOf returns what differs. A digest is its hex digits alone: some formats
// leave the algorithm out.
func partsOf(from, to code.Reference) ([]part, error) {
	var list []part
	switch {
	case from.Tag == "" && from.Digest == "":
		return []part{{from.Name, to.String()}}, nil
	case from.Digest == "" && to.Digest == "":
		return []part{{from.Tag, to.Tag}}, nil
	case from.Digest == "" && to.Tag != "":
		return []part{{from.Tag, to.Tag + "@" + string(to.Digest)}}, nil
	case from.Digest == "":
		return []part{{":" + from.Tag, "@" + string(to.Digest)}}, nil
	case to.Digest == "" && from.Tag != "":
		return []part{{from.Tag + "@" + string(from.Digest), to.Tag}}, nil
	case to.Digest == "":
		return []part{{"@" + string(from.Digest), ":" + to.Tag}}, nil
	case from.Tag == "" && to.Tag != "":
		return []part{{"@" + string(from.Digest), ":" + to.Tag + "@" + string(to.Digest)}}, nil
	case to.Tag == "" && from.Tag != "":
		return []part{{":" + from.Tag + "@" + string(from.Digest), "@" + string(to.Digest)}}, nil
	}
	if from.Tag != to.Tag {
		list = append(list, part{from.Tag, to.Tag})
	}
	if from.Digest != to.Digest {
		if from.Digest.Algorithm() != to.Digest.Algorithm() {
			list = append(list, part{string(from.Digest), string(to.Digest)})
		} else {
			list = append(list, part{from.Digest.Encoded(), to.Digest.Encoded()})
		}
	}
	if len(list) == 0 {
		return nil, errors.New("it differs in nothing that can be changed")
	}
	return list, nil
}

// A guess is splices that may make the image what is wanted: one for each part.
type guess struct {
	splices []code.Splice
	rank    int // lower is likelier
}

// Ranks of guesses. They decide what is tried first and, among guesses that
// move equally few images, what is taken.
const (
	rankBeside = iota // right behind the image's name
	rankWhole         // all of a literal
	rankWord          // a word within a literal
	rankPiece         // the literal is a piece of the tag
	rankWithin        // within a word
	rankQuoted        // a bare YAML scalar or number, put into quotes
)

// guesses are all that come into question, the likeliest first; there is at
// least one, or the error says why there is none.
func (e *editor) guesses(img *code.Image, name string, parts []part) ([]guess, error) {
	all := []guess{{}}
	for _, p := range parts {
		var places []guess
		seen := map[code.Splice]bool{}
		for _, src := range img.Sources {
			f, err := e.tree.Read(src.File)
			if err != nil || src.Start < 0 || src.End > len(f.Data) || src.Start > src.End {
				return nil, fmt.Errorf("image %s comes from bytes %d to %d of %s, which are not there: %w", img.ID, src.Start, src.End, src.File, cmp.Or(err, code.ErrNoFile))
			}
			for _, g := range placesIn(f.Data, src, name, p) {
				if s := g.splices[0]; !seen[s] {
					seen[s] = true
					places = append(places, g)
				}
			}
		}
		if len(places) == 0 {
			return nil, refused(img.ID, "%s", e.nowhere(img, p))
		}
		sortGuesses(places)
		places = places[:min(len(places), maxPlaces)]
		var both []guess
		for _, a := range all {
			for _, b := range places {
				if s, ok := unite(a.splices, b.splices); ok && len(s) == len(a.splices)+1 {
					both = append(both, guess{splices: s, rank: a.rank + b.rank})
				}
			}
		}
		all = both
	}
	if len(all) == 0 {
		return nil, refused(img.ID, "its tag and its digest come from the same bytes: write them apart")
	}
	sortGuesses(all)
	return all, nil
}

func sortGuesses(list []guess) {
	slices.SortStableFunc(list, func(a, b guess) int { return a.rank - b.rank })
}

// nowhere says why no literal can be changed.
func (e *editor) nowhere(img *code.Image, p part) string {
	if len(img.Sources) == 0 {
		return fmt.Sprintf("no literal in the repository says %q: write the tag down, or mark it with the comment # cairn: image=REPOSITORY", p.old)
	}
	return fmt.Sprintf("%q is not written in %s or any other literal it comes from, but put together by an expression: write it in one piece", p.old, e.at(img.Sources[0]))
}

// placesIn returns the guesses for a part within one literal.
func placesIn(data []byte, src code.Range, name string, p part) []guess {
	text := data[src.Start:src.End]
	var list []guess
	add := func(start, end int, s string, rank int) {
		list = append(list, guess{[]code.Splice{{Range: code.Range{File: src.File, Start: src.Start + start, End: src.Start + end}, New: s}}, rank})
	}
	for at := 0; len(list) < 2*maxPlaces; {
		i := bytes.Index(text[at:], []byte(p.old))
		if i < 0 {
			break
		}
		start, end := at+i, at+i+len(p.old)
		at = start + 1
		rank := rankWithin
		switch {
		case !bounded(text, start, end):
		case bytes.Contains(lastWord(text[:start]), []byte(name)):
			rank = rankBeside
		case start == 0 && end == len(text):
			rank = rankWhole
		default:
			rank = rankWord
		}
		add(start, end, p.new, rank)
		if rank <= rankWord && bare(data, src.Start+start, src.Start+end) {
			add(start, end, `"`+p.new+`"`, rankQuoted)
		}
	}
	if len(list) == 0 && len(text) > 0 && len(text) < len(p.old) {
		for _, s := range pieces(string(text), p) {
			add(0, len(text), s, rankPiece)
		}
	}
	return list
}

// bounded reports whether text[start:end] is not part of a longer word.
func bounded(text []byte, start, end int) bool {
	return (start == 0 || !wordByte(text[start-1])) && (end == len(text) || !wordByte(text[end]))
}

// lastWord is what stands before without a space or a quote in between.
func lastWord(text []byte) []byte {
	return text[bytes.LastIndexAny(text, " \t\r\n\"'")+1:]
}

// wordByte reports whether a tag may have c in it.
func wordByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '.' || c == '-'
}

// bare reports whether the bytes stand alone, as a number or a plain YAML
// scalar does: with a space or a line's end on both sides.
func bare(data []byte, start, end int) bool {
	return start > 0 && strings.IndexByte(" \t", data[start-1]) >= 0 && (end == len(data) || strings.IndexByte(" \t\r\n,}]#", data[end]) >= 0)
}

// pieces returns what a literal that is a piece of the old text would have to
// be, so that the new text comes out with everything around it unchanged:
// "1.2" of 1.2-alpine for 1.3-alpine.
func pieces(text string, p part) []string {
	var list []string
	for at := 0; ; {
		i := strings.Index(p.old[at:], text)
		if i < 0 {
			return list
		}
		before, after := p.old[:at+i], p.old[at+i+len(text):]
		if rest, ok := strings.CutPrefix(p.new, before); ok {
			if mid, ok := strings.CutSuffix(rest, after); ok && mid != text {
				list = append(list, mid)
			}
		}
		at += i + 1
	}
}
