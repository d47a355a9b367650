package kube_test

import (
	"encoding/json"
	"strings"
	"testing"

	"cairn.dev/cairn/test/cluster"
	"cairn.dev/cairn/test/images"
)

// argoNodes has what scripts ask the status of Argo's workflows for: a daemon
// that serves, a task that is several containers, and a request whose manifest
// an earlier task wrote.
const argoNodes = `
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {name: nodes}
spec:
  entrypoint: main
  serviceAccountName: maker
  templates:
  - name: main
    steps:
    - - {name: web, template: web}
      - {name: set, template: set}
      - {name: write, template: write}
    - - {name: apply, template: apply, arguments: {artifacts: [{name: manifest, from: '{{steps.write.outputs.artifacts.manifest}}'}]}}
    - - {name: ask, template: ask, arguments: {parameters: [{name: at, value: '{{steps.web.ip}}'}]}}
    - - {name: gate, template: gate}
  - name: web
    daemon: true
    container:
      image: busybox:1
      command: [sh, -c, 'mkdir -p /tmp/www; hostname > /tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www']
      readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
  - name: ask
    inputs: {parameters: [{name: at}]}
    container: {image: 'busybox:1', command: [wget, -qO-, 'http://{{inputs.parameters.at}}:8080/']}
  - name: set
    containerSet:
      containers:
      - {name: a, image: 'busybox:1', command: ['true']}
      - {name: main, image: 'busybox:1', dependencies: [a], command: ['true']}
  - name: write
    outputs: {artifacts: [{name: manifest, path: /tmp/m.yaml}]}
    script:
      image: busybox:1
      command: [sh]
      source: |
        echo '{apiVersion: v1, kind: ConfigMap, metadata: {name: written}, data: {by: task}}' > /tmp/m.yaml
  - name: apply
    inputs: {artifacts: [{name: manifest, path: /tmp/m.yaml}]}
    resource: {action: apply, successCondition: data.by == task, manifestFrom: {artifact: {name: manifest}}}
  - name: gate
    suspend: {}
`

// deviceless waits for a device whose claim cannot even be made.
const deviceless = `
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {name: deviceless}
spec:
  entrypoint: main
  templates:
  - name: main
    podSpecPatch: '{resourceClaims: [{name: gpu, resourceClaimTemplateName: gone}], containers: [{name: main, resources: {claims: [{name: gpu}]}}]}'
    container: {image: 'busybox:1', command: ['true']}
`

// What a status of Argo's kind tells of nodes is what the cluster says of pods.
func TestArgoNodes(t *testing.T) {
	s := newServed(t, cluster.Options{Nodes: 1}, "", "")
	images.Push(t, s.pushes())
	c := s.cluster
	c.Apply(maker)
	c.Apply(argoNodes)
	c.Apply(deviceless)
	type node struct {
		DisplayName, Type, Phase, PodName, HostNodeName, PodIP, BoundaryID, Message string

		Daemoned bool
		Children []string
		Inputs   struct {
			Parameters []struct{ Name, Value string }
		}
	}
	read := func() map[string]node {
		var u struct {
			Status struct {
				Message string
				Nodes   map[string]node
			}
		}
		if err := json.Unmarshal([]byte(c.Kubectl("get", "workflows.argoproj.io/nodes", "-o", "json")), &u); err != nil {
			t.Fatal(err)
		}
		by := map[string]node{}
		for _, n := range u.Status.Nodes {
			by[n.DisplayName] = n
		}
		return by
	}
	await(t, "the gate is reached", func() (string, bool) {
		by := read()
		return by["apply"].Message + by["set"].Message, by["gate"].Type == "Suspend"
	})
	by := read()
	pod := func(name, path string) string { return c.Kubectl("get", "pod", name, "-o", "jsonpath={"+path+"}") }
	web := by["web"]
	if !web.Daemoned || web.Phase != "Running" || web.PodName == "" || web.PodIP != pod(web.PodName, ".status.podIP") || web.HostNodeName != pod(web.PodName, ".spec.nodeName") {
		t.Errorf("the daemon is %+v", web)
	}
	if in := by["ask"].Inputs.Parameters; len(in) != 1 || in[0].Value != web.PodIP {
		t.Errorf("who asked it was given %+v", in)
	}
	if set := by["set"]; len(set.Children) != 1 || set.PodName == "" || by["a"].Type != "Container" || by["a"].Phase != "Succeeded" || len(by["a"].Children) != 1 {
		t.Errorf("the set is %+v, its first container %+v", set, by["a"])
	}
	if got := c.Kubectl("get", "configmap", "written", "-o", "jsonpath={.data.by}"); got != "task" {
		t.Errorf("the manifest that a task wrote made %q", got)
	}
	await(t, "who waits for a device says so", func() (string, bool) {
		got := c.Kubectl("get", "workflows.argoproj.io/deviceless", "-o", "jsonpath={.status.message}")
		return got, strings.Contains(got, "make the ResourceClaimTemplate")
	})
	t.Log(c.Kubectl("get", "workflows.argoproj.io/deviceless", "-o", "jsonpath={.status.message}"))
	c.Kubectl("patch", "workflows.argoproj.io", "deviceless", "--type=merge", "-p", `{"spec": {"shutdown": "Terminate"}}`)
	c.Kubectl("patch", "workflows.argoproj.io", "nodes", "--type=merge", "-p", `{"spec": {"shutdown": "Stop"}}`)
	await(t, "the daemon is dismissed", func() (string, bool) {
		web := read()["web"]
		return web.Phase, !web.Daemoned && web.PodIP == "" && web.PodName != ""
	})
}
