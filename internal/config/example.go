package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Example is a cairn.yaml that says every key, what it is for and its default.
// It means the same as an empty file: keys that are empty by default, and the
// policies (whose presence turns deleting on), stand behind a '#', with a value
// to start from. A comment has a space after its '#', such a key has none.
func Example() []byte {
	var b strings.Builder
	b.WriteString("# The configuration of Cairn. Every key may be left away; unknown keys are errors.\n")
	b.WriteString("# Durations read 30d, 12h, 6s or 1d12h; sizes 500MB or 10GiB.\n")
	writeFields(&b, reflect.ValueOf(base()).Elem(), "", false)
	return []byte(b.String())
}

// writeFields writes the keys of a struct. off: behind a '#'.
func writeFields(b *strings.Builder, v reflect.Value, indent string, off bool) {
	for _, f := range fields(v.Type()) {
		fv := v.Field(f.index)
		if indent == "" {
			b.WriteString("\n")
		}
		writeDoc(b, indent, f.tag.Get("doc"))
		switch {
		case fv.Kind() == reflect.Struct:
			o := off || allEmpty(fv)
			writeLine(b, indent, o, f.name+":")
			writeFields(b, fv, indent+"  ", o)
		case fv.Kind() == reflect.Slice && fv.Type().Elem().Kind() == reflect.Struct:
			writeLine(b, indent, true, f.name+":")
			items := fv
			if items.Len() == 0 { // one to start from
				items = reflect.Append(items, entry(fv.Type().Elem()))
			}
			for i := range items.Len() {
				var item strings.Builder
				writeFields(&item, items.Index(i), indent+"  ", true)
				b.WriteString(dash(item.String(), indent))
			}
		default:
			value, empty := text(fv), fv.IsZero()
			if empty && f.tag.Get("example") != "" {
				value = f.tag.Get("example")
			} else {
				empty = false
			}
			writeLine(b, indent, off || empty, f.name+": "+value)
		}
	}
}

// dash marks the first key of a list's entry. Comments stay before it.
func dash(item, indent string) string {
	lines := strings.Split(item, "\n")
	i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, indent+"  #") && !strings.HasPrefix(l, indent+"  # ") })
	if i >= 0 {
		lines[i] = indent + "#- " + strings.TrimPrefix(lines[i], indent+"  #")
	}
	return strings.Join(lines, "\n")
}

func writeLine(b *strings.Builder, indent string, off bool, s string) {
	if off {
		s = "#" + s
	}
	b.WriteString(indent + s + "\n")
}

func writeDoc(b *strings.Builder, indent, doc string) {
	line := indent + "#"
	for word := range strings.FieldsSeq(doc) {
		if len(line)+1+len(word) > 100 {
			b.WriteString(line + "\n")
			line = indent + "#"
		}
		line += " " + word
	}
	b.WriteString(line + "\n")
}

func allEmpty(v reflect.Value) bool {
	for _, f := range fields(v.Type()) {
		if !v.Field(f.index).IsZero() || f.tag.Get("example") == "" {
			return false
		}
	}
	return true
}

// text is a value as it is written in YAML.
func text(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case fmt.Stringer:
		return x.String()
	case []string:
		var q []string
		for _, s := range x {
			q = append(q, fmt.Sprintf("%q", s))
		}
		return "[" + strings.Join(q, ", ") + "]"
	case string:
		if x == "" {
			return `""`
		}
	}
	return fmt.Sprint(v.Interface())
}
