package terraform

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/code"
)

// growing is locals n long, each made of the one before.
func growing(n int, first, next string) string {
	var s strings.Builder
	fmt.Fprintf(&s, "locals {\n  x0 = %s\n", first)
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&s, "  x%d = %s\n", i, strings.ReplaceAll(next, "$X", fmt.Sprintf("local.x%d", i-1)))
	}
	return s.String() + "}\n"
}

// fanOut is modules n deep, each of which calls the next one twice.
func fanOut(n int) string {
	var s strings.Builder
	s.WriteString("module \"a\" {\n  source = \"./m0\"\n}\n")
	for i := range n {
		fmt.Fprintf(&s, "-- m%d/main.tf --\n%smodule \"a\" {\n  source = \"../m%d\"\n}\nmodule \"b\" {\n  source = \"../m%d\"\n}\n", i, imageOf(`"n:1"`), i+1, i+1)
	}
	return s.String()
}

// deepModules is modules n deep.
func deepModules(n int) string {
	var s strings.Builder
	s.WriteString("module \"a\" {\n  source = \"./m0\"\n}\n")
	for i := range n {
		fmt.Fprintf(&s, "-- m%d/main.tf --\n%smodule \"a\" {\n  source = \"../m%d\"\n}\n", i, imageOf(`"n:1"`), i+1)
	}
	fmt.Fprintf(&s, "-- m%d/main.tf --\n%s", n, imageOf(`"n:1"`))
	return s.String()
}

// Each of these is made to take all the memory, the stack or the time there
// is. The image beside it must be found all the same, quickly.
func TestBounded(t *testing.T) {
	nested := func(open, inner, end string, n int) string {
		return strings.Repeat(open, n) + inner + strings.Repeat(end, n)
	}
	for _, test := range []struct{ name, tf, want string }{
		{"brackets", "locals {\n  x = " + nested("[", "1", "]", 1_000_000) + "\n}\n", "deep"},
		{"blocks", nested("a {\n", "", "}\n", 300_000), "deep"},
		{"templates in templates", `locals { x = ` + nested(`"${`, `"a"`, `}"`, 100_000) + " }\n", "deep"},
		{"operators", "locals {\n  x = 1" + strings.Repeat("+1", 500_000) + "\n}\n", "operators"},
		{"negations", "locals {\n  x = " + strings.Repeat("!", 1_000_000) + "true\n}\n", "operators"},
		{"conditionals", "locals {\n  x = " + strings.Repeat("true?1:", 500_000) + "1\n}\n", "operators"},
		{"indexes", "locals {\n  x = a" + strings.Repeat("[b]", 300_000) + "\n}\n", "operators"},
		{"a string that doubles", growing(64, `"0123456789"`, `"${$X}${$X}"`) + imageOf(`local.x64`), "too large"},
		{"a list that doubles", growing(16, `["0123456789"]`, `[$X, $X]`) + imageOf(`local.x16[0]`), "too large"},
		{"an object that doubles", growing(16, `{ a = "n:1" }`, `{ a = $X, b = $X }`) + imageOf(`local.x16.a`), "too large"},
		{"many names", growing(20_000, `"n:1"`, `$X`) + imageOf(`local.x20000`), "in a row"},
		{"loops in loops", "locals {\n  x = [for a in range(1000) : [for b in range(1000) : [for c in range(1000) : [for d in range(1000) : a]]]]\n}\n" + imageOf(`"n:${local.x[0][0][0][0]}"`), "too much work"},
		{"loops that find nothing", "locals {\n  x = [for a in range(1000) : a if length([for b in range(1000) : b if length([for c in range(1000) : c if false]) > 0]) > 0]\n}\n" + imageOf(`"n:${length(local.x)}"`), "too much work"},
		{"a loop of long strings", "locals {\n  s = join(\"\", [for i in range(1000) : \"0123456789012345678901234567890123456789012345678901234567890123456789\"])\n  x = [for i in range(1000) : \"${local.s}${i}\"]\n}\n" + imageOf(`local.x[0]`), "too large"},
		{"join", "locals {\n  s = join(\"\", [for i in range(1000) : \"0123456789012345678901234567890123456789012345678901234567890123456789\"])\n  x = join(\"\", [for i in range(1000) : local.s])\n}\n" + imageOf(`local.x`), "too large"},
		{"range", imageOf(`"n:${range(1e9)[0]}"`), "range failed"},
		{"a width", imageOf(`"n:${format("%1000000000d", 1)}"`), "too many digits"},
		{"a number", imageOf(`"n:${1e999999999}"`), "too large"},
		{"a number that grows", growing(40, `1e300`, `$X * $X`) + imageOf(`"n:${local.x40}"`), "too large"},
		{"replace", imageOf(`replace(join("", [for i in range(1000) : "0123456789012345678901234567890123456789"]), "", join("", [for i in range(1000) : "0123456789012345678901234567890123456789"]))`), "too large"},
		{"regular expressions", imageOf(`replace(join("", [for i in range(1000) : "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]), "/(a*)*b/", "$1$1$1")`), ""},
		{"setproduct", imageOf(`"n:${length(setproduct(range(1000), range(1000), range(1000), range(1000)))}"`), "too large"},
		{"indent", imageOf(`indent(1000000000, "a\nb")`), "too large"},
		{"YAML that doubles", imageOf(`yamldecode("a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f]").g[0]`), "aliases"},
		{"YAML within itself", imageOf(`yamldecode("a: &a [*a]").a`), "yamldecode"},
		{"deep JSON", imageOf(`jsondecode(join("", [for i in range(1000) : "[[[[[[[[[["]))[0]`), "jsondecode"},
		{"try in try", imageOf(nested("try(", "local.x", `, local.y)`, 300)), "local.x is not defined"},
		{"instances", "resource \"docker_image\" \"j\" {\n  count = 1000000000\n  name = \"n:1\"\n}\n", "more than 2000 instances"},
		{"modules in modules", fanOut(70), "more than 10000 instances"},
		{"modules deep in modules", deepModules(70), "more than 64 deep"},
		{"a huge file", "# " + strings.Repeat("x", 50<<20) + "\n", "not read: it has"},
	} {
		t.Run(test.name, func(t *testing.T) {
			tree := treeOf(t, "-- bad.tf --\n"+test.tf+"-- good.tf --\nresource \"docker_image\" \"good\" {\n  name = \"good:1\"\n}\n")
			begin := time.Now()
			got := summary(t, tree, read(t, tree, code.Options{}))
			if took := time.Since(begin); took > 20*time.Second {
				t.Errorf("took %v", took)
			} else {
				t.Log(took)
			}
			if !strings.Contains(got, "docker_image.good = good:1") || !strings.Contains(got, test.want) {
				t.Errorf("%q is not in, or no image\n%.2000s", test.want, got)
			}
		})
	}
}

func TestEndsWhenAsked(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var r Reader
	if _, err := r.Read(ctx, treeOf(t, "-- main.tf --\n"+imageOf(`"n:1"`)), code.Options{}); err != context.Canceled {
		t.Errorf("%v, want context.Canceled", err)
	}
}
