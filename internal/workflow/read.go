package workflow

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"cairn.dev/cairn/internal/workflow/document"
)

// Version is the apiVersion of our documents.
const Version = "cairn.dev/v1alpha1"

// Bounds of documents.
const (
	maxTasks   = 2000
	maxEntries = 1000 // of arguments, variables, outputs, …
	maxUses    = 20   // templates in templates
)

// Names are such that expressions can say them.
var nameRE = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,62}$`)

// objectRE is what Kubernetes takes for the name of an object.
var objectRE = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)

// reserved are names that CEL keeps for itself.
var reserved = []string{"true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "package", "namespace", "return", "var", "void", "while"}

// The fields of our documents; the schema is made of the same lists.
var (
	objectFields   = []string{"apiVersion", "kind", "metadata", "spec"}
	metadataFields = []string{"name", "namespace", "labels", "annotations"}
	workflowFields = []string{"inputs", "outputs", "tasks", "onExit", "parallelism", "failFast", "timeout", "priority", "locks", "keep", "retryBudget", "suspended", "isolation", "pod", "description"}
	cronFields     = []string{"schedules", "timezone", "overlap", "suspended", "late", "keepSucceeded", "keepFailed", "workflow"}
	taskFields     = []string{"name", "image", "command", "args", "script", "env", "workdir", "files", "outputs", "needs", "runs", "when", "forEach", "parallelism", "retries", "timeout", "grace", "resources", "user", "isolation", "volumes", "locks", "cache", "allowFailure", "daemon", "ready", "pod", "uses", "with", "suspend", "resource", "description", "logLimit"}
	inputFields    = []string{"type", "default", "optional", "enum", "description"}
	outputFields   = []string{"type", "path", "value", "default", "optional", "description"}
	valueFields    = []string{"type", "value", "default", "description"}
	retryFields    = []string{"limit", "on", "when", "delay", "factor", "maxDelay", "for"}
	eachFields     = []string{"files", "s3", "match", "count", "start", "format", "in"}
	requestFields  = []string{"action", "manifest", "patch", "success", "failure", "owner", "account"}
	resourceFields = []string{"cpu", "memory"}
	lockFields     = []string{"name", "size"}
	cacheFields    = []string{"key", "name", "maxAge"}
	suspendFields  = []string{"for", "outputs"}
	readyFields    = []string{"port", "path"}
	volumeFields   = []string{"name", "path", "claim", "readOnly"}
)

var (
	types_     = []string{"json", "lines", "text", "file", "folder"}
	isolations = []string{"auto", "overlay", "readonly", "pod", "shared"}
)

// object is what all documents have in common.
type object struct {
	kind, name, namespace string
	labels                map[string]string
	node, spec            *document.Node
}

func readObject(n *document.Node) *object {
	n.Known(objectFields...)
	o := &object{kind: n.Get("kind").Text(), node: n, spec: n.Get("spec")}
	if o.spec == nil {
		n.Fail("there is no spec")
		return nil
	}
	m := n.Get("metadata")
	m.Known(metadataFields...)
	o.name, o.namespace = m.Get("name").Text(), m.Get("namespace").Text()
	switch {
	case o.name == "":
		n.Fail("there is no metadata.name")
	case !objectRE.MatchString(strings.TrimSuffix(o.name, "-")):
		m.Get("name").Fail("%.80q is no name: use lower-case letters, digits, '-' and '.'; with a '-' at its end a name is made from it", o.name)
	}
	if o.namespace != "" && !objectRE.MatchString(o.namespace) {
		m.Get("namespace").Fail("%.80q is no namespace: use lower-case letters, digits and '-'", o.namespace)
	}
	o.labels = map[string]string{}
	for _, e := range m.Get("labels").Entries() {
		o.labels[e.Key] = e.Node.Text()
	}
	return o
}

// checkName says what is wrong with the name of a task, input or output.
func checkName(n *document.Node, what, s string) bool {
	switch {
	case slices.Contains(reserved, s):
		n.FailKey("%q is a word of expressions: choose another name for the %s", s, what)
	case !nameRE.MatchString(s):
		n.FailKey("%.80q is no name of a %s: use letters, digits and '_', so that expressions can say it", s, what)
	default:
		return true
	}
	return false
}

// oneOf reads a word out of a few.
func oneOf(n *document.Node, words []string, or string) string {
	if n == nil {
		return or
	}
	s := n.Text()
	if !slices.Contains(words, s) {
		n.Fail("%.40q: this has to be one of %s%s", s, strings.Join(words, ", "), document.Meant(s, words))
		return or
	}
	return s
}

// entries are those of a map of names, bounded.
func entries(n *document.Node, what string) []document.Entry {
	es := n.Entries()
	if len(es) > maxEntries {
		n.Fail("%d %ss: the limit is %d", len(es), what, maxEntries)
		return nil
	}
	return slices.DeleteFunc(es, func(e document.Entry) bool { return !checkName(e.Node, what, e.Key) })
}

// ParseQuantity reads a quantity of Kubernetes, such as 500m, 2, 64Mi or 1G, in
// thousandths.
func ParseQuantity(s string) (int64, error) {
	wrong := fmt.Errorf("%.40q is no quantity: write one such as 500m, 2, 64Mi or 1G", s)
	end := len(s)
	for end > 0 && (s[end-1] < '0' || s[end-1] > '9') {
		end--
	}
	scale, ok := map[string]float64{"m": 1, "": 1e3, "k": 1e6, "M": 1e9, "G": 1e12, "T": 1e15, "Ki": 1 << 10 * 1e3, "Mi": 1 << 20 * 1e3, "Gi": 1 << 30 * 1e3, "Ti": 1 << 40 * 1e3}[s[end:]]
	f, err := strconv.ParseFloat(s[:end], 64)
	if err != nil || !ok || f < 0 || !(f*scale < 1<<62) {
		return 0, wrong
	}
	return int64(f * scale), nil
}

func quantity(n *document.Node) int64 {
	if n == nil {
		return 0
	}
	v, err := ParseQuantity(n.Text())
	if err != nil {
		n.Fail("%v", err)
	}
	return v
}

// readRetry reads a number of retries, or how they are made.
func (c *compiler) readRetry(n *document.Node) *Retry {
	if n == nil {
		return nil
	}
	if !n.IsMap() {
		return &Retry{Limit: Constant{float64(n.Int(0, 1000))}, On: "failure"}
	}
	n.Known(retryFields...)
	r := &Retry{
		On:    oneOf(n.Get("on"), []string{"failure", "error", "always", "transient"}, "failure"),
		Delay: n.Get("delay").Duration(), MaxDelay: n.Get("maxDelay").Duration(), For: n.Get("for").Duration(),
	}
	if l := n.Get("limit"); l != nil {
		r.Limit = Constant{float64(l.Int(0, 1000))}
	}
	if f := n.Get("factor"); f != nil {
		v, err := strconv.ParseFloat(f.Text(), 64)
		if err != nil || v < 1 || v > 100 {
			f.Fail("%.40q: this has to be a number from 1 to 100", f.Text())
		}
		r.Factor = v
	}
	if w := n.Get("when"); w != nil {
		if e, err := newEnv(append(slices.Clone(runNames), retryNames...)); err != nil {
			w.Fail("%v", err)
		} else {
			r.When = c.condition(w, e)
		}
	}
	return r
}

// Headers tell what the documents of a file are, without reading them further.
type Header struct {
	Version, Kind, Name, Namespace string
	// Line and Column are where the version stands, or else the document.
	Line, Column int
}

// Headers returns those of all documents in b.
func Headers(file string, b []byte) ([]Header, []Problem) {
	var log document.Log
	var out []Header
	for _, n := range document.Read(file, b, &log) {
		m := n.Get("metadata")
		h := Header{Version: n.Get("apiVersion").Text(), Kind: n.Get("kind").Text(), Name: m.Get("name").Text(), Namespace: m.Get("namespace").Text()}
		at := n
		if v := n.Get("apiVersion"); v != nil {
			at = v
		}
		h.Line, h.Column = at.Place()
		if h.Name == "" {
			h.Name = m.Get("generateName").Text()
		}
		out = append(out, h)
	}
	return out, log.Problems()
}

// positive is a duration that makes no sense as 0.
func positive(n *document.Node) time.Duration {
	d := n.Duration()
	if n != nil && d == 0 {
		n.Fail("0 would end it at once: leave it out for no limit")
	}
	return d
}
