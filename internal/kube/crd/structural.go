package crd

import (
	"fmt"
	"maps"
	"slices"
)

// structural makes of a JSON Schema what Kubernetes calls a structural one:
// every place has one type. A place that may hold several (a text or a map, a
// number or a text) has none and keeps whatever it is given; of it is only said
// whether it may be a list or a map. What is not said here is said by whoever
// reads the document.
func structural(s map[string]any) (map[string]any, error) {
	forms, err := formsOf(s)
	if err != nil {
		return nil, err
	}
	out := map[string]any{}
	if d, ok := s["description"]; ok {
		out["description"] = d
	}
	if len(forms) != 1 || forms[0] == "" {
		out["x-kubernetes-preserve-unknown-fields"] = true
		if !slices.Contains(forms, "") {
			// An object in place of a text would pass otherwise.
			if !slices.Contains(forms, "array") {
				out["maxItems"] = 0
			}
			if !slices.Contains(forms, "object") {
				out["maxProperties"] = 0
			}
		}
		return out, nil
	}
	out["type"] = forms[0]
	for _, k := range []string{"enum", "pattern", "required"} {
		if v, ok := s[k]; ok {
			out[k] = v
		}
	}
	switch forms[0] {
	case "array":
		items, ok := s["items"].(map[string]any)
		if !ok {
			return nil, fmt.Errorf("a list without items")
		}
		if out["items"], err = structural(items); err != nil {
			return nil, err
		}
	case "object":
		if props, ok := s["properties"].(map[string]any); ok {
			made := map[string]any{}
			for _, k := range slices.Sorted(maps.Keys(props)) {
				p, ok := props[k].(map[string]any)
				if !ok {
					return nil, fmt.Errorf("%s: no schema", k)
				}
				if made[k], err = structural(p); err != nil {
					return nil, fmt.Errorf("%s: %w", k, err)
				}
			}
			out["properties"] = made
			break // "additionalProperties: false" is what structural schemas are anyway
		}
		values, ok := s["additionalProperties"].(map[string]any)
		if !ok {
			out["x-kubernetes-preserve-unknown-fields"] = true
			break
		}
		if out["additionalProperties"], err = structural(values); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// formsOf are the types that a value may have, [""] when it may be anything.
func formsOf(s map[string]any) ([]string, error) {
	if list, ok := s["anyOf"].([]any); ok {
		var out []string
		for _, e := range list {
			m, ok := e.(map[string]any)
			if !ok {
				return nil, fmt.Errorf("anyOf of something that is no schema")
			}
			forms, err := formsOf(m)
			if err != nil {
				return nil, err
			}
			for _, f := range forms {
				if !slices.Contains(out, f) {
					out = append(out, f)
				}
			}
		}
		if slices.Contains(out, "") {
			return []string{""}, nil
		}
		return out, nil
	}
	switch t := s["type"].(type) {
	case string:
		return []string{t}, nil
	case []any:
		var out []string
		for _, e := range t {
			f, ok := e.(string)
			if !ok {
				return nil, fmt.Errorf("a type that is no text")
			}
			out = append(out, f)
		}
		return out, nil
	case nil:
		if _, ok := s["enum"]; ok { // ours are words
			return []string{"string"}, nil
		}
		return []string{""}, nil
	}
	return nil, fmt.Errorf("unknown type %v", s["type"])
}
