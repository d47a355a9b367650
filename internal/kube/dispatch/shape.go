package dispatch

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"cairn.dev/cairn/internal/task"
)

// A Shape is what a container has to be so that a task can run in it. Tasks of
// one run whose shapes are the same share pods; everything else about a task
// goes to the worker in the pod.
type Shape struct {
	Image string `json:"image"`
	// Entrypoint: some tasks name no command, so that the image's has to be
	// known.
	Entrypoint bool          `json:"entrypoint,omitempty"`
	User       string        `json:"user,omitempty"`
	CPU        int64         `json:"cpu,omitempty"`
	Memory     int64         `json:"memory,omitempty"`
	Volumes    []task.Volume `json:"volumes,omitempty"`
	Isolation  string        `json:"isolation,omitempty"`
	// Outside: outputs lie where no volume is, so that a root that cannot be
	// written will not do.
	Outside bool           `json:"outside,omitempty"`
	Pod     map[string]any `json:"pod,omitempty"`
	// Daemon: others have to find the pod by its address.
	Daemon bool `json:"daemon,omitempty"`
	// Requests: the tasks are requests to the API server, which the worker makes
	// itself, in a container of its own image.
	Requests bool `json:"requests,omitempty"`
}

// ShapeOf is the shape of a task.
func ShapeOf(t *task.Task) Shape {
	if t.Resource != nil {
		return Shape{Requests: true, Pod: t.Pod} // they need not be kept apart
	}
	s := Shape{Image: t.Image, Entrypoint: len(t.Command) == 0, User: t.User, CPU: t.CPU, Memory: t.Memory, Volumes: t.Volumes, Isolation: t.Isolation, Pod: t.Pod, Daemon: t.Daemon}
	if s.Isolation == "auto" {
		s.Isolation = ""
	}
	if t.PodName {
		s.Isolation = "pod"
	}
	for _, o := range t.Outputs {
		s.Outside = s.Outside || o.Path != "" && !s.fresh(o.Path)
	}
	return s
}

// Fresh are the folders that a task may always write, besides its volumes.
var Fresh = []string{"/tmp", "/var/tmp"}

func (s *Shape) fresh(path string) bool {
	below := func(dir string) bool { return len(path) > len(dir) && path[:len(dir)] == dir && path[len(dir)] == '/' }
	return slices.ContainsFunc(Fresh, below) || slices.ContainsFunc(s.Volumes, func(v task.Volume) bool { return below(v.Path) })
}

// Slots is how many tasks a pod of this shape has at a time: requests do little
// but wait.
func (s *Shape) Slots() int {
	if s.Requests && !s.Single() {
		return 16
	}
	return 1
}

// Single says that a pod of this shape runs one task and ends.
func (s *Shape) Single() bool { return s.Isolation == "pod" || s.Daemon || len(Identity(s.Pod)) > 0 }

// inPod is a task as a worker gets it in a container that was made for it: what
// the container has seen to is not the worker's to do.
func inPod(t *task.Task, pod string) task.Task {
	out := t.In(pod)
	out.Pod = nil
	if s := ShapeOf(t); s.Single() && (s.Isolation == "" || t.PodName) {
		out.Isolation = "pod" // what is beside it may share its folders
	}
	if uid, _, _ := strings.Cut(t.User, ":"); isNumber(uid) {
		out.User = "" // the container runs as that
	}
	if len(t.Volumes) == 0 || len(t.Pod) == 0 {
		return out
	}
	// Volumes that have something in them are not emptied for each task.
	full := map[string]bool{}
	for _, v := range objects(t.Pod["volumes"]) {
		name, _ := v["name"].(string)
		full[name] = v["emptyDir"] == nil
	}
	for _, v := range objects(t.Pod["volumeClaimTemplates"]) {
		meta, _ := v["metadata"].(map[string]any)
		name, _ := meta["name"].(string)
		full[name] = true
	}
	out.Volumes = slices.Clone(t.Volumes)
	for i := range out.Volumes {
		if v := &out.Volumes[i]; v.Claim == "" && full[v.Name] {
			v.Claim = v.Name
		}
	}
	return out
}

func isNumber(s string) bool {
	_, err := strconv.ParseUint(s, 10, 32)
	return err == nil
}

// Class is the name of a shape: the same for equal ones, of letters and digits.
func (s *Shape) Class() string {
	b, err := json.Marshal(s) // maps are written in the order of their keys
	if err != nil {           // it came as JSON
		return "unknown"
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:6])
}

// alone are fields of a task's pod that make it a task's own.
var alone = map[string]string{
	"containerSet":   "several containers are one task",
	"initContainers": "they run once for each pod",
	"metadata":       "labels and annotations name the task's pod",
	"sidecars":       "they live as long as one task",
	"retryAffinity":  "the next attempt keeps away from this pod's node",
}

// ofContainer likewise, of its container.
var ofContainer = map[string]string{
	"lifecycle":      "its hooks belong to one program",
	"livenessProbe":  "it asks one program",
	"readinessProbe": "it asks one program",
	"startupProbe":   "it asks one program",
}

// Identity are the fields of a task's pod that tell one pod from another, by
// their paths: where there are any, each task needs a pod of its own.
func Identity(pod map[string]any) []string {
	var out []string
	for k, v := range pod {
		if _, is := alone[k]; is && !empty(v) {
			out = append(out, k)
		}
	}
	c, _ := pod["container"].(map[string]any)
	for k, v := range c {
		if _, is := ofContainer[k]; is && !empty(v) {
			out = append(out, "container."+k)
		}
	}
	for _, e := range objects(c["env"]) {
		from, _ := e["valueFrom"].(map[string]any)
		for _, k := range []string{"fieldRef", "resourceFieldRef"} {
			if from[k] != nil {
				out = append(out, "container.env.valueFrom."+k)
			}
		}
	}
	for _, m := range objects(c["volumeMounts"]) {
		if m["subPathExpr"] != nil {
			out = append(out, "container.volumeMounts.subPathExpr")
		}
	}
	for _, v := range objects(pod["volumes"]) {
		if v["downwardAPI"] != nil {
			out = append(out, "volumes.downwardAPI")
		}
		if v["ephemeral"] != nil {
			out = append(out, "volumes.ephemeral")
		}
		p, _ := v["projected"].(map[string]any)
		for _, s := range objects(p["sources"]) {
			if s["downwardAPI"] != nil {
				out = append(out, "volumes.projected.sources.downwardAPI")
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// objects are the objects of a list.
func objects(v any) []map[string]any {
	list, _ := v.([]any)
	var out []map[string]any
	for _, x := range list {
		if m, ok := x.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}

func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case bool:
		return !v
	case string:
		return v == ""
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}
