package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFile bounds the file, in bytes.
const maxFile = 1 << 20

// Load reads the file, applies the environment and validates the whole. An
// empty path stands for an empty file. What is wrong comes as an [*Error];
// the configuration is then nil.
func Load(path string) (*Config, error) {
	var b []byte
	if path != "" {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
		defer f.Close()
		if b, err = io.ReadAll(io.LimitReader(f, maxFile+1)); err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
	}
	return parse(path, b, os.Getenv)
}

// Parse is [Load] without the environment, of text that is in memory. name is
// what errors call the file, and relative paths in it are relative to its folder.
func Parse(name string, b []byte) (*Config, error) {
	return parse(name, b, func(string) string { return "" })
}

func parse(name string, b []byte, env func(string) string) (*Config, error) {
	c := Default()
	d := &decoder{file: name, lines: map[string]place{}, entry: blank}
	d.document(b, c)
	_, c.Retention.Explicit = d.lines["retention.policies"]
	d.environment(c, env)
	// What could not be read is not judged as well.
	unread := d.problems
	for _, p := range c.validate(d.at) {
		if !slices.ContainsFunc(unread, func(u Problem) bool { return related(u.Key, p.Key) }) {
			d.problems = append(d.problems, p)
		}
	}
	if len(d.problems) > 0 {
		return nil, &Error{Problems: sorted(d.problems)}
	}
	files := map[string]*string{"data": &c.Data, "tls.cert": &c.TLS.Cert, "tls.key": &c.TLS.Key}
	for i := range c.Mirrors {
		m := &c.Mirrors[i]
		key := fmt.Sprintf("mirrors#%d.", i+1)
		files[key+"password_file"], files[key+"ca_file"] = &m.PasswordFile, &m.CAFile
	}
	for i := range c.Clusters {
		key := fmt.Sprintf("clusters#%d.", i+1)
		files[key+"ca_file"] = &c.Clusters[i].CAFile
		if k := &c.Clusters[i]; !strings.Contains(k.JWKS, "://") {
			files[key+"jwks"] = &k.JWKS
		}
	}
	c.Bump.files(files)
	c.Work.files(files)
	for key, p := range files {
		if from, ok := d.lines[key]; ok && from.env == "" && *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(filepath.Dir(name), *p)
			// Workflows name these folders, and do not know where we were started.
			if abs, err := filepath.Abs(*p); err == nil && strings.HasPrefix(key, "work.folders") {
				*p = abs
			}
		}
	}
	return c, nil
}

// related reports whether one key is the other or inside it.
func related(a, b string) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	rest, ok := strings.CutPrefix(b, a)
	return ok && a != "" && (rest == "" || rest[0] == '.' || rest[0] == '#')
}

// place is where a value came from.
type place struct {
	line int
	env  string // the variable, when it was that
}

// decoder walks the nodes of a YAML document beside the struct they fill.
type decoder struct {
	file     string
	problems []Problem
	lines    map[string]place // of each key that was set
	root     reflect.Type
	entry    func(reflect.Type) reflect.Value // what an entry of a list starts from
}

func (d *decoder) fail(line int, key, format string, args ...any) {
	d.problems = append(d.problems, Problem{File: d.file, Line: line, Key: key, Why: fmt.Sprintf(format, args...)})
}

