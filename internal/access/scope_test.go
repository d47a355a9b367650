package access

import (
	"slices"
	"strings"
	"testing"
)

func TestParseScopes(t *testing.T) {
	long := "repository:" + strings.Repeat("a", 255) + ":pull"
	for _, c := range []struct {
		in   []string
		want string // scopes separated by spaces
		err  string
	}{
		{nil, "", ""},
		{[]string{""}, "", ""},
		{[]string{"  "}, "", ""},
		{[]string{"repository:app/web:pull"}, "repository:app/web:pull", ""},
		{[]string{"repository:app/web:pull,push,delete"}, "repository:app/web:pull,push,delete", ""},
		{[]string{"repository:app/web:push,pull"}, "repository:app/web:push,pull", ""},
		{[]string{"repository:app/web:*"}, "repository:app/web:pull,push,delete", ""},
		{[]string{"repository:a:pull repository:b:push", "repository:c:pull"}, "repository:a:pull repository:b:push repository:c:pull", ""},
		{[]string{"repository:a:pull", "repository:a:push,pull"}, "repository:a:pull,push", ""},
		{[]string{"repository(plugin):a:pull"}, "repository:a:pull", ""},
		{[]string{"registry:catalog:*"}, "", ""},
		{[]string{"registry:catalog:* repository:a:pull"}, "repository:a:pull", ""},
		{[]string{"repository:a:fly"}, "", ""},
		{[]string{"repository:a:fly,pull,,"}, "repository:a:pull", ""},
		{[]string{"repository:a:admin,report"}, "", ""}, // never by a token
		{[]string{"repository:a:PULL"}, "", ""},
		{[]string{"repository:a:"}, "", ""},
		{[]string{"repository::pull"}, "", ""},
		{[]string{"repository:A:pull"}, "", ""},
		{[]string{"repository:../a:pull"}, "", ""},
		{[]string{"repository:host:5000/a:pull"}, "", ""}, // a name with a port is none of ours
		{[]string{"repository:a\";x:pull"}, "", ""},
		{[]string{long}, long, ""},
		{[]string{strings.Replace(long, ":pull", "a:pull", 1)}, "", ""},
		{[]string{"repository:a"}, "", "write repository:NAME"},
		{[]string{"x"}, "", "write repository:NAME"},
		{[]string{":a:pull"}, "", "write repository:NAME"},
		{slices.Repeat([]string{"registry:x:*"}, maxScopes), "", ""},
		{slices.Repeat([]string{"registry:x:*"}, maxScopes+1), "", "more than"},
		{[]string{strings.Repeat(" ", maxScopeBytes+1)}, "", "bytes"},
	} {
		got, err := parseScopes(c.in)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("parseScopes(%.60q): %v, want an error saying %q", c.in, err, c.err)
			}
			continue
		}
		if text := scopesText(got); err != nil || text != c.want {
			t.Errorf("parseScopes(%.60q) = %q, %v, want %q", c.in, text, err, c.want)
		}
	}
}

func scopesText(ss []scope) string {
	var words []string
	for _, s := range ss {
		words = append(words, s.String())
	}
	return strings.Join(words, " ")
}

func FuzzScopes(f *testing.F) {
	for _, s := range []string{"repository:a:pull", "repository(plugin):a/b:*", "registry:catalog:*", ":::", "repository:a:pull,push repository:b:delete"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseScopes([]string{s})
		if err != nil {
			return
		}
		// What was read is written so that it is read as the same, and holds
		// nothing that breaks out of a header.
		text := scopesText(got)
		if strings.ContainsAny(text, "\"\\\r\n") || !isASCII(text) {
			t.Fatalf("parseScopes(%q) lets through %q", s, text)
		}
		again, err := parseScopes([]string{text})
		if err != nil || scopesText(again) != text {
			t.Fatalf("parseScopes(%q) = %q, again %q, %v", s, text, scopesText(again), err)
		}
	})
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > '~' || r < ' ' })
}
