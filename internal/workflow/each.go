package workflow

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/cel-go/cel"

	"cairn.dev/cairn/internal/workflow/document"
)

// each compiles forEach, and returns what is seen inside of it.
func (c *compiler) each(f *flow, t *taskDoc, call *Call) (*celEnv, []string, bool) {
	n := t.node.Get("forEach")
	if n == nil {
		if p := t.node.Get("parallelism"); p != nil {
			p.FailKey("parallelism is of a forEach; that of the run is spec.parallelism")
		}
		return f.env, nil, true
	}
	e := &Each{}
	call.Each = e
	if p := t.node.Get("parallelism"); p != nil {
		e.Parallelism = int(p.Int(1, 1_000_000))
	}
	item := name{text: "item", typ: cel.DynType, path: []string{"item"}}
	var uses []string
	take := func(n *document.Node) written {
		w, err := f.env.compileNode(n)
		if err != nil {
			n.Fail("%v", err)
		}
		uses = append(uses, w.uses...)
		return w
	}
	items := n
	if n.IsMap() {
		n.Known(eachFields...)
		items = n.Get("in")
		var kinds []string
		for _, k := range []string{"files", "s3", "count", "in"} {
			if n.Get(k) != nil {
				kinds = append(kinds, k)
			}
		}
		if len(kinds) != 1 {
			n.Fail("forEach has %d sources: write one of files, s3, count and in", len(kinds))
			return nil, nil, false
		}
		if k := kinds[0]; k != "files" && k != "s3" && n.Get("match") != nil {
			n.Get("match").FailKey("match is for files and s3")
		}
		if k := kinds[0]; k != "count" && (n.Get("start") != nil || n.Get("format") != nil) {
			n.Fail("start and format are for count")
		}
	}
	m := n.Get("match").Text()
	if !n.IsMap() {
		m = ""
	}
	switch {
	case items != nil:
		w := take(items)
		if w.Expr == nil {
			return nil, nil, false
		}
		if v, is := w.constant(); is {
			list, ok := v.([]any)
			if !ok {
				items.Fail("this has to be a list, or an expression that gives one")
				return nil, nil, false
			}
			item.typ = itemType(list)
		} else {
			switch {
			case w.typ.Kind() == cel.ListKind:
				item.typ = w.typ.Parameters()[0]
			case !w.typ.IsExactType(cel.DynType) && !w.typ.IsExactType(fileType):
				items.Fail("%s is a %s: forEach wants a list, or a file that holds one (a JSON array, or lines)", items.Text(), w.typ)
			}
		}
		e.Items = w.Expr
	case n.Get("files") != nil:
		w := take(n.Get("files"))
		e.Source, item.typ = &List{Files: w.Expr, Match: m}, fileType
	case n.Get("s3") != nil:
		w := take(n.Get("s3"))
		if v, is := w.constant(); is && !strings.HasPrefix(fmt.Sprint(v), "s3://") {
			n.Get("s3").Fail("%.80v: write s3://BUCKET/PREFIX", v)
		}
		e.Source, item.typ = &List{S3: w.Expr, Match: m}, fileType
	default:
		e.Count = &Sequence{Format: n.Get("format").Text()}
		w := take(n.Get("count"))
		if v, is := w.constant(); is {
			if v, ok := v.(float64); !ok || v < 0 || v != float64(int64(v)) {
				n.Get("count").Fail("this has to be a whole number")
			}
		}
		e.Count.Count = w.Expr
		if s := n.Get("start"); s != nil {
			e.Count.Start = take(s).Expr
		}
		item.typ = cel.IntType
		if e.Count.Format != "" {
			item.typ = cel.StringType
			if err := CheckFormat(e.Count.Format); err != nil {
				n.Get("format").Fail("%v", err)
			}
		}
	}
	names := []name{item}
	if item.typ == fileType {
		names = append(names, name{text: item.text + ".name", typ: cel.StringType, path: append(slices.Clone(item.path), "name")},
			name{text: item.text + ".size", typ: cel.IntType, path: append(slices.Clone(item.path), "size")})
	}
	env, err := f.env.with(names)
	if err != nil {
		n.Fail("%v", err)
		return nil, nil, false
	}
	return env, uses, true
}

func itemType(list []any) *cel.Type {
	for _, v := range list {
		if _, ok := v.(string); !ok {
			return cel.DynType
		}
	}
	return cel.StringType
}

// CheckFormat reports whether s formats one whole number, such as %04d.
func CheckFormat(s string) error {
	verbs := 0
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			continue
		}
		i++
		if i < len(s) && s[i] == '%' {
			continue
		}
		begin := i
		for i < len(s) && (s[i] == '0' || s[i] == '-' || s[i] == '+' || s[i] == ' ' || s[i] == '#' || s[i] >= '1' && s[i] <= '9') {
			i++
		}
		if i == len(s) || !strings.ContainsRune("dxXobO", rune(s[i])) || i-begin > 6 {
			return fmt.Errorf("%.40q formats no number: write such as %%04d or %%x", s)
		}
		verbs++
	}
	if verbs != 1 {
		return fmt.Errorf("%.40q has %d places for the number: write one, such as %%04d", s, verbs)
	}
	return nil
}
