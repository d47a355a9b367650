package docs

import (
	"slices"
	"strings"
	"testing"
)

const page = "# Page\n\n```sh\nnot run\n```\n\n```console\n$ echo a\na\n$ cat <<EOF \\\n  | sort\nb\n$ c\nEOF\nout\n\n$ quiet\n```\ntext\n"

func TestSteps(t *testing.T) {
	bs := Blocks(page)
	if len(bs) != 2 || bs[0].Kind != "sh" || bs[1].Kind != "console" || bs[1].Line != 7 {
		t.Fatalf("blocks %+v", bs)
	}
	got := bs[1].Steps()
	want := []Step{
		{8, "echo a", []string{"a"}},
		{10, "cat <<EOF \\\n  | sort\nb\n$ c\nEOF", []string{"out", ""}},
		{17, "quiet", nil},
	}
	if len(got) != len(want) {
		t.Fatalf("steps %+v", got)
	}
	for i := range want {
		if got[i].Line != want[i].Line || got[i].Command != want[i].Command || !slices.Equal(got[i].Output, want[i].Output) {
			t.Errorf("step %d: %+v, want %+v", i, got[i], want[i])
		}
	}
	if again := Rewrite(page, got, [][]string{{"a"}, {"out", ""}, nil}); again != page {
		t.Errorf("a rewrite with the same output changed the page:\n%s", again)
	}
	changed := Rewrite(page, got, [][]string{{"x", "y"}, {"z"}, {"w"}})
	for _, want := range []string{"$ echo a\nx\ny\n$ cat", "EOF\nz\n$ quiet\nw\n```\ntext"} {
		if !strings.Contains(changed, want) {
			t.Errorf("rewritten page lacks %q:\n%s", want, changed)
		}
	}
}

func TestSame(t *testing.T) {
	lines := func(s string) []string { return strings.Split(s, "\n") }
	for _, c := range []struct {
		page, printed string
		want          bool
	}{
		{"a", "a", true},
		{"a", "b", false},
		{"a", "a\nb", false},
		{"a\n", "a", true},
		{"...", "", true},
		{"a\n...\nz", "a\nb\nc\nz", true},
		{"a\n...\nz", "a\nb\nc", false},
		{"app/web   sha256:0123456789ab  3d", "app/web  sha256:abcdef012345…   29d", true},
		{"at 2026-01-02T03:04:05Z", "at 2027-11-12 13:14:15 UTC", true},
		{"expires 2026-01-02", "expires 2026-01-03", true},
		{"http://127.0.0.1:5080/", "http://127.0.0.1:41234/", true},
		{"12 MiB in 3ms", "1.5 KiB in 1m 2s", true},
		{"06h0h82amrej76l5b0ismut6  web-6ors0", "06h0h829d37mvmq4gb3qbjsu web-qbjsu", true},
		{"a\nb", "a\n  … 27d20h\nb", true},
		{"3 images", "4 images", false},
		{"kept: pinned", "kept: in use", false},
	} {
		if got := Same(lines(c.page), lines(c.printed)); got != c.want {
			t.Errorf("Same(%q, %q) = %t", c.page, c.printed, got)
		}
	}
}
