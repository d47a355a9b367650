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

// maxOutput bounds the text of one output in a status, maxInput that of an input.
const maxOutput, maxInput = 512, 128

// fit takes nodes as long as there is room: those above come before those below,
// and all of them before what they were given.
func fit(nodes []argoNode, room int) map[string]any {
	out := map[string]any{}
	kept := nodes
	for i, n := range nodes {
		// Its name stands in the map, and among the children of another.
		need := size(n.value) + 2*len(n.id) + len(`"":,"",,"children":[]`)
		if need > room {
			kept, room = nodes[:i], 0
			break
		}
		room -= need
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
	for _, n := range kept {
		if len(n.inputs) == 0 {
			continue
		}
		inputs := map[string]any{"parameters": n.inputs}
		if room -= size(inputs) + len(`"inputs":,`); room < 0 {
			break
		}
		n.value["inputs"] = inputs
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
