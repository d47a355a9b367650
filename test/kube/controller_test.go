package kube_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/kube/controller"
	"cairn.dev/cairn/internal/kube/crd"
	"cairn.dev/cairn/test/cluster"
)

// workflow is one of ours with one task that runs a program of these words.
func workflow(name, words string) string {
	return fmt.Sprintf("apiVersion: cairn.dev/v1alpha1\nkind: Workflow\nmetadata: {name: %s}\nspec: {tasks: [{name: a, image: alpine, command: [echo, %q]}]}\n", name, words)
}

// What a user of Kubernetes expects of an object: apply starts it, get shows
// it, wait waits for it, delete ends it.
func TestWorkflow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{}, nil)
	w.start()
	c := w.cluster
	t.Run("succeeds", func(t *testing.T) {
		c.Apply(workflow("good", "hello"))
		c.Kubectl("wait", "--for=condition=Succeeded", "--timeout=30s", "wf/good")
		w.reads("wf/good", ".status.progress", "1/1")
		out := c.Kubectl("get", "wf")
		for _, want := range []string{"PHASE", "PROGRESS", "AGE", "MESSAGE", "Succeeded", "1/1"} {
			if !strings.Contains(out, want) {
				t.Errorf("get wf does not show %q:\n%s", want, out)
			}
		}
		i := w.run("wf/good")
		if i.Name != "good" || i.Namespace != "default" || i.Pool != "cluster/prod" {
			t.Errorf("the run is %+v", i)
		}
	})
	t.Run("fails", func(t *testing.T) {
		c.Apply("apiVersion: cairn.dev/v1alpha1\nkind: Workflow\nmetadata: {name: bad}\nspec: {tasks: [{name: a, image: alpine, command: [echo, fail], forEach: {count: 30}}]}\n")
		c.Kubectl("wait", "--for=condition=Failed", "--timeout=30s", "wf/bad")
		w.reads("wf/bad", ".status.phase", "Failed")
		w.reads("wf/bad", ".status.failed[0].exitCode", "3")
		if n := len(strings.Fields(c.Kubectl("get", "wf/bad", "-o", "jsonpath={.status.failed[*].task}"))); n != 20 {
			t.Errorf("%d samples of 30 failures, want 20", n)
		}
	})
	t.Run("refused", func(t *testing.T) {
		c.Apply("apiVersion: cairn.dev/v1alpha1\nkind: Workflow\nmetadata: {name: wrong}\nspec: {tasks: [{name: a, image: alpine, needs: [b]}]}\n")
		c.Kubectl("wait", "--for=condition=Accepted=False", "--timeout=30s", "wf/wrong")
		if why := c.Kubectl("get", "wf/wrong", "-o", `jsonpath={.status.conditions[?(@.type=="Accepted")].message}`); !strings.Contains(why, "spec.tasks[0].needs[0]: there is no task \"b\"") {
			t.Errorf("refused: %s", why)
		}
		w.reads("wf/wrong", ".status.phase", "Refused")
		// It is taken once it is right.
		c.Apply(workflow("wrong", "hello"))
		c.Kubectl("wait", "--for=condition=Succeeded", "--timeout=30s", "wf/wrong")
	})
	t.Run("template that comes later", func(t *testing.T) {
		c.Apply("apiVersion: cairn.dev/v1alpha1\nkind: Workflow\nmetadata: {name: uses}\nspec: {tasks: [{name: a, uses: shared}]}\n")
		c.Kubectl("wait", "--for=condition=Accepted=False", "--timeout=30s", "wf/uses")
		c.Apply("apiVersion: cairn.dev/v1alpha1\nkind: WorkflowTemplate\nmetadata: {name: shared}\nspec: {tasks: [{name: a, image: alpine}]}\n")
		c.Kubectl("wait", "--for=condition=Succeeded", "--timeout=30s", "wf/uses")
		c.Kubectl("wait", "--for=condition=Accepted", "--timeout=30s", "wftmpl/shared")
	})
	t.Run("deleted", func(t *testing.T) {
		c.Apply(workflow("long", "hang"))
		c.Kubectl("wait", "--for=condition=Running", "--timeout=30s", "wf/long")
		id := w.run("wf/long").ID
		c.Kubectl("delete", "wf/long", "--timeout=20s")
		w.runPhase(id, "canceled") // and it is still there to be looked at
	})
	t.Run("suspended", func(t *testing.T) {
		doc := strings.Replace(workflow("later", "hello"), "spec: {", "spec: {suspended: true, ", 1)
		c.Apply(doc)
		w.reads("wf/later", ".status.phase", "Suspended")
		c.Apply(strings.Replace(doc, "suspended: true", "suspended: false", 1))
		c.Kubectl("wait", "--for=condition=Succeeded", "--timeout=30s", "wf/later")
		w.reads("wf/later", `.status.conditions[?(@.type=="Changed")].status`, "")
	})
	t.Run("changed", func(t *testing.T) {
		c.Apply(workflow("other", "hang"))
		c.Kubectl("wait", "--for=condition=Running", "--timeout=30s", "wf/other")
		c.Apply(workflow("other", "hello"))
		c.Kubectl("wait", "--for=condition=Changed", "--timeout=30s", "wf/other")
		w.reads("wf/other", ".status.phase", "Running")
		id := w.run("wf/other").ID
		// Deleted and made again in one breath, it is another run.
		c.Kubectl("delete", "wf/other", "--wait=false")
		c.Apply(workflow("other", "hello"))
		c.Kubectl("wait", "--for=condition=Succeeded", "--timeout=30s", "wf/other")
		w.runPhase(id, "canceled")
	})
}

