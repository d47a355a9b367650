package argo_test

import (
	"encoding/json"
	"testing"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/workflow/argo"
	"cairn.dev/cairn/internal/workflow/workflowtest"
)

const podDoc = `apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {name: a}
spec:
  entrypoint: main
  serviceAccountName: runner
  nodeSelector: {disk: ssd}
  imagePullSecrets: [{name: pull}]
  podMetadata: {labels: {team: core}}
  volumeClaimTemplates: [{metadata: {name: work}, spec: {accessModes: [ReadWriteOnce]}}]
  volumes:
  - {name: keys, secret: {secretName: "keys-{{workflow.parameters.env}}"}}
  - {name: unused, secret: {secretName: other}}
  - {name: scratch, emptyDir: {}}
  arguments: {parameters: [{name: env, value: prod}]}
  templates:
  - name: main
    inputs: {parameters: [{name: zone, value: b}]}
    nodeSelector: {zone: "{{inputs.parameters.zone}}"}
    tolerations: [{key: gpu, operator: Exists}]
    metadata: {labels: {app: "x-{{inputs.parameters.zone}}"}}
    sidecars: [{name: proxy, image: nginx}]
    container:
      image: busybox
      command: ["true"]
      env:
      - {name: PLAIN, value: "1"}
      - {name: TOKEN, valueFrom: {secretKeyRef: {name: keys, key: token}}}
      envFrom: [{secretRef: {name: all}}]
      resources: {requests: {cpu: 500m}, limits: {memory: 1Gi, nvidia.com/gpu: 1}}
      securityContext: {runAsUser: 5, privileged: true}
      readinessProbe: {exec: {command: ["true"]}}
      imagePullPolicy: Always
      volumeMounts:
      - {name: keys, mountPath: /keys, readOnly: true}
      - {name: work, mountPath: /data, subPath: a}
      - {name: scratch, mountPath: /scratch}
`

const podWant = `{
 "container": {
  "env": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"key": "token", "name": "keys"}}}],
  "envFrom": [{"secretRef": {"name": "all"}}],
  "imagePullPolicy": "Always",
  "readinessProbe": {"exec": {"command": ["true"]}},
  "resources": {"limits": {"memory": "1Gi", "nvidia.com/gpu": 1}, "requests": {"cpu": "500m"}},
  "securityContext": {"privileged": true, "runAsUser": 5},
  "volumeMounts": [{"mountPath": "/data", "name": "work", "subPath": "a"}]
 },
 "imagePullSecrets": [{"name": "pull"}],
 "metadata": {"labels": {"app": "x-b"}},
 "nodeSelector": {"zone": "b"},
 "podMetadata": {"labels": {"team": "core"}},
 "serviceAccountName": "runner",
 "sidecars": [{"image": "nginx", "name": "proxy"}],
 "tolerations": [{"key": "gpu", "operator": "Exists"}],
 "volumeClaimTemplates": [{"metadata": {"name": "work"}, "spec": {"accessModes": ["ReadWriteOnce"]}}],
 "volumes": [{"name": "keys", "secret": {"secretName": "keys-prod"}}, {"emptyDir": {}, "name": "scratch"}]
}`

// What only Kubernetes can do is handed on to it, with its tags filled in, and
// nothing of it is lost.
func TestPod(t *testing.T) {
	g, ps := argo.Compile("a", []byte(podDoc), argo.Options{Cluster: true})
	if len(ps) > 0 {
		t.Fatal(problems(ps))
	}
	s := workflowtest.Inputs(map[string]any{"zone": "b"})
	s["workflow"] = map[string]any{"parameters": map[string]any{"env": "prod"}}
	got, err := g.Templates["main"].Leaf.Render(s)
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]any
	if err := json.Unmarshal([]byte(podWant), &want); err != nil {
		t.Fatal(err)
	}
	a, _ := json.MarshalIndent(got.Pod, "", " ")
	b, _ := json.MarshalIndent(want, "", " ")
	if string(a) != string(b) {
		t.Errorf("got %s\nwant %s", a, b)
	}
	if got.CPU != 500 || got.Memory != 1<<30 || got.User != "5" || len(got.Volumes) != 3 || len(got.Env) != 1 || got.Env[0] != (task.Env{Name: "PLAIN", Value: "1"}) {
		t.Errorf("beside the pod: %+v", got)
	}
	// Elsewhere each is refused, at its place.
	if _, ps := argo.Compile("a", []byte(podDoc), argo.Options{}); len(ps) < 10 {
		t.Errorf("without a cluster:\n%s", problems(ps))
	}
}

// A task that asks for nothing of a cluster shares its body with others.
func TestNoPod(t *testing.T) {
	doc := "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {name: a}\nspec: {entrypoint: main, volumes: [{name: v, emptyDir: {}}], templates: [{name: main, container: {image: busybox, volumeMounts: [{name: v, mountPath: /v}]}}]}\n"
	g, ps := argo.Compile("a", []byte(doc), argo.Options{Cluster: true})
	if len(ps) > 0 {
		t.Fatal(problems(ps))
	}
	if got, err := g.Templates["main"].Leaf.Render(scope{}); err != nil || got.Pod != nil {
		t.Errorf("%+v, %v", got, err)
	}
}
