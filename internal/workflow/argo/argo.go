// Package argo reads the documents of Argo Workflows and makes Cairn's graphs
// of them.
//
// It owns what their fields mean: a table names each field that Argo has and
// says whether it is carried out, accepted without effect (and why that is
// harmless), or refused (and why). It promises to be pure, that no field is
// silently ignored, that everything wrong is told at once with its place, and
// that values are put into the tree of a document and never into its text: what
// a value holds is not looked at again, whatever it looks like. It runs nothing.
package argo

import (
	"bytes"
	"slices"
	"strings"

	"cairn.dev/cairn/internal/workflow"
	"cairn.dev/cairn/internal/workflow/document"
)

// Version is the apiVersion of these documents.
const Version = "argoproj.io/v1alpha1"

// Options are what a compilation may ask for, and from where it takes what
// stands in no document that it was given.
type Options struct {
	// Templates returns the document of a WorkflowTemplate or
	// ClusterWorkflowTemplate (whose namespace is ""); nil when there is none.
	Templates workflow.Templates
	// ConfigMap returns the value at a key of a ConfigMap.
	ConfigMap func(namespace, name, key string) (string, bool)
	// Cluster: tasks run in pods, so that what only Kubernetes can do is handed
	// on to it, in task.Task.Pod.
	Cluster bool
}

// Compile makes the graph of the first Workflow in a file, else of the first
// template or CronWorkflow, as if it were started now. Templates and
// ConfigMaps in the same file are found without asking for them. A graph is
// returned only when there is no problem. That of a template without entrypoint
// has no Entry.
func Compile(file string, doc []byte, o Options) (*workflow.Graph, []workflow.Problem) {
	c := newCompiler(file, doc, o)
	for _, kind := range []string{"Workflow", "WorkflowTemplate", "ClusterWorkflowTemplate", "CronWorkflow"} {
		for _, n := range c.objects {
			if n.kind != kind {
				continue
			}
			g := c.graph(n, n.spec)
			if c.log.Len() > 0 {
				return nil, c.log.Problems()
			}
			return g, nil
		}
	}
	if c.log.Len() == 0 {
		c.log.Add(workflow.Problem{File: file, Text: "there is no Workflow of " + Version + " in it"})
	}
	return nil, c.log.Problems()
}

// CompileSchedule reads the first CronWorkflow in a file.
func CompileSchedule(file string, doc []byte, o Options) (*workflow.Schedule, []workflow.Problem) {
	c := newCompiler(file, doc, o)
	for _, n := range c.objects {
		if n.kind != "CronWorkflow" {
			continue
		}
		s := c.schedule(n)
		if c.log.Len() > 0 {
			return nil, c.log.Problems()
		}
		return s, nil
	}
	if c.log.Len() == 0 {
		c.log.Add(workflow.Problem{File: file, Text: "there is no CronWorkflow of " + Version + " in it"})
	}
	return nil, c.log.Problems()
}

// object is one document.
type object struct {
	kind, name, namespace string
	node, spec            *document.Node
}

// compiler is the reading of one file and of what it refers to.
type compiler struct {
	opts    Options
	log     *document.Log
	objects []*object
	docs    [][]byte
	configs map[string]map[string]string // ConfigMaps of the file
	g       *workflow.Graph
	bundles map[string]*bundle
	// defaults are templateDefaults of the workflow: they are of all templates
	// that it runs, those of other documents, too.
	defaults *document.Node
	// spec finds a field of the workflow that is compiled.
	spec func(string) *document.Node
	// results are names of calls whose standard output somebody asks for.
	results map[string]bool
	params  map[string]bool // of the run
	asked   map[string]string
}

// maxDocuments bounds how many templates one document may drag in.
const maxDocuments = 100

func newCompiler(file string, doc []byte, o Options) *compiler {
	c := &compiler{opts: o, log: &document.Log{}, configs: map[string]map[string]string{}, bundles: map[string]*bundle{}, spec: func(string) *document.Node { return nil }, results: map[string]bool{}, params: map[string]bool{}, asked: map[string]string{}}
	c.read(file, doc)
	return c
}

func (c *compiler) read(file string, doc []byte) {
	c.docs = append(c.docs, doc)
	for _, m := range resultRE.FindAllSubmatch(doc, -1) {
		c.results[string(m[1])+string(m[2])] = true
	}
	for _, n := range document.Read(file, doc, c.log) {
		kind := n.Get("kind").Text()
		if kind == "ConfigMap" {
			data := map[string]string{}
			for _, e := range n.Get("data").Entries() {
				data[e.Key] = e.Node.Text()
			}
			c.configs[n.Get("metadata").Get("name").Text()] = data
			continue
		}
		if v := n.Get("apiVersion"); v.Text() != Version {
			n.Fail("%s of %s: this reads Workflow, CronWorkflow and templates of %s, and ConfigMaps beside them", kind, v.Text(), Version)
			continue
		}
		kinds := []string{"Workflow", "WorkflowTemplate", "ClusterWorkflowTemplate", "CronWorkflow"}
		if !slices.Contains(kinds, kind) {
			why := document.Meant(kind, kinds)
			if kind == "WorkflowEventBinding" {
				why = ": events of a cluster start nothing here"
			}
			n.Get("kind").Fail("%q is not supported%s", kind, why)
			continue
		}
		c.check(n, "object")
		m := n.Get("metadata")
		o := &object{kind: kind, node: n, spec: n.Get("spec"), name: m.Get("name").Text(), namespace: m.Get("namespace").Text()}
		if o.name == "" && m.Get("generateName") != nil {
			o.name = strings.TrimSuffix(m.Get("generateName").Text(), "-") + "-"
		}
		if o.spec == nil {
			n.Fail("there is no spec")
			continue
		}
		if o.name == "" { // as with Argo's command line, a workflow gets one
			o.name = "workflow-"
		}
		c.objects = append(c.objects, o)
	}
}

// config is the value that a configMapKeyRef names.
func (c *compiler) config(n *document.Node) (string, bool) {
	c.check(n, "keyRef")
	name, key := n.Get("name").Text(), n.Get("key").Text()
	if v, ok := c.configs[name][key]; ok {
		return v, true
	}
	if c.opts.ConfigMap != nil {
		if v, ok := c.opts.ConfigMap(c.g.Namespace, name, key); ok {
			// Read again after a restart, the document has to give the same.
			c.asked[name+"\x00"+key] = v
			return v, true
		}
	}
	return "", false
}

// documents are all that was read, as one file.
func (c *compiler) documents() []byte {
	docs := slices.Clone(c.docs)
	keys := make([]string, 0, len(c.asked))
	for k := range c.asked {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	byMap := map[string]map[string]string{}
	for _, k := range keys {
		name, key, _ := strings.Cut(k, "\x00")
		if byMap[name] == nil {
			byMap[name] = map[string]string{}
		}
		byMap[name][key] = c.asked[k]
	}
	for _, k := range keys {
		name, _, _ := strings.Cut(k, "\x00")
		if data := byMap[name]; data != nil {
			docs = append(docs, configMap(name, data))
			delete(byMap, name)
		}
	}
	return bytes.Join(docs, []byte("\n---\n"))
}
