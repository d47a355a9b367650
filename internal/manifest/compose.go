package manifest

import (
	"strings"

	"cairn.dev/cairn/internal/code"
)

// compose reads the services of a Compose file. Variables come from the file
// .env beside it and from their defaults (compose-spec, "Interpolation"); the
// environment of whoever runs it is not known.
func (y *reading) compose(root *code.Node) {
	services := root.Get("services")
	if services == nil || services.Kind != code.Map {
		return
	}
	env := y.env()
	for i, name := range services.Keys {
		s := services.Items[i]
		img := s.Get("image")
		if img == nil {
			continue
		}
		address := "service " + name
		if s.Get("build") != nil {
			y.add(y.from(code.Compose, address, code.Found{Path: "image", Parts: []*code.Node{img}, Fixed: "it is built here, and this is only what it is called then"}))
			continue
		}
		y.add(y.from(code.Compose, address, whole("image", expanded(img, env))))
	}
}

// whole is the image that one node spells out.
func whole(path string, n *code.Node) code.Found {
	f := code.Found{Path: path, Parts: []*code.Node{n}, Value: n.Text}
	if n.Kind == code.Unknown {
		f.Value, f.Fixed = "", n.Text
	} else if _, err := code.ParseReference(n.Text); err != nil {
		f.Value, f.Fixed = "", err.Error()
	}
	return f
}

// env returns what .env says.
func (y *reading) env() func(string) (word, bool) {
	f, _ := y.neighbour(".env")
	vars := map[string]word{}
	at, n := 0, 0
	for line := range strings.Lines(string(f.Data)) {
		n++
		begin := at
		at += len(line)
		name, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), "=")
		name = strings.TrimPrefix(strings.TrimSpace(name), "export ")
		if !ok || strings.HasPrefix(name, "#") {
			continue
		}
		start := begin + strings.IndexByte(line, '=') + 1
		start, value = start+len(value)-len(strings.TrimLeft(value, " \t")), strings.TrimSpace(value)
		if q := quoteOf(value); q != 0 {
			if end := strings.IndexByte(value[1:], q); end >= 0 {
				start, value = start+1, value[1:1+end]
			}
		} else if i := strings.Index(value, " #"); i >= 0 {
			value = strings.TrimSpace(value[:i])
		}
		vars[name] = word{
			value:   value,
			sources: []code.Range{{File: f.Path, Start: start, End: start + len(value)}},
			steps:   []code.Step{{Name: name, Place: code.Place{File: f.Path, Line: n, Column: start - begin + 1}}},
		}
	}
	return func(name string) (word, bool) { w, ok := vars[name]; return w, ok }
}

// quoteOf is the quote that a value begins with; 0 for none.
func quoteOf(value string) byte {
	if value != "" && (value[0] == '"' || value[0] == '\'') {
		return value[0]
	}
	return 0
}
