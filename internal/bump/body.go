package bump

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"cairn.dev/cairn/internal/catalog"
	"cairn.dev/cairn/internal/code"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
)

// Bounds of what a pull request says. Forges take 65,536 characters; the block
// needs its share.
const (
	maxBody    = 40 << 10
	maxPlaces  = 30
	maxUsers   = 10
	maxPresent = 20 // platforms
)

// A Move is one target and what is known of it, for people.
type Move struct {
	Target
	Reason string // of the choice
	// Old and New are nil when the registry did not say.
	Old, New *catalog.Image
	// Images are the places that move, those that move along included.
	Images []code.Image
	// Users are who runs the old image now.
	Users []usage.Use
}

// title of a pull request, and the subject of its commit.
func title(r *Rules, g *Group, targets []Target) string {
	where := ""
	if _, dir, ok := strings.Cut(strings.TrimSuffix(g.Name, " (major)"), " in "); ok {
		where = " in " + dir
	}
	if len(targets) != 1 {
		repositories := map[string]bool{}
		for _, t := range targets {
			repositories[t.Repository] = true
		}
		if len(repositories) > 1 {
			return plainText(fmt.Sprintf("Bump %d images: %s", len(repositories), g.Name))
		}
	}
	t := targets[0]
	from, to := versions(t)
	return plainText(r.Subject(shortName(t.Repository), from, to) + where)
}

// versions are the two ends of a target as people say them: tags, or digests
// where the tag stays.
func versions(t Target) (from, to string) {
	a, errA := code.ParseReference(t.From)
	b, errB := code.ParseReference(t.To)
	if errA != nil || errB != nil {
		return t.From, t.To
	}
	if a.Tag == b.Tag || b.Tag == "" {
		tag := a.Tag
		if tag != "" {
			tag += " "
		}
		return tag + shortDigest(a.Digest), shortDigest(b.Digest)
	}
	return a.Tag, b.Tag
}

func shortDigest(d image.Digest) string {
	alg, hex, ok := strings.Cut(string(d), ":")
	if !ok || len(hex) < 12 {
		return "the image it names"
	}
	return alg + ":" + hex[:12]
}

// message of the commit.
func message(r *Rules, g *Group, targets []Target) string {
	var b strings.Builder
	b.WriteString(title(r, g, targets) + "\n\n")
	for i, t := range targets {
		if i == maxPlaces {
			fmt.Fprintf(&b, "and %d more\n", len(targets)-i)
			break
		}
		fmt.Fprintf(&b, "%s -> %s\n", plainText(t.From), plainText(t.To))
	}
	return b.String()
}

// body of a pull request, with its block at the end.
func body(g *Group, moves []Move, block Block, now time.Time) string {
	var b strings.Builder
	for _, m := range moves {
		writeMove(&b, &m, now)
		if b.Len() > maxBody {
			break
		}
	}
	text := b.String()
	if len(text) > maxBody {
		text = text[:strings.LastIndexByte(text[:maxBody], '\n')+1] + "\nThere is more than fits here: the diff has all of it.\n"
	}
	text += "\n---\nCommits of people on this branch are left alone. Close this pull request to decline these versions; a newer one is proposed anew.\n\n"
	return text + block.String() + "\n"
}

func writeMove(b *strings.Builder, m *Move, now time.Time) {
	fmt.Fprintf(b, "### %s\n\n", markdown(shortName(m.Repository)))
	fmt.Fprintf(b, "* %s → %s\n", codeSpan(m.From), codeSpan(m.To))
	if m.Reason != "" {
		fmt.Fprintf(b, "* why: %s\n", markdown(m.Reason))
	}
	if m.New != nil {
		writeImage(b, m, now)
	}
	writeUsers(b, m.Users)
	b.WriteString("\nWhere:\n\n")
	for i, im := range m.Images {
		if i == maxPlaces {
			fmt.Fprintf(b, "* and %d more places\n", len(m.Images)-i)
			break
		}
		fmt.Fprintf(b, "* %s %s%s\n", codeSpan(im.Place.String()), codeSpan(im.Address), chain(im.Chain))
	}
	b.WriteByte('\n')
}

