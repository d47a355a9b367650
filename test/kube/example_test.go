package kube_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"cairn.dev/cairn/test/argo/published"
	"cairn.dev/cairn/test/cluster"
)

// exampleOf is the annotation with the file that an object is from.
const exampleOf = "test.cairn.dev/example"

// An example is a file of Argo's and what becomes of it.
type example struct {
	file     string
	want     published.Outcome
	before   []*unstructured.Unstructured // is there before anything runs
	runs     []*unstructured.Unstructured // to create
	schedule []string                     // names of its CronWorkflows
	ends     map[string]string            // of the objects that were created: how they ended
	waited   string                       // what it said to wait for when it was canceled
	stopped  bool
}

// objects are the documents of a file.
func objects(t *testing.T, file string, text []byte) (out []*unstructured.Unstructured) {
	t.Helper()
	for d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096); ; {
		u := &unstructured.Unstructured{}
		err := d.Decode(&u.Object)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if len(u.Object) > 0 {
			a := u.GetAnnotations()
			if a == nil {
				a = map[string]string{}
			}
			a[exampleOf] = file
			u.SetAnnotations(a)
			out = append(out, u)
		}
	}
}

// readExample sorts what a file holds into what is there before and what runs.
// Templates and schedules are run as "argo submit --from" does.
func readExample(t *testing.T, file string, text []byte, want published.Outcome) *example {
	t.Helper()
	x := &example{file: file, want: want, ends: map[string]string{}}
	from := func(u *unstructured.Unstructured, spec any) {
		x.runs = append(x.runs, &unstructured.Unstructured{Object: map[string]any{"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
			"metadata": map[string]any{"generateName": u.GetName() + "-", "annotations": map[string]any{exampleOf: file}}, "spec": spec}})
	}
	for _, u := range objects(t, file, text) {
		switch kind := u.GetKind(); kind {
		case "Workflow":
			x.runs = append(x.runs, u)
		case "CronWorkflow":
			x.before = append(x.before, u)
			x.schedule = append(x.schedule, u.GetName())
			spec, _, _ := unstructured.NestedMap(u.Object, "spec", "workflowSpec")
			from(u, spec)
		case "WorkflowTemplate", "ClusterWorkflowTemplate":
			x.before = append(x.before, u)
			if main, _, _ := unstructured.NestedString(u.Object, "spec", "entrypoint"); main != "" {
				from(u, map[string]any{"workflowTemplateRef": map[string]any{"name": u.GetName(), "clusterScope": kind == "ClusterWorkflowTemplate"}})
			}
		case "ConfigMap", "PersistentVolumeClaim":
			x.before = append(x.before, u)
		}
	}
	for _, u := range x.runs {
		for name, value := range want.Args {
			list, _, _ := unstructured.NestedSlice(u.Object, "spec", "arguments", "parameters")
			list = append(slices.DeleteFunc(list, func(p any) bool { return p.(map[string]any)["name"] == name }), map[string]any{"name": name, "value": value})
			if err := unstructured.SetNestedSlice(u.Object, list, "spec", "arguments", "parameters"); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
		}
	}
	return x
}

// hand gives objects to the cluster with kubectl, and returns what that says of
// those that are refused.
func hand(t *testing.T, c *cluster.Cluster, verb string, all []*unstructured.Unstructured) error {
	t.Helper()
	list := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "List"}}
	var items []any
	for _, u := range all {
		items = append(items, u.Object)
	}
	list.Object["items"] = items
	b, err := list.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.RunKubectl(t.Context(), string(b), verb, "--validate=false", "-f", "-")
	return err
}

// compare says in what an example ended otherwise than the table has it.
func (x *example) compare() error {
	if len(x.runs) > 0 && len(x.ends) < len(x.runs) {
		return fmt.Errorf("%d of %d workflows have ended: %v", len(x.ends), len(x.runs), x.ends)
	}
	for name, end := range x.ends {
		phase, message, _ := strings.Cut(end, ": ")
		if !slices.Contains(x.want.Phases, phase) || !strings.Contains(message+x.waited, x.want.Says) {
			return fmt.Errorf("%s: %s; says %s\n(it is %s; want %s; says %s)", x.file, phase, message+x.waited, name, strings.Join(x.want.Phases, " or "), x.want.Says)
		}
	}
	return nil
}
