package controller

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/work/machine"
)

// Bounds of what is read of a run to show it.
const (
	maxNodes = 80 // more than fit into MaxStatus
	maxLooks = 50 // pages
)

// argoNode is a node and what it is called there.
type argoNode struct {
	id       string
	value    map[string]any
	inputs   []any // of its parameters, which are left out where there is no room
	children []string
}

// nodes are those of a run, as many as a status may have, from the top. old are
// those that the status has: of where a task ran they may know more.
func (c *Controller) nodes(ctx context.Context, run work.Info, name string, old map[string]any) ([]argoNode, error) {
	// above is the node that encloses what is below, node the one right above it:
	// they differ below a fan-out, which encloses nothing.
	type level struct {
		parent, above, path string
		node                int
	}
	var out []argoNode
	for levels, looks := []level{{node: -1}}, 0; len(levels) > 0 && len(out) < maxNodes && looks < maxLooks; looks++ {
		l := levels[0]
		levels = levels[1:]
		views, _, err := c.d.Server.Nodes(ctx, run.ID, l.parent, "", maxNodes-len(out), machine.Filter{})
		if errors.Is(err, work.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, v := range views {
			above, path := l.above, l.path+"."+v.Name
			if l.parent == "" {
				if above, path = "", name; len(out) > 0 { // beside the run itself: what runs at its end
					above, path = name, name+"."+v.Name
				}
			}
			if v.Kind == "call" && !v.Phase.Ended() {
				continue // Argo knows no nodes that have not begun
			}
			n := nodeOf(name, above, path, v)
			if v.Kind == "task" {
				c.locate(run, v.ID, n, old)
			}
			if l.node >= 0 {
				out[l.node].children = append(out[l.node].children, n.id)
			}
			out = append(out, n)
			if v.Set != nil && v.Kind == "task" {
				out = append(out, containersOf(&out[len(out)-1], path, v)...)
			}
			switch {
			case v.Kind == "tasks" || v.Kind == "items": // items are called by their whole names
				levels = append(levels, level{v.ID, above, l.path, len(out) - 1})
			case v.Children:
				levels = append(levels, level{v.ID, n.id, path, len(out) - 1})
			}
		}
	}
	return out, nil
}

// locate says where a task runs, or ran: a pod that is gone, and a process that
// was, are remembered by the status.
func (c *Controller) locate(run work.Info, id string, n argoNode, old map[string]any) {
	pod, node := "", ""
	if c.d.Place != nil {
		pod, node = c.d.Place(run.ID, run.Namespace, id)
	}
	was, _ := old[n.id].(map[string]any)
	if name, _ := was["podName"].(string); pod == "" || name == pod {
		pod = name
		if node == "" {
			node, _ = was["hostNodeName"].(string)
		}
	}
	put(n.value, "podName", pod)
	put(n.value, "hostNodeName", node)
}

// nodeOf is a node of a run as Argo shows it. above is the one it stands below,
// "" for the run itself.
func nodeOf(workflowName, above, path string, v machine.View) argoNode {
	n := argoNode{id: workflowName}
	if above != "" {
		n.id = workflowName + "-" + v.ID
		if v.ID == "" { // it has not begun: there is no node yet
			n.id = above + "-" + v.Name
		}
	}
	m := map[string]any{"id": n.id, "name": path, "displayName": v.Name, "type": nodeType(v), "phase": argoPhase(v.Phase)}
	if above == "" {
		m["displayName"] = workflowName
	}
	put(m, "boundaryID", above)
	put(m, "templateName", v.Template)
	put(m, "message", cut(v.Message, maxSample))
	put(m, "startedAt", moment(v.Started))
	put(m, "finishedAt", moment(v.Ended))
	if v.Address != "" { // as Argo has it: others go on, and it has not ended
		m["daemoned"], m["podIP"] = true, v.Address
	}
	if v.Items > 1 {
		m["progress"] = strconv.Itoa(v.Succeeded+v.Failed+v.Skipped+v.Canceled) + "/" + strconv.Itoa(v.Items)
	}
	outputs := map[string]any{}
	if v.Kind == "task" && v.Phase.Ended() && v.Phase != machine.Skipped && v.Phase != machine.Omitted {
		outputs["exitCode"] = strconv.Itoa(v.Exit)
	}
	if r, ok := v.Outputs["result"].(string); ok && len(r) <= maxOutput {
		outputs["result"] = r
	}
	if params, ok := v.Outputs["parameters"].(map[string]any); ok {
		if list := parameters(params, maxOutput); len(list) > 0 {
			outputs["parameters"] = list
		}
	}
	if len(outputs) > 0 {
		m["outputs"] = outputs
	}
	n.value, n.inputs = m, parameters(v.Inputs, maxInput)
	return n
}

func nodeType(v machine.View) string {
	switch v.Kind {
	case "dag":
		return "DAG"
	case "tasks", "items":
		return "TaskGroup"
	case "suspend":
		return "Suspend"
	case "call":
		if v.Phase == machine.Skipped || v.Phase == machine.Omitted {
			return "Skipped"
		}
	}
	return "Pod"
}

// containersOf are the nodes of the containers of a task, which n is. How each is
// follows from how the task is: it has succeeded when all have, and names those
// that failed.
func containersOf(n *argoNode, path string, v machine.View) (out []argoNode) {
	all := append([]task.Member{{Name: v.Set.Name, Needs: v.Set.Needs}}, v.Set.Members...)
	failed := task.SetFailed(v.Message)
	id := func(name string) string { return n.id + "-" + name }
	for _, c := range all {
		m := map[string]any{"id": id(c.Name), "name": path + "." + c.Name, "displayName": c.Name, "type": "Container", "boundaryID": n.id, "phase": argoPhase(containerPhase(all, c.Name, v, failed))}
		put(m, "templateName", v.Template)
		put(m, "startedAt", moment(v.Started))
		put(m, "finishedAt", moment(v.Ended))
		x := argoNode{id: id(c.Name), value: m}
		for _, other := range all {
			if slices.Contains(other.Needs, c.Name) {
				x.children = append(x.children, id(other.Name))
			}
		}
		if len(c.Needs) == 0 {
			n.children = append(n.children, x.id)
		}
		out = append(out, x)
	}
	return out
}

// containerPhase is how a container of a task is. What waits for one that failed
// was not begun.
func containerPhase(all []task.Member, name string, v machine.View, failed []string) machine.Phase {
	if v.Phase != machine.Failed || len(failed) == 0 {
		return v.Phase
	}
	if slices.Contains(failed, name) {
		return machine.Failed
	}
	for seen, wants := map[string]bool{}, []string{name}; len(wants) > 0; wants = wants[1:] {
		for _, c := range all {
			if c.Name != wants[0] || seen[c.Name] {
				continue
			}
			seen[c.Name] = true
			if slices.ContainsFunc(c.Needs, func(need string) bool { return slices.Contains(failed, need) }) {
				return machine.Omitted
			}
			wants = append(wants, c.Needs...)
		}
	}
	return machine.Succeeded
}
