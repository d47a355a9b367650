package crd

// text, whole and moment are types of a status.
func text(description string) map[string]any { return field("string", "", description) }

func whole(description string) map[string]any { return field("integer", "int64", description) }

func moment(description string) map[string]any { return field("string", "date-time", description) }

// field leaves out a format that is empty: API servers drop it, and kubectl apply
// would see a change each time.
func field(kind, format, description string) map[string]any {
	m := map[string]any{"type": kind, "description": description}
	if format != "" {
		m["format"] = format
	}
	return m
}

func fields(description string, props map[string]any) map[string]any {
	return map[string]any{"type": "object", "description": description, "properties": props}
}

// conditions are those of Kubernetes' own kinds, so that kubectl wait reads
// them.
func conditions() map[string]any {
	one := fields("", map[string]any{
		"type":   text("Accepted, Running, Succeeded or Failed; Changed when the spec is not the one that runs."),
		"status": map[string]any{"type": "string", "description": "Whether it holds.", "enum": []any{"True", "False", "Unknown"}},
		"reason": text("One word."), "message": text("For people."),
		"lastTransitionTime": moment("When the status became what it is."),
		"observedGeneration": whole("The generation of the spec it speaks of."),
	})
	delete(one, "description")
	one["required"] = []any{"type", "status", "reason", "message", "lastTransitionTime"}
	return map[string]any{"type": "array", "description": "What holds, one of each type, as kubectl wait reads it.", "items": one, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": []any{"type"}}
}

func runStatus() map[string]any {
	return fields("What became of it. It is small however many tasks there are; cairn runs get tells all.", map[string]any{
		"phase":              text("Refused, Running, Suspended, Succeeded, Failed, Error or Canceled."),
		"message":            text("Why, in few words."),
		"progress":           text("Tasks that have ended / tasks that are known."),
		"run":                text("The ID of the run on the server: cairn runs get ID."),
		"link":               text("Where the server shows the run."),
		"startedAt":          moment("When the run was taken."),
		"finishedAt":         moment("When it ended."),
		"observedGeneration": whole("The generation of the spec that was looked at last."),
		"observedSpec":       text("Tells the spec that runs from others."),
		"counts": fields("Tasks by what became of them.", map[string]any{
			"total": whole("That are known so far."), "active": whole("Held by workers."), "succeeded": whole("That went well."), "failed": whole("That did not."), "skipped": whole("That were not to run: their condition was false."), "canceled": whole("Ended before their time, or never begun because of that."), "retries": whole("Attempts beyond the first.")}),
		"failed": map[string]any{"type": "array", "description": "Some of the tasks that failed.", "maxItems": 20, "x-kubernetes-list-type": "atomic", "items": map[string]any{"type": "object", "properties": map[string]any{
			"task": text("Its ID: cairn logs RUN TASK."), "name": text("The task of the document."), "message": text("Why, in few words."), "exitCode": whole("The program's.")}}},
		"conditions": conditions(),
	})
}

func cronStatus() map[string]any {
	return fields("When it starts runs.", map[string]any{
		"schedule":           text("Its times, in short."),
		"message":            text("Why it started nothing the last time it was due, or was refused."),
		"suspended":          field("boolean", "", "Whether it starts nothing for now."),
		"lastScheduleTime":   moment("The newest of its times that was dealt with."),
		"nextScheduleTime":   moment("When it comes next."),
		"lastRun":            text("The ID of its newest run: cairn runs get ID."),
		"lastPhase":          text("What became of that."),
		"observedGeneration": whole("The generation of the spec that was looked at last."),
		"conditions":         conditions(),
	})
}

func templateStatus() map[string]any {
	return fields("Whether it can be used.", map[string]any{"observedGeneration": whole("The generation of the spec that was looked at last."), "conditions": conditions()})
}
