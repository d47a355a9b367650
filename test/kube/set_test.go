package kube_test

import (
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/test/cluster"
)

// set is a workflow of Argo's with one containerSet.
func set(name, containers, fields string) string {
	return "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {name: " + name + "}\nspec:\n  entrypoint: main\n  templates:\n  - name: main\n    volumes: [{name: work, emptyDir: {}}]\n    containerSet:\n      volumeMounts: [{name: work, mountPath: /both}]\n" + fields + "      containers:\n" + containers
}

// Several containers in one pod, in order, with a folder in common.
func TestContainerSets(t *testing.T) {
	t.Parallel()
	f := newFarm(t, cluster.Options{Nodes: 1}, nil)
	f.cluster.Apply(`{apiVersion: v1, kind: Namespace, metadata: {name: strict, labels: {pod-security.kubernetes.io/enforce: restricted}}}`)
	const inOrder = `      - {name: a, image: 'alpine:3.23', command: [sh, -c, 'sleep 1; grep -q Alpine /etc/os-release; echo a > /both/out; echo from a']}
      - {name: b, image: 'busybox:1', dependencies: [a], env: [{name: WHO, value: b}], command: [sh, -c, 'test -z "$CAIRN_TOKEN" && echo $WHO >> /both/out']}
      - {name: main, image: 'busybox:1', dependencies: [b], command: [sh, -c, 'test "$(cat /both/out | tr "\n" " ")" = "a b "; code=$?; cat /both/out; exit $code']}
`
	for _, namespace := range []string{"default", "strict"} {
		t.Run("in order, in "+namespace, func(t *testing.T) {
			id := f.runIn(namespace, set("ordered", inOrder, ""))
			f.succeeds(id, 1, time.Minute)
			f.mu.Lock()
			said := strings.Join(f.lines[id], "")
			f.mu.Unlock()
			if !strings.Contains(said, "from a\n") || !strings.Contains(said, "a\nb\n") {
				t.Errorf("it printed %q", said)
			}
			await(t, "its pod has ended well", func() (string, bool) {
				got := f.cluster.Kubectl("get", "pods", "-n", namespace, "-l", "cairn.dev/run="+id, "-o", "jsonpath={.items[*].status.phase}")
				return got, got == "Succeeded"
			})
		})
	}
	for name, c := range map[string]struct{ containers, fields, says string }{
		"one fails": {`      - {name: a, image: 'busybox:1', command: [sh, -c, 'exit 3']}
      - {name: b, image: 'busybox:1', dependencies: [a], command: ['true']}
`, "", "container a: exit code 3"},
		"one is tried again": {`      - {name: a, image: 'busybox:1', command: ['true']}
      - {name: b, image: 'busybox:1', command: [sh, -c, 'test -e /both/b && exit; touch /both/b; exit 1']}
`, "      retryStrategy: {retries: 2, duration: 1s}\n", ""},
		"the image's own command": {`      - {name: a, image: 'busybox:1'}
      - {name: b, image: 'busybox:1', dependencies: [a]}
`, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			i := f.ends(f.run(set("set", c.containers, c.fields)), time.Minute)
			if c.says == "" && i.Phase != machine.Succeeded || c.says != "" && (i.Phase != machine.Failed || !strings.Contains(f.why(i), c.says)) {
				t.Errorf("it is %v: %s", i.Phase, f.why(i))
			}
		})
	}
}

// Containers beside a task end with it, whatever they do, and see its folders.
func TestSidecars(t *testing.T) {
	t.Parallel()
	f := newFarm(t, cluster.Options{Nodes: 1}, nil)
	const (
		until = "for i in 1 2 3 4 5 6 7 8 9; do test -e /both/up && exit; sleep 1; done; exit 1"
		soon  = "    podSpecPatch: '{terminationGracePeriodSeconds: 2}'\n" // for programs that do not hear SIGTERM
	)
	sidecar := func(fields, command, main string) string {
		return "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {name: beside}\nspec:\n  entrypoint: main\n  templates:\n  - name: main\n    volumes: [{name: work, emptyDir: {}}]\n    sidecars: [{name: side, image: 'busybox:1', " + fields + "command: [sh, -c, '" + command + "']}]\n    container: {image: 'busybox:1', volumeMounts: [{name: work, mountPath: /both}], command: [sh, -c, '" + main + "']}\n"
	}
	docs := map[string]string{
		"one that does not end":     sidecar("", "trap \"exit 0\" TERM; while true; do sleep 1 & wait; done", "true"),
		"one that ignores SIGTERM":  sidecar("", "trap : TERM; while true; do sleep 1; done", "true") + soon,
		"one that ends first":       sidecar("", "true", "sleep 2"),
		"a folder in common":        sidecar("volumeMounts: [{name: work, mountPath: /both}], ", "echo up > /both/up; sleep 1000", until) + soon,
		"all folders of the main's": sidecar("mirrorVolumeMounts: true, ", "echo up > /both/up; sleep 1000", until) + soon,
	}
	runs := map[string]string{}
	for name, doc := range docs { // they wait together
		runs[name] = f.run(doc)
	}
	for name, id := range runs {
		t.Run(name, func(t *testing.T) {
			f.succeeds(id, 1, time.Minute)
			await(t, "its pod has ended, or is gone with its Job", func() (string, bool) {
				got := f.cluster.Kubectl("get", "pods", "-l", "cairn.dev/run="+id, "-o", "jsonpath={.items[*].status.phase}")
				return got, got == "Succeeded" || got == ""
			})
		})
	}
}
