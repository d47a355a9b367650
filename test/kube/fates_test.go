package kube_test

import (
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/test/cluster"
)

// argo is a workflow of Argo's with one template.
func argo(name, fields string) string {
	return "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {name: " + name + "}\nspec:\n  entrypoint: main\n  templates:\n  - name: main\n    container: {image: 'busybox:1', command: ['true']}\n" + fields
}

// why is what a run says about its first task.
func (f *farm) why(i work.Info) string {
	f.t.Helper()
	nodes, _, err := f.server.Nodes(f.t.Context(), i.ID, "1", "", 1, machine.Filter{})
	if err != nil {
		f.t.Fatal(err)
	}
	if len(nodes) == 0 {
		return i.Message
	}
	return i.Message + " " + nodes[0].Message
}

// What cannot start ends the run, in words that say what to do: never in silence.
// Where a node has little time its events are there before the status of a pod:
// what is asked of the words holds for both.
func TestPodsThatDoNotStart(t *testing.T) {
	t.Parallel()
	f := newFarm(t, cluster.Options{Nodes: 1}, func(f *farm) { f.jobs.BadStart, f.jobs.NoStart = 4*time.Second, 8*time.Second })
	f.cluster.Apply(`{apiVersion: v1, kind: Namespace, metadata: {name: none}}
---
{apiVersion: v1, kind: ResourceQuota, metadata: {name: none, namespace: none}, spec: {hard: {pods: "0"}}}
---
{apiVersion: resource.k8s.io/v1, kind: DeviceClass, metadata: {name: gpus}, spec: {selectors: [{cel: {expression: "device.driver == 'gpu.example'"}}]}}
---
{apiVersion: resource.k8s.io/v1, kind: ResourceClaimTemplate, metadata: {name: gpu}, spec: {spec: {devices: {requests: [{name: one, exactly: {deviceClassName: gpus}}]}}}}`)
	device := func(template string) string {
		return argo("device", "    podSpecPatch: '{resourceClaims: [{name: gpu, resourceClaimTemplateName: "+template+"}], containers: [{name: main, resources: {claims: [{name: gpu}]}}]}'\n")
	}
	all := []struct {
		name, namespace, doc string
		want                 []string
	}{
		{"no such image", "default", strings.ReplaceAll(document("missing", 1, "command: ['true']"), "busybox:1", "missing:1"), []string{"container main cannot start", "missing:1: not found", "correct the image's name"}},
		{"no such Secret", "default", argo("secret", "    podSpecPatch: '{containers: [{name: main, env: [{name: A, valueFrom: {secretKeyRef: {name: gone, key: k}}}]}]}'\n"), []string{"container main cannot start", `secret "gone" not found`, "make it in this namespace"}},
		{"no such field", "default", argo("field", "    podSpecPatch: '{nodeSelektor: {a: b}}'\n"), []string{"podSpecPatch", `"nodeSelektor"`}},
		{"no such node", "default", argo("node", "    nodeSelector: {there: 'no'}\n"), []string{"no node takes the pod", "node(s) didn't match"}},
		{"no such namespace", "nowhere", document("nowhere", 1, "command: ['true']"), []string{"there is no namespace nowhere in cluster prod"}},
		{"no quota", "none", document("quota", 1, "command: ['true']"), []string{"no pod of Job", "exceeded quota"}},
		{"what the API server refuses", "default", argo("refused", "    podSpecPatch: '{containers: [{name: main, workingDir: x, resources: {requests: {cpu: -1}}}]}'\n"), []string{"must be greater than or equal to 0"}},
		{"no such Secret to mount", "default", argo("mounted", "    podSpecPatch: '{volumes: [{name: v, secret: {secretName: gone}}], containers: [{name: main, volumeMounts: [{name: v, mountPath: /v}]}]}'\n"), []string{"FailedMount", `secret "gone" not found`, "make it in this namespace"}},
		{"no such claim", "default", argo("claim", "    podSpecPatch: '{volumes: [{name: v, persistentVolumeClaim: {claimName: gone}}]}'\n"), []string{`persistentvolumeclaim "gone" not found`, "make the claim"}},
		{"no such account", "default", argo("account", "    serviceAccountName: nobody\n"), []string{"no pod of Job", `serviceaccount "nobody" not found`, "make the service account"}},
		{"no room", "default", argo("room", "    podSpecPatch: '{containers: [{name: main, resources: {requests: {memory: 1Ti}}}]}'\n"), []string{"no node takes the pod", "Insufficient memory", "add nodes"}},
		{"no such device", "default", device("gpu"), []string{"no node takes the pod", "cannot allocate all claims", "resourceslices"}},
		{"no such template of a device", "default", device("gone"), []string{"ResourceClaimTemplate"}},
		{"no such program", "default", document("program", 1, "command: [/no/such/program]"), []string{"/no/such/program"}},
	}
	var runs []string
	for _, c := range all { // they wait together
		runs = append(runs, f.runIn(c.namespace, c.doc))
	}
	for k, c := range all {
		t.Run(c.name, func(t *testing.T) {
			i := f.ends(runs[k], 90*time.Second)
			why := f.why(i)
			t.Log(i.Phase, why)
			if i.Phase != machine.Errored && i.Phase != machine.Failed {
				t.Errorf("it is %v", i.Phase)
			}
			for _, want := range c.want {
				if !strings.Contains(why, want) {
					t.Errorf("%q does not say %q", why, want)
				}
			}
		})
	}
}

