package task_test

import (
	"reflect"
	"testing"

	"cairn.dev/cairn/internal/task"
)

// The name stands wherever it was asked for, once a pod has the task; who has
// it next does not find the name of the one before.
func TestIn(t *testing.T) {
	make := func(name string, open bool) (task.Task, *task.Own) {
		script := "echo " + name
		return task.Task{Command: []string{"sh", name}, Args: []string{name + name}, Env: []task.Env{{Name: "P", Value: "in " + name}}, Script: script,
				Inputs: []task.Input{{Name: "f", Content: []byte(name)}, {Name: "d", Digest: "sha256:aa"}}, PodName: open,
				Resource: &task.Resource{Name: name, Selector: "pod=" + name, Manifest: []byte(`{"name":"` + name + `"}`)}},
			&task.Own{Command: []string{name}, Args: []string{name}, Env: []task.Env{{Name: "Q", Value: name}}, Script: &script, Inputs: []task.Input{{Content: []byte(name)}}}
	}
	body, own := make(task.PodName, true)
	for _, pod := range []string{"a-0-x2x", "b"} {
		want, wantOwn := make(pod, false)
		if got := body.In(pod); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", pod, got, want)
		}
		if got := own.In(pod); !reflect.DeepEqual(got, wantOwn) {
			t.Errorf("%s: %+v, want %+v", pod, got, wantOwn)
		}
	}
	plain := task.Task{Command: []string{task.PodName}}
	if got := plain.In("a"); got.Command[0] != task.PodName {
		t.Errorf("a task that asked for no name was changed: %+v", got)
	}
}
