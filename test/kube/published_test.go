package kube_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/test/argo/published"
	"cairn.dev/cairn/test/cluster"
	"cairn.dev/cairn/test/images"
)

const (
	// exampleOf is the annotation with the file that an object is from.
	exampleOf = "test.cairn.dev/example"
	// examplesWithin is how long all examples may take.
	examplesWithin = 6 * time.Minute
)

// exampleWorld is what examples find in their cluster: rights as Argo's own
// installation gives them, a secret, disks.
const exampleWorld = `
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: examples, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: admin}
subjects: [{kind: ServiceAccount, name: default, namespace: default}]
---
apiVersion: v1
kind: Secret
metadata: {name: my-secret, namespace: default}
stringData: {mypassword: S00perS3cretPa55word}
`

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

// TestPublished hands Argo's own examples in with kubectl, all at once, runs
// them in real pods, and compares what becomes of each with the table.
func TestPublished(t *testing.T) {
	table := published.Table(t, "testdata/published.txt")
	docs := published.Read(t)
	if docs == nil {
		return
	}
	for name := range table {
		if docs.Docs[name] == nil {
			t.Errorf("the table has %s, which is not there", name)
		}
	}
	var accounts strings.Builder
	accounts.WriteString("  secrets:\n")
	for _, a := range published.Secrets(t) {
		fmt.Fprintf(&accounts, "  - {name: %s, username: %s, env: %s}\n", a.Name, a.Username, a.Env)
	}
	s := newServed(t, cluster.Options{Nodes: 2}, accounts.String(), ", max_pods: 60, max_pods_per_run: 4, pod_rate: 20")
	images.Push(t, s.pushes())
	web := published.Internet(t)
	web.Objects(t)
	web.URL, web.Store = "http://"+s.expose(strings.TrimPrefix(web.URL, "http://")), s.expose(web.Store)
	s.cluster.Apply(exampleWorld)
	s.disks(4)

	var all []*example
	var before, runs []*unstructured.Unstructured
	for _, name := range docs.Names {
		want, known := table[name]
		if !known {
			t.Errorf("the table does not have %s", name)
			continue
		}
		x := readExample(t, name, web.Replace(docs.Docs[name]), want)
		before = append(before, x.before...)
		if !want.Is("not run") {
			runs = append(runs, x.runs...)
			all = append(all, x)
		}
	}
	begin := time.Now()
	if err := hand(t, s.cluster, "apply", before); err != nil {
		t.Fatal(err)
	}
	refused := hand(t, s.cluster, "create", runs)
	t.Logf("%d workflows of %d examples were handed in within %v", len(runs), len(all), time.Since(begin).Round(time.Millisecond))
	s.watchExamples(all, refused, begin)
	s.schedules(all)
	good := 0
	for _, x := range all {
		t.Run(strings.TrimSuffix(x.file, ".yaml"), func(t *testing.T) {
			if err := x.compare(); err != nil {
				t.Error(err)
				return
			}
			good++
		})
	}
	t.Logf("%d of %d examples came to their outcome within %v", good, len(all), time.Since(begin).Round(time.Second))
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

// expose makes a server of this computer reachable for pods.
func (s *served) expose(address string) string {
	s.t.Helper()
	out, err := s.cluster.Expose(address)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// disks are for the claims of examples.
func (s *served) disks(n int) {
	s.t.Helper()
	for i := range n {
		s.cluster.Apply(fmt.Sprintf("apiVersion: v1\nkind: PersistentVolume\nmetadata: {name: disk-%d}\nspec: {capacity: {storage: 2Gi}, accessModes: [ReadWriteOnce], hostPath: {path: %s, type: DirectoryOrCreate}}\n", i, filepath.Join(s.t.TempDir(), "disk")))
	}
}

// watchExamples follows all until they have ended, and does what they wait for.
// Those that are not there were refused by the API server itself.
func (s *served) watchExamples(all []*example, refused error, begin time.Time) {
	s.t.Helper()
	by := map[string]*example{}
	for _, x := range all {
		by[x.file] = x
	}
	api := s.workflows()
	there, err := api.List(s.t.Context(), metav1.ListOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	made := map[string]int{}
	for i := range there.Items {
		made[there.Items[i].GetAnnotations()[exampleOf]]++
	}
	for _, x := range all {
		if made[x.file] < len(x.runs) {
			x.ends["it"] = fmt.Sprintf("refused: %v", refused)
			x.runs = x.runs[:made[x.file]+1]
		}
	}
	for left := 1; left > 0 && time.Since(begin) < examplesWithin; time.Sleep(time.Second) {
		list, err := api.List(s.t.Context(), metav1.ListOptions{})
		if err != nil {
			s.t.Fatal(err)
		}
		left = 0
		for i := range list.Items {
			u := &list.Items[i]
			x := by[u.GetAnnotations()[exampleOf]]
			if x == nil || x.ends[u.GetName()] != "" {
				continue
			}
			if end := s.endOf(u); end != "" {
				x.ends[u.GetName()] = end
				continue
			}
			left++
			s.attend(x, u, time.Since(begin))
		}
	}
}

func (s *served) workflows() dynamic.ResourceInterface {
	s.t.Helper()
	w := &world{t: s.t, cluster: s.cluster}
	api, err := dynamic.NewForConfig(&rest.Config{Host: s.cluster.Server, BearerToken: s.cluster.Token, TLSClientConfig: w.trust(), QPS: -1})
	if err != nil {
		s.t.Fatal(err)
	}
	return api.Resource(schema.GroupVersionResource{Group: "argoproj.io", Version: "v1alpha1", Resource: "workflows"}).Namespace("default")
}

// endOf is how an object ended, "" while it has not: a phase, in the words of
// the server, and a message.
func (s *served) endOf(u *unstructured.Unstructured) string {
	status := func(path ...string) string {
		v, _, _ := unstructured.NestedString(u.Object, append([]string{"status"}, path...)...)
		return v
	}
	conditions, _, _ := unstructured.NestedSlice(u.Object, "status", "cairn", "conditions")
	for _, c := range conditions {
		if c, ok := c.(map[string]any); ok && c["type"] == "Accepted" && c["status"] == "False" {
			if phase := status("phase"); phase != "Error" {
				return fmt.Sprintf("refused in phase %s: %s", phase, c["message"])
			}
			return fmt.Sprintf("refused: %s", c["message"])
		}
	}
	if status("finishedAt") == "" {
		return ""
	}
	r, err := s.client.Run(s.t.Context(), status("cairn", "run"))
	if err != nil {
		return "unknown: " + err.Error()
	}
	// What Argo's scripts read is what the server says.
	argos := map[string]string{"succeeded": "Succeeded", "failed": "Failed", "error": "Error", "canceled": "Failed"}
	if got := status("phase"); got != argos[r.Phase] {
		return fmt.Sprintf("%s in phase %s: %s", r.Phase, got, r.Message)
	}
	return r.Phase + ": " + r.Message
}

// attend does what an example waits for: somebody's answer, or its end.
func (s *served) attend(x *example, u *unstructured.Unstructured, since time.Duration) {
	s.t.Helper()
	if x.want.After > 0 && since > x.want.After && !x.stopped {
		x.stopped = true
		x.waited, _, _ = unstructured.NestedString(u.Object, "status", "message")
		s.cluster.Kubectl("patch", "workflows.argoproj.io", u.GetName(), "--type=merge", "-p", `{"spec": {"shutdown": "Terminate"}}`)
	}
	if run, _, _ := unstructured.NestedString(u.Object, "status", "cairn", "run"); run != "" && x.want.Answers != nil {
		if err := s.answer(run, "", x.want.Answers); err != nil {
			s.t.Errorf("answer %s: %v", x.file, err)
		}
	}
}

// schedules are those of examples: they are taken, or refused as the table has
// them.
func (s *served) schedules(all []*example) {
	s.t.Helper()
	for _, x := range all {
		for _, name := range x.schedule {
			why := s.cluster.Kubectl("get", "cronworkflows.argoproj.io", name, "-o", `jsonpath={.status.conditions[?(@.type=="SpecError")].message}`)
			if (why != "") != x.want.Is("refused") {
				x.ends[name] = "refused: " + why
			}
		}
	}
}

// answer resumes what waits for somebody.
func (s *served) answer(run, parent string, answers map[string]string) error {
	l, err := s.client.Nodes(s.t.Context(), run, client.NodeQuery{Parent: parent})
	for _, n := range l.Nodes {
		switch {
		case err != nil:
			return err
		case n.Waits == "to be resumed":
			_, err = s.client.Resume(s.t.Context(), run, wire.ResumeRequest{Node: n.ID, Outputs: answers})
		case n.Children:
			err = s.answer(run, n.ID, answers)
		}
	}
	return err
}
