package config

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// Schema is the JSON Schema (2020-12) of the file, for editors. It knows names,
// types, defaults and units; what [Config.Validate] checks beyond them it does not.
func Schema() []byte {
	s := schemaOf(reflect.ValueOf(base()).Elem(), "")
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = "cairn.yaml"
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
	return reflect.ValueOf(defaultPolicy())
}

func schemaOf(v reflect.Value, tag reflect.StructTag) map[string]any {
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
			for _, f := range fields(v.Type()) {
				props[f.name] = schemaOf(v.Field(f.index), f.tag)
			}
			s["type"], s["properties"], s["additionalProperties"] = "object", props, false
			switch v.Type() {
			case reflect.TypeFor[Policy]():
				s["required"] = []string{"repositories"}
			case reflect.TypeFor[Cluster]():
				s["required"] = []string{"name", "issuer", "jwks"}
			case reflect.TypeFor[Mirror]():
				s["required"] = []string{"host"}
			}
			return s // defaults stand at its keys
		case reflect.Slice:
			elem := v.Type().Elem()
			if elem.Kind() != reflect.String {
				s["type"], s["items"] = "array", schemaOf(entry(elem), "")
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
