package jobs

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// userPod is what a task says about its pod, read.
//
// Fields of a task's Pod are those of a PodSpec, and these: container (fields
// of the container that the task runs in), sidecars (containers beside it),
// containerSet (the other containers that are one task with it),
// metadata (labels and annotations), volumeClaimTemplates (claims that the run
// has to itself) and podSpecPatch (a strategic merge patch, over all).
type userPod struct {
	spec      corev1.PodSpec
	main      corev1.Container
	sidecars  []corev1.Container
	members   []corev1.Container // of a containerSet, but for main
	mirrors   map[string]bool    // containers that have what main has mounted
	meta      metav1.ObjectMeta
	claims    []corev1.PersistentVolumeClaim
	always    bool     // claims go when the run has ended, however it ended
	templates []string // their names
	patch     string
}

// renamed are fields that Argo calls otherwise than a PodSpec does.
var renamed = map[string]string{"podPriorityClassName": "priorityClassName", "podPriority": "priority", "podResources": "resources", "podMetadata": "metadata"}

// settled are fields that have no meaning here, because it has been seen to.
var settled = map[string]bool{"pendingTimeout": true, "executor": true, "retryAffinity": true, "podDisruptionBudget": true}

// ours are fields of a PodSpec that tasks may not set.
var ours = map[string]string{
	"containers":         "say container and sidecars",
	"restartPolicy":      "a pod of a Job is never restarted in place",
	"nodeName":           "say nodeSelector or affinity",
	"enableServiceLinks": "they would be seen by tasks",
}

// read reads what a task says about its pod. Its errors are [ErrPod].
func read(pod map[string]any) (userPod, error) {
	var u userPod
	rest := map[string]any{}
	for _, k := range slices.Sorted(maps.Keys(pod)) {
		v := pod[k]
		if to := renamed[k]; to != "" {
			if _, both := pod[to]; both {
				continue // that of the template counts
			}
			k = to
		}
		if k == "sidecars" || k == "initContainers" {
			v = u.mirror(v)
		}
		var err error
		switch {
		case settled[k]:
		case ours[k] != "":
			return u, podErrorf("%s cannot be set: %s", k, ours[k])
		case k == "containerSet":
			var set struct {
				Containers []corev1.Container `json:"containers"`
			}
			err = into(k, v, &set)
			u.members = set.Containers
		case k == "container":
			err = into(k, v, &u.main)
		case k == "sidecars":
			err = into(k, v, &u.sidecars)
		case k == "metadata":
			err = into(k, v, &u.meta)
		case k == "volumeClaimGC":
			var gc struct {
				Strategy string `json:"strategy"`
			}
			err = into(k, v, &gc)
			u.always = gc.Strategy == "OnWorkflowCompletion"
		case k == "volumeClaimTemplates":
			err = into(k, v, &u.claims)
		case k == "podSpecPatch":
			u.patch, _ = v.(string)
		default:
			rest[k] = v
		}
		if err != nil {
			return u, err
		}
	}
	if err := into("pod", rest, &u.spec); err != nil {
		return u, err
	}
	for _, c := range u.claims {
		u.templates = append(u.templates, c.Name)
	}
	for _, c := range slices.Concat(u.sidecars, u.members, u.spec.InitContainers) {
		if c.Name == Main || strings.HasPrefix(c.Name, "cairn") {
			return u, podErrorf("container %s: the name is taken", c.Name)
		}
	}
	for _, v := range u.spec.Volumes {
		if strings.HasPrefix(v.Name, "cairn-") {
			return u, podErrorf("volume %s: names that begin with cairn- are taken", v.Name)
		}
	}
	u.meta = metav1.ObjectMeta{Labels: u.meta.Labels, Annotations: u.meta.Annotations}
	for k := range u.meta.Labels {
		if strings.HasPrefix(k, "cairn.dev/") {
			return u, podErrorf("label %s: labels of cairn.dev are taken", k)
		}
	}
	return u, nil
}

// mirror notes which containers say mirrorVolumeMounts, a field of Argo's, and
// returns them without it.
func (u *userPod) mirror(v any) any {
	list, _ := v.([]any)
	out := slices.Clone(list)
	for i, x := range list {
		c, ok := x.(map[string]any)
		if !ok || c["mirrorVolumeMounts"] == nil {
			continue
		}
		name, _ := c["name"].(string)
		if u.mirrors == nil {
			u.mirrors = map[string]bool{}
		}
		u.mirrors[name] = c["mirrorVolumeMounts"] == true
		c = maps.Clone(c)
		delete(c, "mirrorVolumeMounts")
		out[i] = c
	}
	if list == nil {
		return v // which is no list, and is told to be none
	}
	return out
}

// into reads values of a document as a type of Kubernetes.
func into(what string, v, to any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return podErrorf("%s: %w", what, err)
	}
	return strict(what, b, to)
}

func yamlToJSON(s string) ([]byte, error) {
	if len(s) > 64<<10 {
		return nil, fmt.Errorf("it has %d bytes, at most %d", len(s), 64<<10)
	}
	var v map[string]any
	if err := yaml.Unmarshal([]byte(s), &v); err != nil {
		return nil, err
	}
	return json.Marshal(v)
}
