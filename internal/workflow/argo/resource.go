package argo

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/itchyny/gojq"

	"cairn.dev/cairn/internal/task"
	waited "cairn.dev/cairn/internal/task/condition"
	"cairn.dev/cairn/internal/task/jsonpath"
	"cairn.dev/cairn/internal/workflow"
	"cairn.dev/cairn/internal/workflow/document"
)

// resource is a template that makes a request to the API server of its cluster.
type resource struct {
	action, patch    string
	manifest         workflow.Expr // nil for none
	from             *inputFile    // whose text is the manifest; nil for none
	flags            []workflow.Expr
	success, failure workflow.Expr
	owner            bool
	read             map[string]task.Reading
}

var (
	actions = []string{"get", "create", "apply", "patch", "delete", "replace"}
	patches = []string{"strategic", "merge", "json"}
)

// resource compiles one.
func (c *compiler) resource(tmpl *document.Node, t *workflow.Template, p *place) *leaf {
	n := tmpl.Get("resource")
	if c.check(n, "resource"); !c.opts.Cluster {
		n.FailKey("resource makes requests to a cluster: it needs Kubernetes")
	}
	c.g.Cluster = "it makes requests to the API server of one"
	for _, k := range []string{"sidecars", "initContainers", "volumes"} {
		if x := tmpl.Get(k); x != nil {
			x.FailKey("%s goes with a container, and not with resource", k)
		}
	}
	r := &resource{owner: n.Get("setOwnerReference").Bool(), read: map[string]task.Reading{}}
	word := func(key string, words []string) string {
		x := n.Get(key)
		if x != nil && !slices.Contains(words, x.Text()) {
			x.Fail("%.40q: this has to be one of %s%s", x.Text(), strings.Join(words, ", "), document.Meant(x.Text(), words))
		}
		return x.Text()
	}
	if r.action, r.patch = word("action", actions), word("mergeStrategy", patches); r.action == "" {
		n.Fail("there is no action: write one of %s", strings.Join(actions, ", "))
	}
	if x := n.Get("mergeStrategy"); x != nil && r.action != "patch" {
		x.FailKey("mergeStrategy goes with action: patch")
	}
	r.success, r.failure = c.waits(n.Get("successCondition"), p), c.waits(n.Get("failureCondition"), p)
	constant := true
	var words []string
	for _, e := range n.Get("flags").List() {
		x := c.textOf(e, p)
		k, is := x.(workflow.Constant)
		constant, words = constant && is, append(words, k.String())
		r.flags = append(r.flags, x)
	}
	from := n.Get("manifest")
	if source := n.Get("manifestFrom"); source != nil {
		if from != nil {
			source.FailKey("manifest stands there, too: keep one")
		}
		from, r.from = c.manifestFrom(tmpl, source, p)
	}
	if from != nil {
		r.manifest = c.manifest(from, p)
	}
	var named task.Resource
	if constant {
		if err := flags(r.action, words, &named); err != nil {
			n.Get("flags").Fail("%v", err)
		}
	}
	object, is := r.manifest.(dict)
	_, list := r.manifest.(tree)
	switch {
	case r.from != nil:
	case from == nil && (len(words) == 0 || slices.Contains([]string{"create", "apply", "patch", "replace"}, r.action)):
		n.Fail("there is no manifest")
	case list != (r.patch == "json") && (list || is):
		from.Fail("%s", map[bool]string{true: "a patch of type json is a list of changes: - op: add …", false: "the manifest has to be an object"}[r.patch == "json"])
	case constant && named.Kind == "" && (list || is && (!object.has("kind") || !object.has("apiVersion"))):
		from.Fail("which object? Write apiVersion and kind in the manifest, or its kind and name as flags")
	}
	l := &leaf{resource: r, pod: c.pod(tmpl, nil, p)}
	for _, k := range []string{"volumes", "volumeClaimTemplates", "container"} { // no container has them
		delete(l.pod, k)
	}
	return l
}

// waits compiles a condition of what is waited for.
func (c *compiler) waits(n *document.Node, p *place) workflow.Expr {
	x := c.textOf(n, p)
	if k, ok := x.(workflow.Constant); ok {
		if _, err := waited.Parse(k.String()); err != nil {
			n.Fail("%v", err)
		}
	}
	return x
}

// places are the fields of an artifact that say where it is.
var places = []string{"from", "fromExpression", "raw", "http", "git", "s3"}

// manifestPath is where the manifest would be, if the request had a container.
const manifestPath = "/tmp/manifest.yaml"

// manifestFrom is an artifact whose text is the manifest: an input of the
// template, as Argo has it, or one that says itself where it is. What stands in
// the document itself is read here, so that values keep their places.
func (c *compiler) manifestFrom(tmpl, n *document.Node, p *place) (raw *document.Node, from *inputFile) {
	c.check(n, "manifestFrom")
	a := n.Get("artifact")
	if a == nil {
		n.Fail("which artifact? Write artifact: {name: …}, the name of an input")
		return nil, &inputFile{}
	}
	name := a.Get("name").Text()
	if raw = a.Get("raw").Get("data"); raw != nil {
		c.check(a, "artifact")
		return raw, nil
	}
	from = &inputFile{name: name, path: workflow.Constant{Value: manifestPath}}
	if from.own = slices.ContainsFunc(a.Entries(), func(e document.Entry) bool { return slices.Contains(places, e.Key) }); from.own {
		from.source = c.source(a, p)
		return nil, from
	}
	if c.check(a, "artifact"); !p.artifacts[name] {
		a.Fail("there is no artifact %q among the inputs%s", name, document.Meant(name, slices.Collect(keys(p.artifacts))))
	}
	for _, e := range tmpl.Get("inputs").Get("artifacts").List() {
		if e.Get("name").Text() == name {
			from.source = c.source(e, p)
		}
	}
	return nil, from
}

