package terraform

import (
	"fmt"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"cairn.dev/cairn/internal/code"
)

// The corpus of package scan has the sinks in whole trees; here is what is
// easier to see in small.

func TestSetPath(t *testing.T) {
	for name, want := range map[string]string{
		"image.tag":          `[image tag]`,
		"a.b[0].image":       `[a b 0 image]`,
		"a[1][2]":            `[a 1 2]`,
		`a\.b.c`:             `[a.b c]`,
		"a..b":               `[a b]`,
		"":                   "",
		"a[":                 "",
		"a[x]":               "",
		"a[-1]":              "",
		"a[1000000000].b":    "",
		`a\`:                 `[a]`,
		"a[99999999999999]b": "",
	} {
		steps, ok := setPath(name)
		if got := fmt.Sprint(steps); ok != (want != "") || ok && got != want {
			t.Errorf("%q: %s, %v, want %s", name, got, ok, want)
		}
	}
}

func TestPutLeavesSharedNodesAlone(t *testing.T) {
	shared := &code.Node{Kind: code.Map, Keys: []string{"tag"}, Items: []*code.Node{{Kind: code.String, Text: "1"}}}
	values := &code.Node{Kind: code.Map, Keys: []string{"a", "b"}, Items: []*code.Node{shared, shared}}
	put(values, []any{"a", "tag"}, &code.Node{Kind: code.String, Text: "2"})
	put(values, []any{"c", 1, "x"}, &code.Node{Kind: code.String, Text: "3"})
	if got := values.Get("a").Get("tag").Text; got != "2" {
		t.Errorf("a.tag is %s, want 2", got)
	}
	if got := values.Get("b").Get("tag").Text; got != "1" {
		t.Errorf("b.tag is %s, want 1: it shares what a had", got)
	}
	if c := values.Get("c"); c.Kind != code.List || len(c.Items) != 2 || c.Items[1].Get("x").Text != "3" {
		t.Errorf("c is %+v, want a list with two items", c)
	}
}

func TestFollowNumbersWhatMayRepeat(t *testing.T) {
	block := func(images ...string) cty.Value {
		var list []cty.Value
		for _, i := range images {
			list = append(list, cty.ObjectVal(map[string]cty.Value{"image": cty.StringVal(i)}))
		}
		return cty.TupleVal(list)
	}
	for _, c := range []struct {
		path, want string
		body       map[string]cty.Value
	}{
		{"container[].image", "container[0].image=a container[1].image=b ", map[string]cty.Value{"container": block("a", "b")}},
		{"container.image", "container.image=a container[1].image=b ", map[string]cty.Value{"container": block("a", "b")}},
		{"*.image", "x.image=a y.image=b ", map[string]cty.Value{"x": block("a").Index(cty.NumberIntVal(0)), "y": block("b").Index(cty.NumberIntVal(0))}},
		{"container.image", "", map[string]cty.Value{"container": cty.NullVal(cty.DynamicPseudoType)}},
		{"container.image", "container=? ", map[string]cty.Value{"container": cty.DynamicVal}},
		{"container.image.more", "", map[string]cty.Value{"container": block("a")}},
	} {
		b := &finder{root: nodeOf(cty.ObjectVal(c.body), nil)}
		got := ""
		b.follow(c.path, func(at string, n *code.Node) {
			text := n.Text
			if n.Kind == code.Unknown {
				text = "?"
			}
			got += at + "=" + text + " "
		})
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.path, got, c.want)
		}
	}
}

// A decoded text is as large as it says and no larger.
func TestDecodeIsBounded(t *testing.T) {
	deep := ""
	for range 100_000 {
		deep += "["
	}
	for name, text := range map[string]string{
		"deep":     deep,
		"large":    string(make([]byte, maxText+1)),
		"not YAML": "a: [",
	} {
		if docs, err := decode(&code.Node{Kind: code.String, Text: text}); err == nil {
			t.Errorf("%s: %d documents", name, len(docs))
		}
	}
	docs, err := decode(&code.Node{Kind: code.String, Text: "a: &a {self: *a, image: x:1}\nb: *a\n---\nimage: y:2\n"})
	if err == nil && len(docs) == 2 {
		code.HelmImages(docs[0]) // ends
	}
}
