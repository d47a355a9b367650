package config

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// Schema is the JSON Schema (2020-12) of the file, for editors. It knows names,
// types, defaults and units; what [Config.Validate] checks beyond them it does not.
func Schema() []byte { return schema("cairn.yaml", base(), entry) }

func schema(title string, defaults any, entry func(reflect.Type) reflect.Value) []byte {
	s := schemaOf(reflect.ValueOf(defaults).Elem(), "", entry)
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = title
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil { // maps, strings and numbers only
		return []byte(fmt.Sprintf("{%q: %q}", "error", err))
	}
	return append(b, '\n')
}

// entry is what an entry of a list of t starts from.
func entry(t reflect.Type) reflect.Value {
	if t == reflect.TypeFor[Mirror]() {
		return reflect.ValueOf(defaultMirror())
	}
	if t == reflect.TypeFor[Cluster]() {
		return reflect.ValueOf(defaultCluster())
	}
	if t == reflect.TypeFor[WorkCluster]() {
		return reflect.ValueOf(defaultWorkCluster())
	}
	switch t {
	case reflect.TypeFor[Forge](), reflect.TypeFor[Registry](), reflect.TypeFor[Hook](), reflect.TypeFor[WorkSecret]():
		return reflect.Zero(t)
	}
	return reflect.ValueOf(defaultPolicy())
}

// blank is entry when a file is read: a policy that forgets its repositories
// must not mean all.
func blank(t reflect.Type) reflect.Value {
	if t == reflect.TypeFor[Policy]() {
		p := defaultPolicy()
		p.Repositories = nil
		return reflect.ValueOf(p)
	}
	return entry(t)
}

func schemaOf(v reflect.Value, tag reflect.StructTag, entry func(reflect.Type) reflect.Value) map[string]any {
	s := map[string]any{}
	if doc := tag.Get("doc"); doc != "" {
		s["description"] = doc
	}
	switch v.Interface().(type) {
	case Duration:
		s["type"], s["pattern"] = "string", `^(0|([0-9.]+(w|d|h|ms|m|s|us|µs|ns))+)$`
	case Size:
		s["type"], s["pattern"] = []string{"string", "integer"}, `^[0-9.]+ ?([KMGT]i?B|B)?$`
	default:
		switch v.Kind() {
		case reflect.Struct:
			props := map[string]any{}
			var required []string
			for _, f := range fields(v.Type()) {
				props[f.name] = schemaOf(v.Field(f.index), f.tag, entry)
				if f.tag.Get("required") != "" {
					required = append(required, f.name)
				}
			}
			s["type"], s["properties"], s["additionalProperties"] = "object", props, false
			if required != nil {
				s["required"] = required
			}
			return s // defaults stand at its keys
		case reflect.Slice:
			elem := v.Type().Elem()
			if elem.Kind() != reflect.String {
				s["type"], s["items"] = "array", schemaOf(entry(elem), "", entry)
				return s
			}
			s["type"], s["items"] = []string{"string", "array"}, map[string]any{"type": "string"}
		case reflect.Bool:
			s["type"] = "boolean"
		case reflect.Int:
			s["type"], s["minimum"] = "integer", 0
		default:
			s["type"] = "string"
		}
	}
	if enum := tag.Get("enum"); enum != "" {
		s["enum"] = strings.Split(enum, ",")
	}
	if !v.IsZero() {
		s["default"] = v.Interface()
	}
	return s
}