// at makes a problem of the key, at the place it or the nearest key around it was set.
func (d *decoder) at(key, format string, args ...any) Problem {
	p := Problem{File: d.file, Key: key, Why: fmt.Sprintf(format, args...)}
	if p.File == "" {
		p.File = "configuration"
	}
	for k := key; k != ""; {
		if from, ok := d.lines[k]; ok {
			p.Line = from.line
			if from.env != "" {
				p.File, p.Line = from.env, 0
			}
			break
		}
		i := strings.LastIndexAny(k, ".#")
		if i < 0 {
			break
		}
		k = k[:i]
	}
	return p
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// document fills the struct that to points at.
func (d *decoder) document(b []byte, to any) {
	d.root = reflect.TypeOf(to).Elem()
	if len(b) > maxFile {
		d.fail(0, "", "the file is larger than %d bytes: this is no configuration of Cairn", maxFile)
		return
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return // empty: all defaults
	case err != nil:
		line := 0
		if m := yamlLine.FindStringSubmatch(err.Error()); m != nil && m[1] != "" {
			line, _ = strconv.Atoi(m[1])
		}
		d.fail(line, "", "not YAML: %s", yamlLine.ReplaceAllString(err.Error(), ""))
		return
	}
	var second yaml.Node
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		d.fail(max(second.Line, 1), "", "the file goes on after its first YAML document: remove the --- and what follows it")
	}
	root := doc.Content[0]
	if isNull(root) {
		return
	}
	d.value(root, reflect.ValueOf(to).Elem(), "", "")
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// field of a struct that has a key.
type field struct {
	name  string
	index int
	tag   reflect.StructTag
}

func fields(t reflect.Type) []field {
	var out []field
	for i := range t.NumField() {
		f := t.Field(i)
		if name, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); name != "-" && f.IsExported() {
			out = append(out, field{name, i, f.Tag})
		}
	}
	return out
}

func names(fs []field) []string {
	var out []string
	for _, f := range fs {
		out = append(out, f.name)
	}
	return out
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// value fills v from n. What is wrong is noted and v left as it was.
func (d *decoder) value(n *yaml.Node, v reflect.Value, path string, tag reflect.StructTag) {
	if n.Kind == yaml.AliasNode {
		d.fail(n.Line, path, "aliases (*%s) are not read: write the value out", n.Value)
		return
	}
	switch v.Interface().(type) {
	case Duration, Size:
		if d.scalar(n, path, "a quantity such as "+sample(v)) {
			if err := v.Addr().Interface().(interface{ Set(string) error }).Set(n.Value); err != nil {
				d.fail(n.Line, path, "%v", err)
			}
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.mapping(n, v, path)
	case reflect.Slice:
		d.list(n, v, path, tag)
	case reflect.String:
		if !d.scalar(n, path, "text") {
			return
		}
		if n.ShortTag() != "!!str" {
			d.fail(n.Line, path, "%s is not text: put it in quotes", n.Value)
			return
		}
		if enum := tag.Get("enum"); enum != "" {
			if all := strings.Split(enum, ","); !slices.Contains(all, n.Value) {
				d.fail(n.Line, path, "%q is not one of %s%s", n.Value, strings.Join(all, ", "), didYouMean(n.Value, all))
				return
			}
		}
		v.SetString(n.Value)
	case reflect.Bool:
		if d.scalar(n, path, "true or false") {
			if n.ShortTag() != "!!bool" {
				d.fail(n.Line, path, "%q: write true or false", n.Value)
				return
			}
			v.SetBool(strings.EqualFold(n.Value, "true"))
		}
	case reflect.Int:
		if d.scalar(n, path, "a number") {
			i, err := strconv.Atoi(n.Value)
			if err != nil {
				d.fail(n.Line, path, "%q is not a whole number: write digits only", n.Value)
				return
			}
			v.SetInt(int64(i))
		}
	default:
		d.fail(n.Line, path, "Cairn cannot read values of type %s; please report this", v.Type())
	}
}

func sample(v reflect.Value) string {
	if _, ok := v.Interface().(Size); ok {
		return "10GiB"
	}
	return "30d"
}

// scalar reports whether n is one value.
func (d *decoder) scalar(n *yaml.Node, path, want string) bool {
	switch {
	case isNull(n):
		d.fail(n.Line, path, "no value: write %s, or remove the key", want)
	case n.Kind != yaml.ScalarNode:
		d.fail(n.Line, path, "this is a %s: write %s", kindName(n), want)
	default:
		return true
	}
	return false
}

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "mapping of keys to values"
	case yaml.SequenceNode:
		return "list"
	}
	return "single value"
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value, path string) {
	fs := fields(v.Type())
	if isNull(n) {
		return // a section with nothing in it
	}
	if n.Kind != yaml.MappingNode {
		d.fail(n.Line, path, "this is a %s: write keys and values, of %s", kindName(n), strings.Join(names(fs), ", "))
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, val := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode {
			d.fail(k.Line, path, "a key must be a single word, of %s", strings.Join(names(fs), ", "))
			continue
		}
		if line, ok := seen[k.Value]; ok {
			d.fail(k.Line, join(path, k.Value), "the key is also on line %d: keep one of them", line)
			continue
		}
		seen[k.Value] = k.Line
		f := slices.IndexFunc(fs, func(f field) bool { return f.name == k.Value })
		if f < 0 {
			d.unknown(k, path, names(fs))
			continue
		}
		key := join(path, k.Value)
		d.lines[key] = place{line: k.Line}
		d.value(val, v.Field(fs[f].index), key, fs[f].tag)
	}
}

