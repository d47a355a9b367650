package terraform

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"cairn.dev/cairn/internal/code"
)

var outlines = []struct {
	name, text string
	want       string // "type label label first-last, …"; "-" for not plainly blocks
}{
	{"nothing", "", ""},
	{"comments", "# a {\n// b {\n/* c {\n{ */\n", ""},
	{"blocks", "locals {\n}\n\nresource \"a\" \"b\" {\n  x = {}\n}\nmodule m {}", "locals 1-2, resource a b 4-6, module m 7-7"},
	{"CRLF", "locals {\r\n}\r\nvariable \"v\" {\r\n}\r\n", "locals 1-2, variable v 3-4"},
	{"braces in strings", "a {\n  x = \"}{\\\"}\"\n}\n", "a 1-3"},
	{"templates", "a {\n  x = \"${\"}${ { y = \"}\" }.y }\"} $${ %%{ %{ if true }}%{ endif }\"\n}\n", "a 1-3"},
	{"braces in comments", "a {\n  # }\n  // }\n  /* } \n } */\n  x = 4 / 2\n}\n", "a 1-7"},
	{"heredocs", "a {\n  x = <<EOT\n}\n\" ${ { z = \"}\" }.z } $${\nEOT\n  y = <<-E-1\n    { \n    E-1\n}\nb {}\n", "a 1-9, b 10-10"},
	{"heredoc in a call", "a {\n  x = f(<<EOT\n}\nEOT\n  )\n}\n", "a 1-6"},
	{"comment behind", "a {\n} # b {\n", "a 1-2"},
	{"shift is none", "a {\n  x = 1 < 2\n}\n", "a 1-3"},

	{"an argument", "x = 1\n", "-"},
	{"two on a line", "a {} b {}\n", "-"},
	{"open", "a {\n", "-"},
	{"closed", "}\n", "-"},
	{"open string", "a {\n x = \"\n}\n", "-"},
	{"open heredoc", "a {\n x = <<E\n}\n", "-"},
	{"open comment", "/* a {}\n", "-"},
	{"BOM", "\ufeffa {}\n", "-"},
	{"label with a template", "a \"${b}\" {\n}\n", "-"},
	{"brace on the next line", "a\n{\n}\n", "-"},
	{"heredoc with code over lines", "a {\n x = <<E\n${\n{}\n}\nE\n}\n", "-"},
	{"deep templates", "a {\n x = " + strings.Repeat("\"${", 100) + strings.Repeat("}\"", 100) + "\n}\n", "-"},
}

func TestOutline(t *testing.T) {
	for _, test := range outlines {
		t.Run(test.name, func(t *testing.T) {
			parts, ok := outline([]byte(test.text))
			var list []string
			for _, p := range parts {
				list = append(list, strings.Join(append([]string{p.typ}, p.labels...), " ")+" "+lineSpan(p, test.text))
			}
			got := strings.Join(list, ", ")
			if !ok {
				got = "-"
			}
			if got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}

func lineSpan(p part, text string) string {
	last := p.line + strings.Count(text[p.start:p.end], "\n")
	return fmt.Sprintf("%d-%d", p.line, last)
}

// FuzzOutline: of what hcl takes, an outline has the same blocks at the same bytes.
func FuzzOutline(f *testing.F) {
	for _, test := range outlines {
		f.Add([]byte(test.text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		parts, ok := outline(data)
		if !ok || len(data) > 1<<14 || tooDeep(data, false, hcl.InitialPos) != nil {
			return
		}
		file, diags := parseConfig(data, "f", hcl.InitialPos)
		if diags.HasErrors() {
			return
		}
		body := file.Body.(*hclsyntax.Body)
		if len(body.Blocks) != len(parts) || len(body.Attributes) > 0 {
			t.Fatalf("%d blocks, hcl has %d and %d arguments in %q", len(parts), len(body.Blocks), len(body.Attributes), data)
		}
		for i, b := range body.Blocks {
			p := parts[i]
			if b.Type != p.typ || !slices.Equal(b.Labels, p.labels) || b.TypeRange.Start.Byte != p.start || b.CloseBraceRange.End.Byte != p.end || b.TypeRange.Start.Line != p.line {
				t.Fatalf("part %+v, hcl has %s %q %v %v in %q", p, b.Type, b.Labels, b.TypeRange, b.CloseBraceRange, data)
			}
		}
	})
}

// What waits is there when it is asked for, at its own place; what hides an
// image is not left for later.
func TestLater(t *testing.T) {
	const text = `provider "x" {}
resource "other" "o" {
  name = "nginx"
}

resource "docker_image" "i" {
  name = "${other.o.name}:1"
}

resource "broken" "b" {
  name = ]
}
`
	s := parse(code.File{Path: "main.tf", Data: []byte(text)}, map[string]bool{"docker_image": true})
	if len(s.body.blocks) != 3 || len(s.problems) != 0 {
		t.Fatalf("%d blocks, problems %v", len(s.body.blocks), s.problems)
	}
	o := s.body.blocks[0]
	if o.place.Line != 2 || o.place.Column != 1 {
		t.Errorf("%v", o.place)
	}
	a := o.inside().arg("name")
	if a == nil || a.place.Line != 3 || a.place.Column != 3 {
		t.Errorf("%+v", a)
	}
	whole := parse(code.File{Path: "main.tf", Data: []byte(text + "# cairn: x\n")}, nil)
	if len(whole.body.blocks) < 3 || len(whole.problems) == 0 {
		t.Errorf("a file with a marker: %d blocks, problems %v", len(whole.body.blocks), whole.problems)
	}
}
