package workflow

import (
	"encoding/json"
	"maps"
	"strings"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/workflow/document"
)

// What a task may say of its pod: fields of a PodSpec, and what is written
// around one. The cluster's own errors tell what is wrong in their values.
var (
	podFields = []string{"metadata", "container", "sidecars", "initContainers", "volumes", "volumeClaimTemplates", "volumeClaimGC", "podSpecPatch",
		"serviceAccountName", "automountServiceAccountToken", "imagePullSecrets", "nodeSelector", "affinity", "tolerations", "topologySpreadConstraints", "priorityClassName",
		"securityContext", "runtimeClassName", "schedulerName", "hostNetwork", "hostAliases", "dnsPolicy", "dnsConfig", "resourceClaims", "resources"}
	podMetaFields   = []string{"labels", "annotations"}
	containerFields = []string{"env", "envFrom", "resources", "securityContext", "volumeMounts", "volumeDevices", "ports", "lifecycle", "livenessProbe", "readinessProbe", "startupProbe", "imagePullPolicy"}
)

// maxPod bounds what is said of a pod, as JSON.
const maxPod = 256 << 10

// pod reads what a task says of its pod, besides what its document says of all.
func (c *compiler) pod(all, own *document.Node, b *task.Task) {
	for _, n := range []*document.Node{all, own} {
		if n == nil {
			continue
		}
		v, is := n.Value().(map[string]any)
		if !is {
			n.Fail("write fields of a pod, such as nodeSelector: {disk: ssd}")
			continue
		}
		c.g.Cluster = "it says what its pods are like"
		n.Known(podFields...)
		n.Get("metadata").Known(podMetaFields...)
		n.Get("container").Known(containerFields...)
		text, err := json.Marshal(v)
		switch {
		case err != nil:
			n.Fail("%v", err)
		case len(text) > maxPod:
			n.Fail("it has %d bytes as JSON, and at most %d are allowed", len(text), maxPod)
		case strings.Contains(string(text), "${{"):
			n.Fail("a pod has no expressions in it: all tasks of a fan-out share their pods; hand values over by env, args or files")
		}
		if b.Pod == nil {
			b.Pod = map[string]any{}
		}
		maps.Copy(b.Pod, v)
	}
}
