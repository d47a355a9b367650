package workflow

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"cairn.dev/cairn/internal/workflow/document"
)

// Arguments checks what a run is handed against what its entry takes. Texts
// become what the inputs' types say; for Argo's graphs everything stays text.
// Files are a *File or a list of them each.
func (g *Graph) Arguments(given map[string]string, files map[string]Value) (map[string]Value, error) {
	entry := g.Templates[g.Entry]
	if entry == nil {
		return nil, fmt.Errorf("the workflow has no template %q to begin with", g.Entry)
	}
	var known []string
	for _, in := range entry.Inputs {
		known = append(known, in.Name)
	}
	for k := range g.Args {
		known = append(known, k)
	}
	known = append(known, g.Required...)
	out, errs := map[string]Value{}, []error(nil)
	for k, text := range given {
		if !slices.Contains(known, k) {
			errs = append(errs, fmt.Errorf("the workflow has no parameter %q%s", k, document.Meant(k, known)))
			continue
		}
		out[k] = text
	}
	for k, f := range files {
		if !slices.Contains(known, k) {
			errs = append(errs, fmt.Errorf("the workflow has no parameter %q%s", k, document.Meant(k, known)))
		} else if _, ok := given[k]; ok {
			errs = append(errs, fmt.Errorf("the parameter %q is given twice, as a text and as a file", k))
		}
		out[k] = f
	}
	for _, k := range g.Required {
		if _, ok := given[k]; !ok && !slices.ContainsFunc(entry.Inputs, func(in Input) bool { return in.Name == k }) {
			errs = append(errs, fmt.Errorf("the parameter %q is missing: it has no value", k))
		}
	}
	for _, in := range entry.Inputs {
		if f, ok := files[in.Name]; ok {
			if err := in.takes(f); err != nil {
				errs = append(errs, fmt.Errorf("parameter %q: %w", in.Name, err))
			}
			continue
		}
		text, ok := given[in.Name]
		if !ok {
			if _, has := g.Args[in.Name]; !has && in.Default == nil && !in.Optional && !in.Artifact {
				errs = append(errs, fmt.Errorf("the parameter %q is missing: it has no default", in.Name))
			}
			continue
		}
		v, err := in.parse(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("parameter %q: %w", in.Name, err))
			continue
		}
		out[in.Name] = v
	}
	return out, errors.Join(errs...)
}

// takes reports whether files may be handed to the input.
func (in Input) takes(v Value) error {
	switch _, one := v.(*File); {
	case one && (in.Artifact || in.Type == "file"), !one && in.Type == "json":
		return nil
	case one:
		return fmt.Errorf("it is a %s and takes no file", cmp.Or(in.Type, "text"))
	}
	return fmt.Errorf("it is a %s and takes no list of files: json does", cmp.Or(in.Type, "text"))
}

func (in Input) parse(text string) (Value, error) {
	if len(in.Enum) > 0 && !slices.Contains(in.Enum, text) {
		return nil, fmt.Errorf("%.80q is none of %s", text, strings.Join(in.Enum, ", "))
	}
	switch in.Type {
	case "json":
		var v Value
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			return nil, fmt.Errorf("%.80q is not JSON: %w", text, err)
		}
		return v, nil
	case "lines":
		list := []any{}
		for line := range strings.Lines(text) {
			list = append(list, strings.TrimRight(line, "\r\n"))
		}
		return list, nil
	case "file", "folder":
		return nil, fmt.Errorf("a %s cannot be handed over as text", in.Type)
	}
	return text, nil
}