// chain tells the way from the sink to the bytes; the first step is the sink,
// which has been said.
func chain(steps []code.Step) string {
	var b strings.Builder
	for i, s := range steps {
		if i == 0 {
			continue
		}
		if i > 10 {
			b.WriteString(" ← …")
			break
		}
		fmt.Fprintf(&b, " ← %s (%s)", codeSpan(s.Name), codeSpan(s.Place.String()))
	}
	return b.String()
}

func writeImage(b *strings.Builder, m *Move, now time.Time) {
	n := m.New
	if n.Digest != "" {
		from := ""
		if m.Old != nil && m.Old.Digest != "" {
			from = codeSpan(shortDigest(m.Old.Digest)) + " → "
		}
		fmt.Fprintf(b, "* digest: %s%s\n", from, codeSpan(string(n.Digest)))
	}
	old := ""
	if m.Old != nil && sourceURL(m.Old.Source) == sourceURL(n.Source) {
		old = m.Old.Revision
	}
	if u := compareURL(n.Source, old, n.Revision); u != "" {
		fmt.Fprintf(b, "* changes: [%s](%s)\n", markdown(shortRevision(old)+" to "+shortRevision(n.Revision)), u)
	} else if u := releasesURL(n.Source); u != "" {
		fmt.Fprintf(b, "* changes: see [the releases](%s)\n", u)
	}
	if !n.Since.IsZero() {
		fmt.Fprintf(b, "* known since %s (%s)\n", n.Since.UTC().Format("2006-01-02 15:04 MST"), days(now.Sub(n.Since)))
	}
	if n.Size > 0 {
		size := bytes(n.Size)
		if m.Old != nil && m.Old.Size > 0 {
			switch d := n.Size - m.Old.Size; {
			case d > 0:
				size += ", " + bytes(d) + " more"
			case d < 0:
				size += ", " + bytes(-d) + " less"
			}
		}
		fmt.Fprintf(b, "* size: %s\n", size)
	}
	writePlatforms(b, m)
	if n.Signed {
		fmt.Fprintf(b, "* signature: verified, by %s\n", codeSpan(n.Signer))
	} else {
		b.WriteString("* signature: none that was verified\n")
	}
}

func writePlatforms(b *strings.Builder, m *Move) {
	if len(m.New.Platforms) == 0 {
		return
	}
	var names []string
	for i, p := range m.New.Platforms {
		if i == maxPresent {
			names = append(names, fmt.Sprintf("and %d more", len(m.New.Platforms)-i))
			break
		}
		names = append(names, codeSpan(p.String()))
	}
	line := strings.Join(names, ", ")
	if m.Old != nil {
		var lost []string
		for _, p := range m.Old.Platforms {
			if !slices.ContainsFunc(m.New.Platforms, func(q image.Platform) bool { return q.String() == p.String() }) && len(lost) < maxPresent {
				lost = append(lost, codeSpan(p.String()))
			}
		}
		if len(lost) > 0 {
			line += "; no more: " + strings.Join(lost, ", ")
		}
	}
	fmt.Fprintf(b, "* platforms: %s\n", line)
}

// writeUsers says who runs the old image now, as the ledger knows it.
func writeUsers(b *strings.Builder, users []usage.Use) {
	if len(users) == 0 {
		return
	}
	var names []string
	for i, u := range users {
		if i == maxUsers {
			names = append(names, fmt.Sprintf("and %d more", len(users)-i))
			break
		}
		names = append(names, codeSpan(u.Subject))
	}
	fmt.Fprintf(b, "* run now by: %s\n", strings.Join(names, ", "))
}

func shortRevision(s string) string {
	if len(s) >= 40 && isCommit(s[:40]) {
		return s[:12]
	}
	return s
}

func days(d time.Duration) string {
	switch n := int(d / (24 * time.Hour)); {
	case n >= 2:
		return fmt.Sprintf("%d days", n)
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", int(d/time.Hour))
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d minutes", int(d/time.Minute))
	}
	return "just now"
}

func bytes(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.1f KB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d B", n)
}

// closing is the comment with which a pull request is closed.
func closing(reason string) string {
	if reason == "" {
		reason = "nothing is left to do"
	}
	return "Closed: " + markdown(reason) + ".\n"
}