// reads compiles an output that is read from the object, if it is one.
func (r *resource) reads(o *document.Node) bool {
	from := o.Get("valueFrom")
	path, filter := from.Get("jsonPath"), from.Get("jqFilter")
	if path == nil && filter == nil {
		return false
	}
	w := task.Reading{Path: path.Text(), Filter: filter.Text()}
	switch {
	case path != nil && filter != nil:
		filter.FailKey("jsonPath stands there, too: keep one")
	case strings.Contains(w.Path+w.Filter, "{{"):
		from.Fail("tags are not supported in what reads an object")
	case path != nil:
		if _, err := jsonpath.Parse(w.Path); err != nil {
			path.Fail("%v", err)
		}
	default:
		if err := checkFilter(w.Filter); err != nil {
			filter.Fail("jq: %v", err)
		}
	}
	if d := from.Get("default"); d != nil {
		text := d.Text()
		w.Default = &text
	}
	r.read[o.Get("name").Text()] = w
	return true
}

func checkFilter(s string) error {
	if len(s) > maxExpr {
		return fmt.Errorf("a filter of %d bytes: the limit is %d", len(s), maxExpr)
	}
	q, err := gojq.Parse(s)
	if err == nil {
		_, err = gojq.Compile(q)
	}
	return err
}

// render fills the request in.
func (r *resource) render(fill *rendering, t *task.Task, pod map[string]workflow.Expr) {
	out := &task.Resource{Action: r.action, Patch: r.patch, Success: fill.text("successCondition", r.success), Failure: fill.text("failureCondition", r.failure), Read: r.read}
	if r.owner {
		out.Owner = &task.Owner{} // whose object the run is, the cluster's dispatcher knows
	}
	var words []string
	for _, e := range r.flags {
		words = append(words, fill.text("flags", e))
	}
	fill.note("flags", flags(r.action, words, out))
	if r.manifest != nil && fill.err == nil {
		v, err := r.manifest.Eval(fill.scope)
		if err == nil {
			out.Manifest, err = json.Marshal(v)
		}
		if err == nil && len(out.Manifest) > task.MaxManifest {
			err = fmt.Errorf("it has %d bytes, the limit is %d", len(out.Manifest), task.MaxManifest)
		}
		fill.note("manifest", err)
	}
	if r.from != nil {
		if in, given := fill.input(*r.from); given {
			out.From, t.Inputs = in.Name, append(t.Inputs, in)
		} else {
			fill.note("manifest", fmt.Errorf("there is no artifact %s", r.from.name))
		}
	}
	if n, ok := fill.scope.Lookup("retries"); ok {
		f, _ := n.(float64)
		out.Try = int(f)
	}
	t.Resource = out
	fill.pod(t, pod)
}

// flags reads flags of kubectl, as far as they mean something for a request, and
// the words beside them: a kind and a name, or KIND/NAME.
func flags(action string, words []string, to *task.Resource) error {
	var plain []string
	for i := 0; i < len(words); i++ {
		w := words[i]
		if !strings.HasPrefix(w, "-") {
			plain = append(plain, w)
			continue
		}
		name, value, given := strings.Cut(w, "=")
		next := func() (string, error) {
			if !given {
				if i++; i == len(words) {
					return "", fmt.Errorf("%s has no value", name)
				}
				value = words[i]
			}
			return value, nil
		}
		yes := func() bool { return !given || value == "true" }
		var err error
		switch name {
		case "-n", "--namespace":
			to.Namespace, err = next()
		case "-l", "--selector":
			if to.Selector, err = next(); err == nil && action != "delete" {
				err = fmt.Errorf("%s goes with action: delete", name)
			}
		case "--all":
			if to.All = yes(); action != "delete" {
				err = fmt.Errorf("%s goes with action: delete", name)
			}
		case "--ignore-not-found":
			to.Missing = yes()
		case "--validate":
			to.Lenient = given && value != "true" && value != "strict"
		case "--subresource":
			to.Subresource, err = next()
		case "--cascade":
			if to.Propagation = value; !given {
				to.Propagation = "background"
			}
			if !slices.Contains([]string{"background", "foreground", "orphan"}, to.Propagation) {
				err = fmt.Errorf("%s: there are background, foreground and orphan", w)
			}
		case "--grace-period":
			if value, err = next(); err == nil {
				var n int64
				if n, err = strconv.ParseInt(value, 10, 32); err == nil && n >= 0 {
					to.Grace = &n
				}
			}
		case "--now":
			one := int64(1)
			to.Grace = &one
		case "--force":
			if none := int64(0); action == "delete" {
				to.Grace = &none
			}
		case "--server-side", "--force-conflicts", "--wait": // so it is done
			if given && value != "true" {
				err = fmt.Errorf("%s is not supported", w)
			}
		default:
			err = fmt.Errorf("the flag %.40s is not supported", w)
		}
		if err != nil {
			return err
		}
	}
	if len(plain) == 1 {
		if kind, name, ok := strings.Cut(plain[0], "/"); ok {
			plain = []string{kind, name}
		}
	}
	switch {
	case len(plain) > 2:
		return fmt.Errorf("%.80q: one kind and one name are expected", strings.Join(plain, " "))
	case len(plain) == 2:
		to.Kind, to.Name = plain[0], plain[1]
	case len(plain) == 1:
		to.Kind = plain[0]
	}
	if to.Kind != "" && to.Name == "" && to.Selector == "" && !to.All {
		return fmt.Errorf("%.80q: which one? Write its name behind it", to.Kind)
	}
	return nil
}
