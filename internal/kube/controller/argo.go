package controller

import (
	"encoding/json"
	"slices"
	"strconv"

	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/internal/workflow"
)

// Labels and an annotation that Argo sets, and people's scripts ask for.
const (
	labelPhase     = "workflows.argoproj.io/phase"
	labelCompleted = "workflows.argoproj.io/completed"
)

// argoPhase is a phase in Argo's words.
func argoPhase(p machine.Phase) string {
	switch p {
	case machine.Waiting:
		return "Pending"
	case machine.Running:
		return "Running"
	case machine.Succeeded:
		return "Succeeded"
	case machine.Errored:
		return "Error"
	case machine.Skipped:
		return "Skipped"
	case machine.Omitted:
		return "Omitted"
	}
	return "Failed" // Argo has no word for what was canceled
}

// argoStatus is the status of a Workflow of Argo's kind: its own words, and in
// "cairn" what they have no place for. It has as many nodes as fit.
func argoStatus(p picture, nodes []argoNode, old map[string]any) (status map[string]any, labels map[string]string) {
	was, _ := old["cairn"].(map[string]any)
	cs := conditionsOf(was, p.now, p.generation)
	phase := argoPhase(p.run.Phase)
	if p.refused != "" || p.lost {
		phase = phaseError
	}
	done := p.ended() || p.refused != ""
	labels = map[string]string{labelPhase: phase, labelCompleted: strconv.FormatBool(done)}
	out := map[string]any{"phase": phase}
	put(out, "message", cut(p.message(), maxMessage))
	own := map[string]any{}
	put(own, "observedSpec", p.spec)
	put(own, "run", p.run.ID)
	put(own, "link", p.link)
	if p.refused != "" {
		cs.set("Accepted", false, "Refused", cut(p.refused, 2*maxMessage))
	} else {
		cs.set("Accepted", true, "Accepted", "the run was taken")
	}
	if p.changed {
		cs.set("Changed", true, "SpecChanged", "the run is that of an earlier spec: what was changed since has no effect")
	} else {
		cs.drop("Changed")
	}
	own["conditions"] = cs.list
	out["cairn"] = own
	if p.refused == "" && !p.lost {
		put(out, "startedAt", moment(p.run.Created))
		put(out, "finishedAt", moment(p.run.Ended))
		out["progress"] = p.progress()
	}
	// Argo's own conditions have a type and a status; kubectl wait reads them.
	list := []any{map[string]any{"type": "Completed", "status": condition(done)}}
	if !done {
		list = append(list, map[string]any{"type": "PodRunning", "status": condition(p.run.Counts.Active > 0)})
	}
	out["conditions"] = list
	if params := parameters(p.run.Outputs, maxOutput); len(params) > 0 {
		out["outputs"] = map[string]any{"parameters": params}
	}
	out["nodes"] = fit(nodes, MaxStatus-size(out)-len(`"nodes":{},`))
	return out, labels
}

func condition(on bool) string {
	if on {
		return "True"
	}
	return "False"
}

// maxOutput bounds the text of one output in a status.
const maxOutput = 512

// argoNode is a node and what it is called there.
type argoNode struct {
	id       string
	value    map[string]any
	children []string
}

// fit takes nodes as long as there is room: those above come before those below.
func fit(nodes []argoNode, room int) map[string]any {
	out := map[string]any{}
	kept := nodes
	for i, n := range nodes {
		// Its name stands in the map, and among the children of another.
		if room -= size(n.value) + 2*len(n.id) + len(`"":,"",,"children":[]`); room < 0 {
			kept = nodes[:i]
			break
		}
		out[n.id] = n.value
	}
	for _, n := range kept {
		var list []any
		for _, c := range n.children {
			if out[c] != nil { // others were not kept
				list = append(list, c)
			}
		}
		if len(list) > 0 {
			n.value["children"] = list
		}
	}
	return out
}

// size is how many bytes of JSON a value is.
func size(v any) int {
	b, err := json.Marshal(v)
	if err != nil { // maps, texts and numbers only
		return MaxStatus
	}
	return len(b)
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
	n.value = m
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

// parameters are outputs as Argo lists them, those that are short.
func parameters(values map[string]any, most int) []any {
	var names []string
	for k := range values {
		names = append(names, k)
	}
	slices.Sort(names)
	var out []any
	for _, k := range names {
		if _, file := values[k].(*workflow.File); file {
			continue
		}
		if s, err := workflow.Text(values[k]); err == nil && len(s) <= most && len(out) < maxSamples {
			out = append(out, map[string]any{"name": k, "value": s})
		}
	}
	return out
}
