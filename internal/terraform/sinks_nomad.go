package terraform

import (
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"cairn.dev/cairn/internal/code"
)

// nomad is the sink for a job of Nomad: HCL in a text, or JSON. Its expressions
// are Nomad's, evaluated when the job runs; an image that has one is reported
// and cannot be followed.
func nomad(b *finder) {
	b.follow("jobspec", func(at string, n *code.Node) {
		switch {
		case n.Kind == code.Unknown:
			b.whole(at, n)
		case n.Kind != code.String:
		case strings.HasPrefix(strings.TrimSpace(n.Text), "{"):
			b.decoded(at, n, nomadJSON)
		default:
			b.jobspec(at, n)
		}
	})
}

func (b *finder) jobspec(at string, n *code.Node) {
	refuse := func(why string) { b.add(code.Found{Path: at, Parts: []*code.Node{n}, Fixed: why}) }
	if len(n.Text) > maxText || tooDeep([]byte(n.Text), false, hcl.InitialPos) != nil {
		refuse("its text is too large or nested too deeply to be read")
		return
	}
	f, diags := parseConfig([]byte(n.Text), "jobspec", hcl.InitialPos)
	if diags.HasErrors() {
		refuse("its text is not HCL")
		return
	}
	if body, ok := f.Body.(*hclsyntax.Body); ok {
		b.tasks(at, body, n.Origin)
	}
}

// tasks adds the images of the tasks in a body: job, group, task, config.
func (b *finder) tasks(at string, body *hclsyntax.Body, origin any) {
	for _, block := range body.Blocks {
		here := at + "." + block.Type
		for _, label := range block.Labels {
			here += "[" + strconv.Quote(label) + "]"
		}
		switch block.Type {
		case "job", "group", "task":
			b.tasks(here, block.Body, origin)
		case "config":
			attr := block.Body.Attributes["image"]
			if attr == nil {
				continue
			}
			v, diags := attr.Expr.Value(nil)
			s, ok := Text(v)
			n := &code.Node{Kind: code.String, Text: s, Origin: origin}
			if diags.HasErrors() || !ok {
				n.Kind, n.Text = code.Unknown, "Nomad puts it together when the job runs: write it in one piece"
			}
			b.whole(here+".image", n)
		}
	}
}

// nomadJSON are the images of a job as Nomad's API has it.
func nomadJSON(n *code.Node) []code.Found {
	var found []code.Found
	if job := n.Get("Job"); job != nil {
		n = job
	}
	follow(n, "", []string{"TaskGroups[]", "Tasks[]", "Config", "image"}, wholeInto(&found))
	return found
}
