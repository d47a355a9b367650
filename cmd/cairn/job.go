package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/workflow"
)

// A job is what the command line says of a container: it becomes a document of
// a workflow, so that the server knows one kind of work only.
type job struct {
	image string
	words []string // behind --
	each  bool     // for each item of a list
	files bool     // the items are files

	itemFile    string
	parallelism int
	failFast    bool
	env         []string
	retries     int
	timeout     config.Duration
	cpu, memory string
	command     bool
	isolation   string
}

// items is the parameter of the document that is the list.
const items = "items"

// document writes the workflow. Whatever the words hold comes out of it as it
// went in.
func (j *job) document(getenv func(string) string) ([]byte, error) {
	if j.parallelism < 0 || j.retries < 0 {
		return nil, usagef("--parallelism and --retries cannot be negative")
	}
	for _, w := range append([]string{j.image, j.itemFile}, append(j.words, j.env...)...) {
		if !utf8.ValidString(w) {
			return nil, usagef("%q is no UTF-8: hand it over in a file", w)
		}
	}
	task := map[string]any{"name": "run", "image": literal(j.image)}
	spec := map[string]any{"tasks": []any{task}}
	words := j.filled()
	if j.each {
		kind := "file" // which holds them
		if j.files {
			kind = "json" // a list of files
		}
		spec["inputs"] = map[string]any{items: map[string]any{"type": kind}}
		spec["failFast"] = j.failFast
		task["forEach"] = "${{ inputs." + items + " }}"
		if j.parallelism > 0 {
			task["parallelism"] = j.parallelism
		}
		if j.itemFile != "" {
			task["files"] = map[string]any{j.itemFile: item}
		}
	}
	if len(words) > 0 {
		key := "args"
		if j.command {
			key = "command"
		}
		task[key] = words
	} else if j.command {
		return nil, usagef("--command: write the command behind --")
	}
	env := map[string]any{}
	for _, e := range j.env {
		k, v, ok := strings.Cut(e, "=")
		if !ok {
			v = getenv(k)
		}
		env[k] = literal(v)
	}
	if len(env) > 0 {
		task["env"] = env
	}
	if j.retries > 0 {
		task["retries"] = j.retries
	}
	if j.timeout > 0 {
		task["timeout"] = j.timeout.Std().String()
	}
	if j.isolation != "" {
		task["isolation"] = j.isolation
	}
	resources := map[string]any{}
	if j.cpu != "" {
		resources["cpu"] = j.cpu
	}
	if j.memory != "" {
		resources["memory"] = j.memory
	}
	if len(resources) > 0 {
		task["resources"] = resources
	}
	b, err := json.MarshalIndent(map[string]any{
		"apiVersion": workflow.Version, "kind": "Workflow",
		"metadata": map[string]any{"name": runName(j.image)},
		"spec":     spec,
	}, "", " ")
	if err != nil {
		return nil, fmt.Errorf("write the workflow: %w", err)
	}
	return escaped(b), nil
}

// escaped writes characters that JSON may hold and YAML may not as both have
// them.
func escaped(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for _, r := range string(b) {
		switch {
		case r >= 0x7f && r < 0xa0, r == 0xfeff, r == 0xfffe, r == 0xffff:
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			out = utf8.AppendRune(out, r)
		}
	}
	return out
}

// item is the expression that gives an item.
const item = "${{ item }}"

// filled is the words, with the item where {} stands, or at the end.
func (j *job) filled() []string {
	var out []string
	found := false
	for _, w := range j.words {
		parts := []string{w}
		if j.each {
			parts = strings.Split(w, "{}")
		}
		for i, p := range parts {
			parts[i] = literal(p)
		}
		found = found || len(parts) > 1
		out = append(out, strings.Join(parts, item))
	}
	if j.each && !found && j.itemFile == "" {
		out = append(out, item)
	}
	return out
}

// literal is a text in which nothing is an expression.
func literal(s string) string { return strings.ReplaceAll(s, "${{", `${{ "${{" }}`) }

// runName makes the beginning of a name from an image's.
func runName(image string) string {
	name, _, _ := strings.Cut(image, "@")
	name = name[strings.LastIndexByte(name, '/')+1:]
	name, _, _ = strings.Cut(name, ":")
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, name)
	if name = strings.Trim(name, "-"); len(name) > 40 {
		name = strings.Trim(name[:40], "-")
	}
	return cmp.Or(name, "run") + "-"
}
