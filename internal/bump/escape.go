package bump

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// joiner is a character of no width (U+2060): "@name" and "#1" with it between
// are not read as a mention or a reference by any forge.
const joiner = "\u2060"

// codeSpan is s as a code span of Markdown, where nothing is interpreted: for
// everything that code, registries and nodes say. Backticks inside are fenced
// (CommonMark 6.1); comments of HTML are broken up, because programs look for
// ours in the raw text.
func codeSpan(s string) string {
	s = oneLine(s, 300)
	s = strings.ReplaceAll(strings.ReplaceAll(s, "<!--", "<! --"), "-->", "-- >")
	run, longest := 0, 0
	for _, c := range s {
		if c == '`' {
			run++
			longest = max(longest, run)
		} else {
			run = 0
		}
	}
	if strings.TrimSpace(s) == "" {
		return "(empty)"
	}
	fence := strings.Repeat("`", longest+1)
	if longest > 0 {
		return fence + " " + s + " " + fence
	}
	return fence + s + fence
}

// markdown is s as text of Markdown: no markup, no mention, no HTML.
func markdown(s string) string {
	var b strings.Builder
	for _, c := range oneLine(s, 1000) {
		switch {
		case c == '@' || c == '#':
			b.WriteRune(c)
			b.WriteString(joiner)
		case c == '<':
			b.WriteString("&lt;")
		case c == '&':
			b.WriteString("&amp;")
		case strings.ContainsRune("\\`*_{}[]()~|$!>", c):
			b.WriteByte('\\')
			b.WriteRune(c)
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}

// plainText is s for titles and commit messages, which forges read for mentions
// and references but not for markup.
func plainText(s string) string {
	s = oneLine(s, 200)
	s = strings.ReplaceAll(s, "@", "@"+joiner)
	return strings.ReplaceAll(s, "#", "#"+joiner)
}

// oneLine makes s printable on one line of at most n bytes. Characters that turn
// the direction of text around, so that it reads as what it is not, go as well.
func oneLine(s string, n int) string {
	if len(s) > n {
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n] + "…"
	}
	return strings.Map(func(c rune) rune {
		switch {
		case c == '\n' || c == '\r' || c == '\t':
			return ' '
		case c == utf8.RuneError || unicode.Is(unicode.Cc, c) || unicode.Is(unicode.Cf, c):
			return -1
		}
		return c
	}, s)
}
