package kube_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/test/argo/published"
	"cairn.dev/cairn/test/cluster"
)

// maker is an account that may deal with ConfigMaps and Jobs, and with nothing
// else.
const maker = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: maker}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: maker}
rules:
- {apiGroups: [""], resources: [configmaps], verbs: [get, create, patch, update, delete, list]}
- {apiGroups: [batch], resources: [jobs], verbs: [get, watch, create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: maker}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: maker}
subjects: [{kind: ServiceAccount, name: maker}]
`

// allActions makes an object, looks at it, changes it, waits for another one, and hands
// on what it has seen.
const allActions = `
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {name: resources}
spec:
  entrypoint: main
  serviceAccountName: maker
  templates:
  - name: main
    steps:
    - - {name: create, template: create}
      - {name: job, template: job}
    - - {name: patch, template: patch}
    - - {name: apply, template: apply}
    - - {name: get, template: get}
    - - {name: say, template: say, arguments: {parameters: [{name: x, value: "{{steps.get.outputs.parameters.x}} {{steps.get.outputs.parameters.keys}} {{steps.job.outputs.parameters.done}}"}]}}
    - - {name: delete, template: delete}
  - name: create
    resource:
      action: create
      manifest: |
        apiVersion: v1
        kind: ConfigMap
        metadata: {name: made, labels: {from: "{{workflow.name}}"}}
        data: {x: "1"}
  - name: job
    outputs: {parameters: [{name: done, valueFrom: {jsonPath: "{.status.succeeded}"}}]}
    resource:
      action: create
      successCondition: status.succeeded > 0
      failureCondition: status.failed > 0
      manifest: |
        apiVersion: batch/v1
        kind: Job
        metadata: {generateName: work-}
        spec:
          template: {spec: {restartPolicy: Never, containers: [{name: a, image: "IMAGE", command: [sh, -c, "sleep 1"]}]}}
  - name: patch
    resource:
      action: patch
      mergeStrategy: json
      flags: [configmap, made]
      manifest: |
        - {op: add, path: /data/y, value: "2"}
  - name: apply
    resource:
      action: apply
      manifest: |
        apiVersion: v1
        kind: ConfigMap
        metadata: {name: made}
        data: {z: "3"}
  - name: get
    outputs:
      parameters:
      - {name: x, valueFrom: {jsonPath: "{.data.x}"}}
      - {name: keys, valueFrom: {jqFilter: ".data | keys | join(\"+\")"}}
    resource:
      action: get
      flags: [cm, made]
  - name: say
    inputs: {parameters: [{name: x}]}
    container: {image: "busybox:1", command: [echo, "{{inputs.parameters.x}}"]}
  - name: delete
    resource:
      action: delete
      flags: [configmap, --selector, "from={{workflow.name}}"]
`

// Tasks that are requests are made with the rights of their account, and with
// no others; what they saw goes to the tasks behind them.
func TestResources(t *testing.T) {
	t.Parallel()
	f := newFarm(t, cluster.Options{Nodes: 1}, nil)
	f.cluster.Apply(maker)
	image := cluster.NodeRegistry + "/library/busybox:1"
	t.Run("all actions", func(t *testing.T) {
		id := f.run(strings.ReplaceAll(allActions, "IMAGE", image))
		f.succeeds(id, 7, 3*time.Minute)
		f.mu.Lock()
		said := strings.Join(f.lines[id], "")
		f.mu.Unlock()
		if !strings.Contains(said, "1 x+y+z 1\n") {
			t.Errorf("the task behind them says %q", said)
		}
		if left := f.cluster.Kubectl("get", "configmaps", "-l", "from", "-o", "name"); strings.TrimSpace(left) != "" {
			t.Errorf("there are still %s", left)
		}
		t.Log(said)
	})
	t.Run("examples", func(t *testing.T) {
		files, _ := filepath.Glob("../../testdata/argo/*.yaml")
		runs, want := map[string]string{}, map[string]published.Outcome{}
		for _, file := range files { // they go on side by side
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			first, _, _ := strings.Cut(string(text), "\n")
			if expect := strings.TrimPrefix(first, "# expect: "); strings.Contains(expect, "; in a cluster") {
				phase, rest, _ := strings.Cut(expect, ";")
				name := strings.TrimSuffix(filepath.Base(file), ".yaml")
				if want[name], err = published.ParseOutcome(strings.ToLower(phase) + ";" + rest); err != nil {
					t.Fatal(err)
				}
				runs[name] = f.run(string(text))
			}
		}
		if len(runs) < 13 {
			t.Fatalf("only %d examples", len(runs))
		}
		for name, id := range runs {
			t.Run(name, func(t *testing.T) {
				i := f.ends(id, 3*time.Minute)
				why := failure(t, f, id)
				if !want[name].Is(i.Phase.String()) || !strings.Contains(why, want[name].Says) {
					t.Errorf("it is %v: %s", i.Phase, why)
				}
				t.Log(i.Phase, why)
			})
		}
	})
	t.Run("a failure", func(t *testing.T) {
		doc := requestDoc("action: create, account: maker, success: status.succeeded > 0, failure: status.failed > 0, manifest: {apiVersion: batch/v1, kind: Job, metadata: {name: fails}, spec: {backoffLimit: 0, template: {spec: {restartPolicy: Never, containers: [{name: a, image: '" + image + "', command: ['false']}]}}}}")
		if i := f.ends(f.run(doc), 2*time.Minute); i.Phase != machine.Failed {
			t.Errorf("%+v", i)
		} else {
			t.Log(failure(t, f, i.ID))
		}
	})
	t.Run("no right", func(t *testing.T) {
		i := f.ends(f.run(requestDoc("action: create, account: maker, manifest: {apiVersion: v1, kind: Secret, metadata: {name: s}}")), 2*time.Minute)
		why := failure(t, f, i.ID)
		for _, want := range []string{"cannot create", "secrets", "system:serviceaccount:default:maker", `in the namespace "default"`} {
			if i.Phase != machine.Failed || !strings.Contains(why, want) {
				t.Errorf("%v: %s; want %q", i.Phase, why, want)
			}
		}
		t.Log(why)
	})
}

// requestDoc is a workflow of ours with a request of these fields.
func requestDoc(fields string) string {
	return "apiVersion: cairn.dev/v1alpha1\nkind: Workflow\nmetadata: {name: request}\nspec: {tasks: [{name: a, resource: {" + fields + "}}]}\n"
}

// failure is why the first task of a run failed.
func failure(t *testing.T, f *farm, id string) string {
	t.Helper()
	for below := []string{""}; len(below) > 0; below = below[1:] {
		nodes, _, err := f.server.Nodes(t.Context(), id, below[0], "", 20, machine.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range nodes {
			if n.Children {
				below = append(below, n.ID)
			} else if n.Phase == machine.Failed {
				return n.Message
			}
		}
	}
	return ""
}