// What happens while the process is away is noticed when it is back, and no
// object is run twice.
func TestRestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{}, nil)
	c := w.cluster
	w.start()
	c.Apply(workflow("goes", "hang") + "---\n" + workflow("stays", "hang") + "---\n" + workflow("ended", "hello") + "---\n" + workflow("changes", "hang"))
	c.Kubectl("wait", "--for=condition=Running", "--timeout=30s", "wf/goes", "wf/stays", "wf/changes")
	c.Kubectl("wait", "--for=condition=Succeeded", "--timeout=30s", "wf/ended")
	goes, stays, ended := w.run("wf/goes").ID, w.run("wf/stays").ID, w.run("wf/ended").ID
	paused := strings.Replace(workflow("paused", "hello"), "spec: {", "spec: {suspended: true, ", 1)
	c.Apply(paused)
	w.reads("wf/paused", ".status.phase", "Suspended")
	c.Apply("apiVersion: cairn.dev/v1alpha1\nkind: CronWorkflow\nmetadata: {name: nightly}\nspec: {schedules: \"0 3 * * *\", workflow: {tasks: [{name: a, image: alpine}]}}\n")
	c.Kubectl("wait", "--for=condition=Accepted", "--timeout=30s", "cronwf/nightly")
	w.end()

	c.Kubectl("delete", "wf/goes", "cronwf/nightly")
	c.Apply(workflow("comes", "hello"))
	c.Apply(strings.Replace(paused, "suspended: true", "suspended: false", 1))
	c.Apply(workflow("changes", "hello")) // and this one changes while nobody looks
	// An answer that got lost: the run was taken, and its object does not say so.
	c.Kubectl("patch", "wf/stays", "--subresource=status", "--type=merge", "-p", `{"status": null}`)
	w.start()

	c.Kubectl("wait", "--for=condition=Succeeded", "--timeout=30s", "wf/comes")
	w.runPhase(goes, "canceled")
	w.reads("wf/stays", ".status.run", stays)
	w.reads("wf/ended", ".status.run", ended)
	c.Kubectl("wait", "--for=condition=Succeeded", "--timeout=30s", "wf/paused")
	c.Kubectl("wait", "--for=condition=Changed", "--timeout=30s", "wf/changes")
	w.until("the schedule is gone", func() (string, bool) {
		l := w.server.Schedules()
		return fmt.Sprint(l), len(l) == 0
	})
	runs, _, err := w.server.Runs(t.Context(), allRuns, "", 0)
	if err != nil || len(runs) != 6 {
		t.Errorf("%d runs, want 6: %v", len(runs), err)
	}
}

