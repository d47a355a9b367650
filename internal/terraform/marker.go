package terraform

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"cairn.dev/cairn/internal/code"
)

// markers returns the images that comments name in a file of Terraform or of
// variables; see [code.MarkerComment]. A marker is about the literal on its
// line or, when it stands alone, on the next line that has anything: the tag,
// the digest, or the whole reference. It is called for files that have
// "cairn:" in their bytes; the literals are all those of the file, by where
// they start.
func markers(f code.File, literals []*literal) []code.Image {
	var images []code.Image
	count := map[string]int{}
	add := func(m code.MarkerComment, at int, line code.Range) {
		img := code.Image{Format: code.Marker, Dir: path.Dir(f.Path), Address: m.Image, Path: "marker", Place: code.PlaceOf(f, at), Policy: m.Policy}
		img.ID = "marker:" + f.Path + ":" + m.Image
		if count[m.Image]++; count[m.Image] > 1 {
			img.ID += fmt.Sprintf("#%d", count[m.Image])
		}
		img.Fixed = "the marker finds no tag, digest or reference of " + m.Image + " on its line: write it above the line with the tag, or at its end"
		if r, ok := marked(m, f.Data, line, literals); ok {
			img.Value, _ = m.Marked(string(f.Data[r.Start:r.End]))
			img.Fixed = ""
			img.Sources = []code.Range{r}
			img.Place = code.PlaceOf(f, r.Start)
		}
		img.Chain = []code.Step{{Name: "marker", Place: img.Place}}
		images = append(images, img)
	}
	var waiting *code.MarkerComment // it stood on a line of its own
	at, since := 0, 0
	for text := range strings.Lines(string(f.Data)) {
		line := code.Range{File: f.Path, Start: at, End: at + len(text)}
		at = line.End
		if m, ok := code.ParseMarker(text); ok {
			if waiting != nil {
				add(*waiting, since, code.Range{File: f.Path})
				waiting = nil
			}
			if strings.TrimSpace(m.Before) == "" {
				waiting, since = &m, line.Start
			} else {
				line.End = line.Start + len(m.Before)
				add(m, line.Start, line)
			}
			continue
		}
		if t := strings.TrimSpace(text); waiting == nil || t == "" || t[0] == '#' || strings.HasPrefix(t, "//") {
			continue
		}
		add(*waiting, since, line)
		waiting = nil
	}
	if waiting != nil {
		add(*waiting, since, code.Range{File: f.Path})
	}
	return images
}

// marked returns the bytes of the line that a marker is about: of its literals
// the last one that can be meant, a whole reference before a tag. A line of a
// longer text, such as YAML in a heredoc, is taken apart as YAML has it.
func marked(m code.MarkerComment, data []byte, line code.Range, literals []*literal) (code.Range, bool) {
	var best code.Range
	found, whole := false, false
	take := func(r code.Range) {
		text := string(data[r.Start:r.End])
		if _, ok := m.Marked(text); !ok {
			return
		}
		ref := strings.HasPrefix(text, m.Image)
		if !whole || ref {
			best, found, whole = r, true, ref
		}
	}
	for _, l := range literals {
		if l.Start >= line.End || l.End <= line.Start {
			continue
		}
		if l.Start >= line.Start && l.End <= line.End && !strings.Contains(string(data[l.Start:l.End]), "\n") {
			take(l.Range)
			continue
		}
		for _, r := range words(data, code.Range{File: l.File, Start: max(l.Start, line.Start), End: min(l.End, line.End)}) {
			take(r)
		}
	}
	return best, found
}

// words returns the stretches of bytes without spaces and quotes.
func words(data []byte, r code.Range) []code.Range {
	var list []code.Range
	for at := r.Start; at < r.End; {
		start := at
		for at < r.End && strings.IndexByte(" \t\r\n\"'`,", data[at]) < 0 {
			at++
		}
		if at > start {
			list = append(list, code.Range{File: r.File, Start: start, End: at})
		}
		at++
	}
	return list
}

// withMarkers puts what markers say to the images that were found. One that is
// about an image which was found anyway gives it its policy. One about
// something that is not known otherwise takes the place of what said so.
func withMarkers(images, marks []code.Image) []code.Image {
	for _, m := range marks {
		ref, err := code.ParseReference(m.Value)
		if err != nil || len(m.Sources) == 0 {
			images = append(images, m)
			continue
		}
		images = slices.DeleteFunc(images, func(i code.Image) bool { return i.Value == "" && slices.Contains(i.Sources, m.Sources[0]) })
		known := false
		for k, i := range images {
			r, err := code.ParseReference(i.Value)
			if err == nil && i.Format != code.Marker && beside(i, m) && r.Repository() == ref.Repository() {
				images[k].Policy, known = m.Policy, true
			}
		}
		if !known {
			images = append(images, m)
		}
	}
	return images
}

// beside reports whether an image comes from the bytes that a marker is about.
func beside(i, marker code.Image) bool {
	at := marker.Sources[0]
	return slices.ContainsFunc(i.Sources, func(r code.Range) bool {
		return r.File == at.File && r.Start < at.End && at.Start < r.End
	})
}