// unknown says what the writer may have meant: a key that reads alike, or the
// same key in another section.
func (d *decoder) unknown(k *yaml.Node, path string, known []string) {
	where := ""
	if path != "" {
		where = " in " + path
	}
	hint := didYouMean(k.Value, known)
	if hint == "" {
		for _, full := range allKeys(d.root, "") {
			if strings.HasSuffix("."+full, "."+k.Value) {
				hint = fmt.Sprintf("; did you mean %q?", full)
				break
			}
		}
	}
	if hint == "" {
		if near, ok := nearest(k.Value, allKeys(d.root, "")); ok {
			hint = fmt.Sprintf("; did you mean %q?", near)
		}
	}
	if hint == "" {
		hint = ": known here are " + strings.Join(known, ", ")
	}
	d.fail(k.Line, "", "unknown key %.80q%s%s", k.Value, where, hint)
}

func didYouMean(s string, known []string) string {
	if near, ok := nearest(s, known); ok {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}

// allKeys lists every key by its full name, lists left away.
func allKeys(t reflect.Type, path string) []string {
	var out []string
	for _, f := range fields(t) {
		key := join(path, f.name)
		out = append(out, key)
		ft := t.Field(f.index).Type
		if ft.Kind() == reflect.Slice {
			ft = ft.Elem()
		}
		if ft.Kind() == reflect.Struct {
			out = append(out, allKeys(ft, key)...)
		}
	}
	return out
}

func (d *decoder) list(n *yaml.Node, v reflect.Value, path string, tag reflect.StructTag) {
	elem := v.Type().Elem()
	if isNull(n) {
		d.fail(n.Line, path, "no value: write [] for none, or remove the key")
		return
	}
	items := n.Content
	if n.Kind != yaml.SequenceNode {
		if elem.Kind() != reflect.String {
			d.fail(n.Line, path, "this is a %s: write a list, each entry after a dash", kindName(n))
			return
		}
		items = []*yaml.Node{n} // one glob needs no list
	}
	out := reflect.MakeSlice(v.Type(), 0, len(items))
	for i, item := range items {
		key := path
		if n.Kind == yaml.SequenceNode {
			key = fmt.Sprintf("%s#%d", path, i+1)
		}
		d.lines[key] = place{line: item.Line}
		e := reflect.New(elem).Elem()
		if elem.Kind() == reflect.Struct {
			e.Set(d.entry(elem))
		}
		before := len(d.problems)
		d.value(item, e, key, tag)
		if glob := tag.Get("glob"); glob != "" && len(d.problems) == before {
			if err := checkGlob(glob, e.String()); err != nil {
				d.fail(item.Line, key, "%v", err)
			}
		}
		out = reflect.Append(out, e)
	}
	v.Set(out)
}

// environment applies the variables that override the file.
func (d *decoder) environment(c *Config, env func(string) string) {
	for _, e := range []struct {
		name, key string
		to        *string
	}{{"CAIRN_LISTEN", "listen", &c.Listen}, {"CAIRN_DATA", "data", &c.Data}} {
		if v := env(e.name); v != "" {
			*e.to = v
			d.lines[e.key] = place{env: e.name}
		}
	}
}