func TestCron(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{}, nil)
	c := w.cluster
	w.clock = endOfMinute(15 * time.Second)
	w.start()
	doc := "apiVersion: cairn.dev/v1alpha1\nkind: CronWorkflow\nmetadata: {name: often}\nspec: {schedules: [\"* * * * *\"], timezone: Europe/Berlin, workflow: {tasks: [{name: a, image: alpine}]}}\n"
	c.Apply(doc)
	c.Kubectl("wait", "--for=condition=Accepted", "--timeout=30s", "cronwf/often")
	w.reads("cronwf/often", ".status.suspended", "false")
	if out := c.Kubectl("get", "cronwf"); !strings.Contains(out, "* * * * *") {
		t.Errorf("get: %s", out)
	}
	w.reads("cronwf/often", ".status.lastPhase", "Succeeded") // when the minute ends
	if out := c.Kubectl("get", "cronwf"); !strings.Contains(out, "Succeeded") {
		t.Errorf("get after a run: %s", out)
	}
	c.Apply(strings.Replace(doc, "timezone:", "suspended: true, timezone:", 1))
	w.reads("cronwf/often", ".status.suspended", "true")
	c.Apply(strings.Replace(doc, "* * * * *", "61 * * * *", 1))
	c.Kubectl("wait", "--for=condition=Accepted=False", "--timeout=30s", "cronwf/often")
	if l := w.server.Schedules(); len(l) != 1 || l[0].Crons[0] != "* * * * *" || l[0].Namespace != "default" || l[0].Pool != "cluster/prod" {
		t.Errorf("what was refused changed the schedule: %+v", l)
	}
	c.Kubectl("delete", "cronwf/often")
	w.until("the schedule is gone", func() (string, bool) {
		l := w.server.Schedules()
		return fmt.Sprint(l), len(l) == 0
	})
}

// Parameters come from ConfigMaps of the cluster, templates from its templates,
// and times from Argo's CronWorkflow.
func TestArgoCron(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{}, func(c *controller.Config) { c.Namespaces = []string{"data"} })
	c := w.cluster
	definitions(t, c, crd.Argo()...)
	c.Kubectl("create", "namespace", "data")
	w.start()
	doc := `
apiVersion: argoproj.io/v1alpha1
kind: CronWorkflow
metadata: {name: often, namespace: data}
spec:
  schedule: "0 3 * * *"
  workflowSpec: {workflowTemplateRef: {name: all, clusterScope: true}}
`
	c.Apply(doc + "---" + strings.ReplaceAll(doc, "namespace: data", "namespace: default"))
	why := `.status.conditions[?(@.type=="SpecError")].message`
	w.until("the schedule is refused", func() (string, bool) {
		got := c.Kubectl("get", "cwf/often", "-n", "data", "-o", "jsonpath={"+why+"}")
		return got, strings.Contains(got, "spec.workflowSpec.workflowTemplateRef")
	})
	c.Apply(`
apiVersion: v1
kind: ConfigMap
metadata: {name: words, namespace: data}
data: {word: hello}
---
apiVersion: argoproj.io/v1alpha1
kind: ClusterWorkflowTemplate
metadata: {name: all}
spec:
  entrypoint: main
  arguments: {parameters: [{name: word, valueFrom: {configMapKeyRef: {name: words, key: word}}}]}
  templates:
  - name: main
    container: {image: alpine, command: [echo, "{{workflow.parameters.word}}"]}
`)
	w.until("there is one schedule, of the namespace that is looked at", func() (string, bool) {
		l := w.server.Schedules()
		return fmt.Sprint(l), len(l) == 1 && l[0].Namespace == "data" && l[0].Name == "often"
	})
	if out := c.Kubectl("get", "cwf/often", "-n", "default", "-o", "jsonpath={.status}"); out != "" {
		t.Errorf("an object of a namespace that is not looked at has a status: %s", out)
	}
}

const argoWorkflow = `
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {name: %s, labels: {%s}}
spec:
  entrypoint: main
  templates:
  - name: main
    steps:
    - - {name: one, template: say, arguments: {parameters: [{name: word, value: hello}]}}
    - - {name: two, template: say, arguments: {parameters: [{name: word, value: "{{item}}"}]}, withItems: [%s]}
  - name: say
    inputs: {parameters: [{name: word}]}
    container: {image: alpine, command: [echo], args: ["{{inputs.parameters.word}}"]}
`

const cairns = controller.InstanceLabel + ": " + controller.Instance

