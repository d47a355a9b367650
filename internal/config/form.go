package config

import (
	"reflect"
	"slices"
)

// A Form is another kind of YAML file that is read as strictly as cairn.yaml:
// unknown keys, repeated ones and values of the wrong kind are errors with their
// line and the cure. T is a struct whose fields, and those of structs within,
// have the tags yaml and doc, and perhaps enum, glob, example and required.
// Fields are strings, booleans, whole numbers, [Duration], [Size], structs, and
// lists of strings and of structs.
type Form[T any] struct {
	Title string // such as .cairn.yaml
	// Default is a file without keys.
	Default func() *T
	// Entry is what an entry of a list of structs of that type starts from; nil:
	// from nothing.
	Entry func(reflect.Type) reflect.Value
}

// A Reading is a file that was read, and what is wrong in it so far.
type Reading[T any] struct {
	Value  *T
	d      *decoder
	unread int // problems of reading: what could not be read is not judged as well
}

// Read reads a file that errors call name.
func (f Form[T]) Read(name string, b []byte) *Reading[T] {
	r := &Reading[T]{Value: f.Default(), d: &decoder{file: name, lines: map[string]place{}, entry: f.entry()}}
	r.d.document(b, r.Value)
	r.unread = len(r.d.problems)
	return r
}

func (f Form[T]) entry() func(reflect.Type) reflect.Value {
	if f.Entry == nil {
		return reflect.Zero
	}
	return f.Entry
}

// Has reports whether the file has the key, such as retention.policies#2.after.
func (r *Reading[T]) Has(key string) bool {
	_, ok := r.d.lines[key]
	return ok
}

// Fail notes what is wrong with a key, unless it could not be read anyway.
func (r *Reading[T]) Fail(key, format string, args ...any) {
	if !slices.ContainsFunc(r.d.problems[:r.unread], func(p Problem) bool { return related(p.Key, key) }) {
		r.d.problems = append(r.d.problems, r.d.at(key, format, args...))
	}
}

// Err is everything wrong, as an [*Error], or nil.
func (r *Reading[T]) Err() error {
	if len(r.d.problems) == 0 {
		return nil
	}
	return &Error{Problems: sorted(r.d.problems)}
}

// Schema is the JSON Schema (2020-12) of such files.
func (f Form[T]) Schema() []byte { return schema(f.Title, f.Default(), f.entry()) }

// A Key is one line of a reference of such files.
type Key struct {
	Name    string // rules[].range: a list's entries have it
	Default string // as it is written; "" when nothing is
	Values  string // those that there are, divided by commas; "" for any
	Doc     string
}

// Keys lists all keys in the order of the struct.
func (f Form[T]) Keys() []Key { return keysOf(reflect.ValueOf(f.Default()).Elem(), "", f.entry()) }

func keysOf(v reflect.Value, path string, entry func(reflect.Type) reflect.Value) (out []Key) {
	for _, f := range fields(v.Type()) {
		fv := v.Field(f.index)
		k := Key{Name: join(path, f.name), Values: f.tag.Get("enum"), Doc: f.tag.Get("doc")}
		switch {
		case fv.Kind() == reflect.Struct:
			out = append(append(out, k), keysOf(fv, k.Name, entry)...)
		case fv.Kind() == reflect.Slice && fv.Type().Elem().Kind() == reflect.Struct:
			k.Name += "[]"
			out = append(append(out, k), keysOf(entry(fv.Type().Elem()), k.Name, entry)...)
		default:
			if !fv.IsZero() {
				k.Default = text(fv)
			}
			out = append(out, k)
		}
	}
	return out
}

// Nearest is the known word that was probably meant, as the end of a sentence:
// `; did you mean "after"?`, or "".
func Nearest(word string, known []string) string { return didYouMean(word, known) }