// Pods of which the cluster asks more, or that ask for more themselves.
func TestKindsOfPods(t *testing.T) {
	t.Parallel()
	f := newFarm(t, cluster.Options{Nodes: 1}, nil)
	f.cluster.Apply(`{apiVersion: v1, kind: Namespace, metadata: {name: strict, labels: {pod-security.kubernetes.io/enforce: restricted}}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: words}, data: {hello: world}}
---
{apiVersion: v1, kind: Secret, metadata: {name: keys}, stringData: {p: hush}}`)
	t.Run("restricted namespace", func(t *testing.T) {
		id := f.runIn("strict", document("strict", 20, "command: [sh, -c, 'test ! -e /tmp/x && test ! -s /dev/termination-log && echo x > /tmp/x && echo x > /dev/termination-log']"))
		i := f.succeeds(id, 20, time.Minute)
		t.Log("isolation", i.Isolation)
		if i.Isolation["readonly"] != 20 {
			t.Errorf("tasks got %v, want 20 readonly: it needs no privilege", i.Isolation)
		}
	})
	t.Run("a pod for each task", func(t *testing.T) {
		id := f.run(document("apart", 12, "isolation: pod, command: [sh, -c, 'test ! -e /left; echo x > /left']"))
		f.succeeds(id, 12, 2*time.Minute)
		jobs := strings.Fields(f.cluster.Kubectl("get", "jobs", "-l", "cairn.dev/run="+id, "-o", "name"))
		pods := strings.Fields(f.cluster.Kubectl("get", "pods", "-l", "cairn.dev/run="+id, "-o", "name"))
		t.Logf("%d Jobs, %d pods", len(jobs), len(pods))
		if len(pods) != 12 {
			t.Errorf("%d pods for 12 tasks", len(pods))
		}
	})
	t.Run("the image's own command", func(t *testing.T) {
		f.succeeds(f.run("apiVersion: cairn.dev/v1alpha1\nkind: Workflow\nmetadata: {name: own}\nspec: {tasks: [{name: a, image: 'busybox:1'}]}\n"), 1, time.Minute)
	})
	t.Run("files of others", func(t *testing.T) {
		f.succeeds(f.run(argo("patched", "    podSpecPatch: '{volumes: [{name: w, configMap: {name: words}}], containers: [{name: main, volumeMounts: [{name: w, mountPath: /w}]}]}'\n")), 1, time.Minute)
	})
	t.Run("what a pod has, in our words", func(t *testing.T) {
		f.succeeds(f.run(`apiVersion: cairn.dev/v1alpha1
kind: Workflow
metadata: {name: words}
spec:
  pod: {serviceAccountName: default, nodeSelector: {kubernetes.io/os: linux}}
  tasks:
  - name: a
    image: busybox:1
    command: [sh, -c, 'test "$P" = hush && test "$(cat /w/hello)" = world && test "$(id -u)" = 1234']
    volumes: [{name: w, path: /w}]
    pod:
      volumes: [{name: w, configMap: {name: words}}]
      securityContext: {runAsUser: 1234}
      container: {env: [{name: P, valueFrom: {secretKeyRef: {name: keys, key: p}}}]}
`), 1, time.Minute)
	})
	t.Run("images that differ by item", func(t *testing.T) {
		id := f.run("apiVersion: cairn.dev/v1alpha1\nkind: Workflow\nmetadata: {name: images}\nspec: {tasks: [{name: a, image: '${{ item }}', command: ['true'], forEach: ['busybox:1', 'alpine:3.23', 'busybox:1']}]}\n")
		f.succeeds(id, 3, time.Minute)
	})
	t.Run("what Kubernetes knows", func(t *testing.T) {
		id := f.run(`apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {name: knows}
spec:
  entrypoint: main
  volumes: [{name: keys, secret: {secretName: keys}}]
  templates:
  - name: main
    container:
      image: busybox:1
      command: [sh, -c, 'test "$PASSWORD" = hush && test "$(cat /keys/p)" = hush && test "$hello" = world && test "$(id -u):$(id -g)" = 1000:2000 && test "${POD#cairn-}" != "$POD"']
      env:
      - {name: PASSWORD, valueFrom: {secretKeyRef: {name: keys, key: p}}}
      - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
      envFrom: [{configMapRef: {name: words}}]
      securityContext: {runAsUser: 1000, runAsGroup: 2000}
      volumeMounts: [{name: keys, mountPath: /keys}]
`)
		f.succeeds(id, 1, time.Minute)
	})
	t.Run("a container beside it", func(t *testing.T) {
		id := f.run(`apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {name: beside}
spec:
  entrypoint: main
  templates:
  - name: main
    sidecars: [{name: web, image: 'busybox:1', command: [sh, -c, 'trap "exit 0" TERM; mkdir /www; echo hello > /www/index.html; httpd -f -p 8080 -h /www & wait']}]
    container:
      image: busybox:1
      command: [sh, -c, 'for i in 1 2 3 4 5 6 7 8 9; do wget -qO- http://127.0.0.1:8080/ && exit; sleep 1; done; exit 1']
`)
		f.succeeds(id, 1, time.Minute)
	})
	t.Run("volumes that are new for each task", func(t *testing.T) {
		f.succeeds(f.run(document("volumes", 20, "volumes: [{name: v, path: /v}], command: [sh, -c, 'test ! -e /v/left && echo x > /v/left']")), 20, time.Minute)
	})
}
