package kube_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/test/argo/published"
	"cairn.dev/cairn/test/cluster"
	"cairn.dev/cairn/test/images"
)

// examplesWithin is how long all examples may take.
const examplesWithin = 6 * time.Minute

// exampleWorld is what examples find in their cluster: rights as Argo's own
// installation gives them, a secret, disks.
const exampleWorld = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: argo-server, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: examples, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: admin}
subjects: [{kind: ServiceAccount, name: default, namespace: default}, {kind: ServiceAccount, name: argo-server, namespace: default}]
---
apiVersion: v1
kind: Secret
metadata: {name: my-secret, namespace: default}
stringData: {mypassword: S00perS3cretPa55word}
`

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
	s := newServed(t, cluster.Options{Nodes: 1}, accounts.String(), ", max_pods: 60, max_pods_per_run: 4, pod_rate: 20")
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
	api, err := dynamic.NewForConfig(&rest.Config{Host: s.cluster.Server, BearerToken: s.cluster.Token, TLSClientConfig: trust(s.t, s.cluster), QPS: -1})
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
