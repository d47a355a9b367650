package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/internal/workflow"
)

// tree is a server that has one run.
type tree struct {
	Server
	below map[string][]machine.View
}

func (t tree) Nodes(_ context.Context, _, parent, _ string, _ int, _ machine.Filter) ([]machine.View, bool, error) {
	return t.below[parent], false, nil
}

// What scripts read of a daemon, of the containers of a task, of where tasks run
// and of what they were given.
func TestNodes(t *testing.T) {
	crew := &task.Set{Name: "main", Needs: []string{"b"}, Members: []task.Member{{Name: "a"}, {Name: "b", Needs: []string{"a"}}, {Name: "c"}}}
	run := tree{below: map[string][]machine.View{
		"": {{ID: "1", Name: "main", Kind: "dag", Phase: machine.Running, Children: true}},
		"1": {
			{ID: "2", Name: "web", Kind: "task", Template: "web", Phase: machine.Running, Address: "10.0.0.7"},
			{ID: "3", Name: "set", Kind: "task", Template: "set", Phase: machine.Failed, Exit: 3, Message: task.SetMessage("a", "exit code 3", nil), Set: crew},
			{ID: "4", Name: "ask", Kind: "task", Template: "ask", Phase: machine.Running, Inputs: map[string]workflow.Value{"at": "10.0.0.7", "long": strings.Repeat("x", maxInput+1)}},
		},
	}}
	c := &Controller{d: Deps{Server: run, Place: func(run, namespace, task string) (string, string) {
		if task == "3" { // its pod has gone, and this process never knew it
			return "", ""
		}
		return strings.Join([]string{"pod", run, task}, "-"), "node-of-" + namespace
	}}}
	old := map[string]any{"w-3": map[string]any{"podName": "old", "hostNodeName": "n3"}, "w-4": map[string]any{"podName": "another", "hostNodeName": "n4"}}
	nodes, err := c.nodes(t.Context(), work.Info{ID: "r", Namespace: "data"}, "w", old)
	if err != nil {
		t.Fatal(err)
	}
	kept := fit(nodes, MaxStatus)
	for id, want := range map[string]string{
		"w-2":      `{"boundaryID":"w","daemoned":true,"displayName":"web","hostNodeName":"node-of-data","id":"w-2","name":"w.web","phase":"Running","podIP":"10.0.0.7","podName":"pod-r-2","templateName":"web","type":"Pod"}`,
		"w-3":      `{"boundaryID":"w","children":["w-3-a","w-3-c"],"displayName":"set","hostNodeName":"n3","id":"w-3","message":"container a: exit code 3","name":"w.set","outputs":{"exitCode":"3"},"phase":"Failed","podName":"old","templateName":"set","type":"Pod"}`,
		"w-3-a":    `{"boundaryID":"w-3","children":["w-3-b"],"displayName":"a","id":"w-3-a","name":"w.set.a","phase":"Failed","templateName":"set","type":"Container"}`,
		"w-3-b":    `{"boundaryID":"w-3","children":["w-3-main"],"displayName":"b","id":"w-3-b","name":"w.set.b","phase":"Omitted","templateName":"set","type":"Container"}`,
		"w-3-c":    `{"boundaryID":"w-3","displayName":"c","id":"w-3-c","name":"w.set.c","phase":"Succeeded","templateName":"set","type":"Container"}`,
		"w-3-main": `{"boundaryID":"w-3","displayName":"main","id":"w-3-main","name":"w.set.main","phase":"Omitted","templateName":"set","type":"Container"}`,
		"w-4":      `{"boundaryID":"w","displayName":"ask","hostNodeName":"node-of-data","id":"w-4","inputs":{"parameters":[{"name":"at","value":"10.0.0.7"}]},"name":"w.ask","phase":"Running","podName":"pod-r-4","templateName":"ask","type":"Pod"}`,
	} {
		got, err := json.Marshal(kept[id])
		if err != nil || string(got) != want {
			t.Errorf("%s:\ngot  %s (%v)\nwant %s", id, got, err, want)
		}
	}
	if len(kept) != 8 {
		t.Errorf("%d nodes, want 8", len(kept))
	}
}

func TestContainersOfATaskThatGoesOn(t *testing.T) {
	set := &task.Set{Name: "main", Members: []task.Member{{Name: "a"}}}
	for _, p := range []machine.Phase{machine.Waiting, machine.Running, machine.Succeeded, machine.Canceled} {
		for _, c := range containersOf(&argoNode{id: "n"}, "w.n", machine.View{Phase: p, Set: set}) {
			if c.value["phase"] != argoPhase(p) {
				t.Errorf("of a task that is %v one is %v", p, c.value["phase"])
			}
		}
	}
}

// Inputs take no room from nodes.
func TestNodesBeforeInputs(t *testing.T) {
	var nodes []argoNode
	for i := range 10 {
		nodes = append(nodes, argoNode{id: fmt.Sprint(i), value: map[string]any{"id": fmt.Sprint(i)}, inputs: []any{strings.Repeat("x", 100)}})
	}
	for _, c := range []struct{ room, nodes, inputs int }{{10_000, 10, 10}, {800, 10, 3}, {200, 6, 0}} {
		for i := range nodes {
			nodes[i].value = map[string]any{"id": nodes[i].id}
		}
		kept, inputs := fit(nodes, c.room), 0
		for _, n := range kept {
			if n.(map[string]any)["inputs"] != nil {
				inputs++
			}
		}
		if len(kept) != c.nodes || inputs != c.inputs || size(kept) > c.room {
			t.Errorf("in %d bytes %d nodes and %d inputs, of %d bytes; want %d and %d", c.room, len(kept), inputs, size(kept), c.nodes, c.inputs)
		}
	}
}
