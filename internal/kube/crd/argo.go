package crd

// Argo are Argo's kinds, for clusters where Argo is not. They say nothing about
// what is in them: Argo's own definitions are too large for kubectl apply, and
// what is wrong in an object is told by its status. They have no short names
// that are those of our kinds, and, as Argo's, no status of its own kind, so
// that whatever writes to one writes to the other.
func Argo() []Definition {
	anything := map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}
	schema := func(status bool) map[string]any {
		props := map[string]any{"apiVersion": map[string]any{"type": "string"}, "kind": map[string]any{"type": "string"}, "metadata": map[string]any{"type": "object"}, "spec": anything}
		if status {
			props["status"] = anything
		}
		return map[string]any{"type": "object", "required": []any{"metadata", "spec"}, "properties": props}
	}
	return []Definition{
		definition(names{group: ArgoGroup, kind: "Workflow", singular: "workflow", plural: "workflows"}, schema(true), false,
			column("Status", "string", ".status.phase", 0), column("Progress", "string", ".status.progress", 0), column("Message", "string", ".status.message", 0)),
		definition(names{group: ArgoGroup, kind: "CronWorkflow", singular: "cronworkflow", plural: "cronworkflows", short: []string{"cwf"}}, schema(true), false,
			column("Suspended", "boolean", ".spec.suspend", 0), column("Last", "date", ".status.lastScheduledTime", 0)),
		definition(names{group: ArgoGroup, kind: "WorkflowTemplate", singular: "workflowtemplate", plural: "workflowtemplates"}, schema(false), false),
		definition(names{group: ArgoGroup, kind: "ClusterWorkflowTemplate", singular: "clusterworkflowtemplate", plural: "clusterworkflowtemplates", short: []string{"clusterwftmpl", "cwft"}, cluster: true}, schema(false), false),
	}
}
