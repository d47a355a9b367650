package crd

import (
	"encoding/json"
	"fmt"

	"cairn.dev/cairn/internal/workflow"
)

// Ours are the kinds of cairn.dev.
func Ours() ([]Definition, error) {
	documents, err := schemas()
	if err != nil {
		return nil, fmt.Errorf("make custom resources of the schema of workflows: %w", err)
	}
	spec, cron := documents["Workflow"], documents["CronWorkflow"]
	refineSpec(spec)
	refineSpec(at(cron, "workflow"))
	columns := []map[string]any{
		column("Phase", "string", ".status.phase", 0),
		column("Progress", "string", ".status.progress", 0),
		column("Message", "string", ".status.message", 0),
		column("Run", "string", ".status.run", 1),
	}
	return []Definition{
		definition(names{group: Group, kind: "Workflow", singular: "workflow", plural: "workflows", short: []string{"wf", "cairnwf"}},
			object("A Workflow is run once, when it is created. Deleting it cancels the run; what the run left stays on the server.", spec, runStatus()), true, columns...),
		definition(names{group: Group, kind: "CronWorkflow", singular: "cronworkflow", plural: "cronworkflows", short: []string{"cronwf"}},
			object("A CronWorkflow starts runs at its times.", cron, cronStatus()), true,
			column("Schedule", "string", ".status.schedule", 0), column("Suspended", "boolean", ".status.suspended", 0),
			column("Last", "date", ".status.lastScheduleTime", 0), column("Phase", "string", ".status.lastPhase", 0), column("Next", "string", ".status.nextScheduleTime", 1), column("Message", "string", ".status.message", 0)),
		definition(names{group: Group, kind: "WorkflowTemplate", singular: "workflowtemplate", plural: "workflowtemplates", short: []string{"wftmpl"}},
			object("A WorkflowTemplate is used by tasks of other workflows of its namespace.", spec, templateStatus()), true,
			column("Accepted", "string", `.status.conditions[?(@.type=="Accepted")].status`, 0), column("Message", "string", `.status.conditions[?(@.type=="Accepted")].message`, 0)),
	}, nil
}

// schemas are the structural schemas of the specs of our documents, by kind.
func schemas() (map[string]map[string]any, error) {
	var all struct {
		AnyOf []struct {
			Properties struct {
				Kind struct{ Enum []string }
				Spec map[string]any
			}
		}
	}
	if err := json.Unmarshal(workflow.Schema(), &all); err != nil {
		return nil, err
	}
	out := map[string]map[string]any{}
	for _, d := range all.AnyOf {
		s, err := structural(d.Properties.Spec)
		if err != nil {
			return nil, err
		}
		for _, k := range d.Properties.Kind.Enum {
			out[k] = s
		}
	}
	if out["Workflow"] == nil || out["CronWorkflow"] == nil {
		return nil, fmt.Errorf("it has the kinds %v, and not Workflow and CronWorkflow", out)
	}
	return out, nil
}

// at is a property of a schema of an object, or a place to write to.
func at(s map[string]any, name string) map[string]any {
	props, _ := s["properties"].(map[string]any)
	p, _ := props[name].(map[string]any)
	if p == nil {
		return map[string]any{}
	}
	return p
}

// Bounds that the readers of documents have, too. API servers want some for
// lists with rules, whose cost they work out in advance.
const (
	maxTasks = 2000
	maxNeeds = 2000
	nameRule = `^[A-Za-z][A-Za-z0-9_]{0,62}$` // as expressions can say it
)

// refineSpec adds to the schema of a workflow's spec what the schema for
// editors does not say. It leaves to the compiler what would make a rule long.
func refineSpec(spec map[string]any) {
	tasks := at(spec, "tasks")
	tasks["minItems"], tasks["maxItems"] = 1, maxTasks
	// So that two of one name are refused, and server-side apply merges by name.
	tasks["x-kubernetes-list-type"], tasks["x-kubernetes-list-map-keys"] = "map", []any{"name"}
	task, _ := tasks["items"].(map[string]any)
	refineTask(task)
	refineTask(at(spec, "onExit"))
	for _, name := range []string{"parallelism", "retryBudget"} {
		at(spec, name)["minimum"] = 1
	}
	at(spec, "parallelism")["maximum"] = 1_000_000
	at(spec, "retryBudget")["maximum"] = 1000
	at(spec, "priority")["minimum"], at(spec, "priority")["maximum"] = -1000, 1000
}

func refineTask(task map[string]any) {
	name := at(task, "name")
	name["pattern"], name["maxLength"] = nameRule, 63
	at(task, "parallelism")["minimum"], at(task, "parallelism")["maximum"] = 1, 1_000_000
	needs := at(task, "needs")
	needs["maxItems"], needs["x-kubernetes-list-type"] = maxNeeds, "set"
	if items, ok := needs["items"].(map[string]any); ok {
		items["maxLength"] = 63
	}
	at(task, "script")["maxLength"] = 1 << 20
	task["anyOf"] = []any{required("image"), required("uses"), required("resource"), required("suspend")}
	task["x-kubernetes-validations"] = []any{
		// Rules do not see suspend, which has no one type.
		rule("(has(self.image) ? 1 : 0) + (has(self.uses) ? 1 : 0) + (has(self.resource) ? 1 : 0) <= 1", "a task has one of image, uses, resource and suspend"),
		rule("!has(self.runs) || (has(self.needs) && size(self.needs) > 0)", "runs says when the task begins after those in needs: name some"),
		rule("!has(self.script) || has(self.image)", "a script needs an image in which it runs"),
	}
}

func required(name string) map[string]any { return map[string]any{"required": []any{name}} }

// rule is a validation in CEL.
func rule(expr, message string) map[string]any {
	return map[string]any{"rule": expr, "message": message}
}

// object is the schema of a whole object.
func object(description string, spec, status map[string]any) map[string]any {
	return map[string]any{
		"type": "object", "description": description, "required": []any{"spec"},
		"properties": map[string]any{
			"apiVersion": map[string]any{"type": "string"}, "kind": map[string]any{"type": "string"}, "metadata": map[string]any{"type": "object"},
			"spec": spec, "status": status,
		},
		"x-kubernetes-validations": []any{rule("size(self.metadata.name) <= 63", "the name is part of those of runs and pods: it has at most 63 characters")},
	}
}
