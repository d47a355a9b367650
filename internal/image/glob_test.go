package image

import (
	"strings"
	"testing"
	"time"
)

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		glob, s string
		want    bool
	}{
		{"**", "", true},
		{"**", "a/b/c", true},
		{"*", "", true},
		{"*", "app", true},
		{"*", "app/web", false},
		{"app", "app", true},
		{"app", "apps", false},
		{"app", "my/app", false},
		{"app/*", "app/web", true},
		{"app/*", "app/", true},
		{"app/*", "app", false},
		{"app/*", "app/web/x", false},
		{"app/**", "app/web/x", true},
		{"app/**", "app", false}, // what is below, not itself
		{"app**", "app", true},
		{"app**", "apple/x", true},
		{"**/web", "app/web", true},
		{"**/web", "a/b/web", true},
		{"**/web", "web", false},
		{"**web", "web", true},
		{"a/**/z", "a/z", false},
		{"a/**/z", "a/b/z", true},
		{"a/**/z", "a/b/c/z", true},
		{"*/*", "a/b", true},
		{"*/*", "a/b/c", false},
		{"v?", "v1", true},
		{"v?", "v", false},
		{"v?", "v10", false},
		{"a?b", "a/b", false},
		{"v*.*", "v1.2", true},
		{"v*.*", "v1", false},
		{"*-rc*", "1.0-rc1", true},
		{"*-rc*", "1.0", false},
		{"*a*a*", "aa", true},
		{"*a*a*", "a", false},
		{"**a*b", "a/ab", true},  // back to ** after * met a slash
		{"**a*b", "ab/a", false}, //
		{"**x*y**z", "xy/xay/z", true},
		{"***", "a/b", true},
		{"a***b", "a/x/b", true},
		{"****", "", true},
		{"[ab]", "a", false}, // no classes, no escapes: these are themselves
		{"[ab]", "[ab]", true},
		{`\*`, "*", false},
		{`\*`, `\x`, true},
		{"", "", true},
		{"", "a", false},
	} {
		if got := Glob(c.glob).Match(c.s); got != c.want {
			t.Errorf("%q matches %q: %v, want %v", c.glob, c.s, got, c.want)
		}
		if got := slowMatch(c.glob, c.s); got != c.want {
			t.Errorf("the reference: %q matches %q: %v, want %v", c.glob, c.s, got, c.want)
		}
	}
}

// slowMatch says the same in the plainest way: it tries every length of every
// run. ok[i][j] is whether the glob from i on matches s from j on.
func slowMatch(g, s string) bool {
	type at struct{ i, j int }
	known := map[at]bool{}
	var match func(i, j int) bool
	match = func(i, j int) (ok bool) {
		if ok, seen := known[at{i, j}]; seen {
			return ok
		}
		defer func() { known[at{i, j}] = ok }()
		switch {
		case i == len(g):
			return j == len(s)
		case strings.HasPrefix(g[i:], "**"):
			for k := j; k <= len(s); k++ {
				if match(i+2, k) {
					return true
				}
			}
			return false
		case g[i] == '*':
			for k := j; ; k++ {
				if match(i+1, k) {
					return true
				}
				if k == len(s) || s[k] == '/' {
					return false
				}
			}
		case j == len(s):
			return false
		case g[i] == s[j] || g[i] == '?' && s[j] != '/':
			return match(i+1, j+1)
		}
		return false
	}
	return match(0, 0)
}

// TestGlobExhaustive compares the two on every short glob and string.
func TestGlobExhaustive(t *testing.T) {
	all := func(alphabet string, n int) []string {
		out, last := []string{""}, []string{""}
		for range n {
			var next []string
			for _, s := range last {
				for _, c := range alphabet {
					next = append(next, s+string(c))
				}
			}
			out, last = append(out, next...), next
		}
		return out
	}
	ss := all("a/b", 5)
	for _, g := range all("a*/?", 5) {
		for _, s := range ss {
			if got, want := Glob(g).Match(s), slowMatch(g, s); got != want {
				t.Fatalf("%q matches %q: %v, want %v", g, s, got, want)
			}
		}
	}
}

func FuzzGlob(f *testing.F) {
	f.Add("**a*b", "a/ab")
	f.Add("*/a**?x*", "b/aa/x/x")
	f.Add("**/*-?*/**z", "q/w-e/r/z")
	f.Fuzz(func(t *testing.T, g, s string) {
		if len(g) > 40 || len(s) > 60 {
			return // the reference is slow
		}
		if got, want := Glob(g).Match(s), slowMatch(g, s); got != want {
			t.Fatalf("%q matches %q: %v, want %v", g, s, got, want)
		}
	})
}

// TestGlobWorstCase: the longest glob and name that are allowed, made to go
// back as often as possible, stay far from being felt.
func TestGlobWorstCase(t *testing.T) {
	s := strings.Repeat("a", MaxRepository)
	for _, g := range []string{
		"**a*" + strings.Repeat("a", 120) + "b",
		strings.Repeat("*a", 120) + "b",
		strings.Repeat("**a", 80) + "b",
		strings.Repeat("**a*a", 40) + "b",
	} {
		start := time.Now()
		if Glob(g).Match(s) {
			t.Errorf("%.20q… matches", g)
		}
		if d := time.Since(start); d > time.Second {
			t.Errorf("%.20q… took %v", g, d)
		}
	}
}

func TestCheckGlob(t *testing.T) {
	for g, ok := range map[string]bool{"": false, "**": true, "a": true, strings.Repeat("a", 255): true, strings.Repeat("a", 256): false} {
		if err := CheckGlob(g); (err == nil) != ok {
			t.Errorf("%.10q…: %v", g, err)
		}
	}
}

func TestMatchAny(t *testing.T) {
	if MatchAny(nil, "a") || !MatchAny([]string{"x", "a*"}, "ab") || MatchAny([]string{"x", "y"}, "ab") {
		t.Error("MatchAny is not the or of its globs")
	}
}

func BenchmarkGlob(b *testing.B) {
	for b.Loop() {
		Glob("team-*/**/web").Match("team-payments/production/web")
	}
}