// Argo's objects with the label are Cairn's, and others are left alone; where
// the definitions are Cairn's own, all are.
func TestArgo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{}, nil)
	c := w.cluster
	// As Argo's are: not ours by label.
	definitions(t, c, crd.Argo()...)
	for _, d := range crd.Argo() {
		c.Kubectl("label", "crd", d.Name, crd.Minimal+"-")
	}
	w.start()
	c.Apply(fmt.Sprintf(argoWorkflow, "theirs", "a: b", "x"))
	c.Apply(fmt.Sprintf(argoWorkflow, "mine", cairns, "x, z"))
	w.reads("workflows.argoproj.io/mine", ".status.phase", "Succeeded")
	w.reads("workflows.argoproj.io/mine", ".status.progress", "3/3")
	w.reads("workflows.argoproj.io/mine", `.metadata.labels.workflows\.argoproj\.io/completed`, "true")
	w.reads("workflows.argoproj.io/mine", `.status.nodes.mine.phase`, "Succeeded")
	if n := len(strings.Fields(c.Kubectl("get", "workflows.argoproj.io/mine", "-o", `jsonpath={.status.nodes.mine-3.children[*]}`))); n != 2 {
		t.Errorf("%d children of a step with two items", n)
	}
	c.Kubectl("wait", "--for=condition=Completed", "--timeout=30s", "workflows.argoproj.io/mine")
	names := c.Kubectl("get", "workflows.argoproj.io/mine", "-o", "jsonpath={.status.nodes.*.name}")
	for _, want := range []string{"mine", "mine.one", "mine.two(0:x)", "mine.two(1:z)"} {
		if !strings.Contains(" "+names+" ", want+" ") {
			t.Errorf("the nodes %q lack %q", names, want)
		}
	}
	c.Apply(strings.Replace(fmt.Sprintf(argoWorkflow, "wrong", cairns, "x"), "template: say,", "template: nothing,", 1))
	w.reads("workflows.argoproj.io/wrong", ".status.phase", "Error")
	if why := c.Kubectl("get", "workflows.argoproj.io/wrong", "-o", "jsonpath={.status.message}"); !strings.Contains(why, "spec.templates[0].steps[0][0].template") {
		t.Errorf("refused: %s", why)
	}
	for _, how := range []string{"Stop", "Terminate"} {
		name := strings.ToLower(how)
		c.Apply(fmt.Sprintf(argoWorkflow, name, cairns, "hang"))
		w.reads("workflows.argoproj.io/"+name, ".status.progress", "1/2")
		c.Kubectl("patch", "workflows.argoproj.io", name, "--type=merge", "-p", `{"spec": {"shutdown": "`+how+`"}}`)
		w.reads("workflows.argoproj.io/"+name, ".status.phase", "Failed")
	}
	if out := c.Kubectl("get", "workflows.argoproj.io/theirs", "-o", "jsonpath={.status}"); out != "" {
		t.Errorf("an object of Argo's got a status: %s", out)
	}
	// Who may write a status may not point it at another's run and have that
	// stopped, or its outputs told.
	c.Apply(workflow("victim", "hang"))
	c.Kubectl("wait", "--for=condition=Running", "--timeout=30s", "wf/victim")
	victim := w.run("wf/victim").ID
	c.Apply(strings.Replace(fmt.Sprintf(argoWorkflow, "thief", cairns, "x"), "spec:", "status: {phase: Running, cairn: {run: "+victim+"}}\nspec:\n  shutdown: Terminate", 1))
	w.reads("workflows.argoproj.io/thief", ".status.phase", "Error")
	if why := c.Kubectl("get", "workflows.argoproj.io/thief", "-o", "jsonpath={.status.message}"); !strings.Contains(why, "does not know this run") {
		t.Errorf("the thief is told: %s", why)
	}
	if p := w.run("wf/victim").Phase.String(); p != "running" {
		t.Errorf("the victim is %s", p)
	}
	// Definitions of other versions have the status apart, and drop what they do
	// not know.
	c.Kubectl("patch", "crd", "workflows.argoproj.io", "--type=json", "-p", `[{"op": "add", "path": "/spec/versions/0/subresources", "value": {"status": {}}}]`)
	c.Apply(fmt.Sprintf(argoWorkflow, "apart", cairns, "x"))
	w.reads("workflows.argoproj.io/apart", ".status.phase", "Succeeded")
	w.reads("workflows.argoproj.io/apart", `.metadata.labels.workflows\.argoproj\.io/phase`, "Succeeded")
	// Argo goes, and Cairn's own definitions come.
	definitions(t, c, crd.Argo()...)
	w.reads("workflows.argoproj.io/theirs", ".status.phase", "Succeeded")
}
