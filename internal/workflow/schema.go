package workflow

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
)

// Schema is the JSON Schema (2020-12) of our documents, for editors. It knows
// the fields, their types and words; what [Compile] checks beyond them it does
// not.
func Schema() []byte {
	text, whole, flag := typed("string"), typed("integer"), typed("boolean")
	span := map[string]any{"type": []string{"string", "number"}, "description": "Such as 90s, 5m, 12h or 30d."}
	texts := map[string]any{"type": "array", "items": map[string]any{"type": []string{"string", "number", "boolean"}}}
	texture := map[string]any{"type": "object", "additionalProperties": map[string]any{"type": []string{"string", "number", "boolean"}}}
	anything := map[string]any{}
	kind := map[string]any{"enum": types_}
	isolation := map[string]any{"enum": isolations}
	size := map[string]any{"type": []string{"string", "number"}, "description": "Such as 500m, 2, 64Mi or 1G."}
	of := func(what string, known []string, fields map[string]any) map[string]any {
		props := map[string]any{}
		for _, k := range known {
			f, _ := fields[k].(map[string]any)
			f = maps.Clone(f)
			if f == nil {
				f = map[string]any{}
			}
			f["description"] = described(words[what][k], f["description"])
			props[k] = f
		}
		return map[string]any{"type": "object", "properties": props, "additionalProperties": false}
	}
	either := func(list ...any) map[string]any { return map[string]any{"anyOf": list} }
	named := func(v any) map[string]any {
		return map[string]any{"type": "object", "additionalProperties": v, "propertyNames": map[string]any{"pattern": nameRE.String()}}
	}
	list := func(v any) map[string]any { return map[string]any{"type": "array", "items": v} }
	locks := list(either(text, of("lock", lockFields, map[string]any{"name": text, "size": whole})))
	object, objects := typed("object"), list(typed("object"))
	pod := of("pod", podFields, map[string]any{
		"metadata": of("podMetadata", podMetaFields, map[string]any{"labels": texture, "annotations": texture}),
		"container": of("container", containerFields, map[string]any{"env": objects, "envFrom": objects, "resources": object, "securityContext": object, "volumeMounts": objects, "volumeDevices": objects, "ports": objects,
			"lifecycle": object, "livenessProbe": object, "readinessProbe": object, "startupProbe": object, "imagePullPolicy": text}),
		"sidecars": objects, "initContainers": objects, "volumes": objects, "volumeClaimTemplates": objects, "volumeClaimGC": object, "podSpecPatch": text,
		"serviceAccountName": text, "automountServiceAccountToken": flag, "imagePullSecrets": objects, "nodeSelector": texture, "affinity": object, "tolerations": objects,
		"topologySpreadConstraints": objects, "priorityClassName": text, "securityContext": object, "runtimeClassName": text, "schedulerName": text, "hostNetwork": flag,
		"hostAliases": objects, "dnsPolicy": text, "dnsConfig": object, "resourceClaims": objects, "resources": object,
	})
	task := of("task", taskFields, map[string]any{
		"name": text, "image": text, "command": texts, "args": texts, "script": text, "env": texture, "workdir": text, "files": texture,
		"outputs": named(either(kind, of("output", outputFields, map[string]any{"type": kind, "path": text, "value": text, "optional": flag, "description": text}))),
		"needs":   list(text), "runs": map[string]any{"enum": []string{"success", "failure", "always"}}, "when": text,
		"forEach":     either(text, list(anything), of("each", eachFields, map[string]any{"files": text, "s3": text, "match": text, "format": text})),
		"parallelism": whole,
		"retries": either(whole, of("retry", retryFields, map[string]any{"limit": whole, "on": map[string]any{"enum": []string{"failure", "error", "always", "transient"}},
			"when": text, "delay": span, "factor": typed("number"), "maxDelay": span, "for": span})),
		"timeout": span, "grace": span, "resources": of("resources", resourceFields, map[string]any{"cpu": size, "memory": size}), "user": map[string]any{"type": []string{"string", "integer"}}, "isolation": isolation,
		"volumes": list(of("volume", volumeFields, map[string]any{"name": text, "path": text, "claim": text, "readOnly": flag})), "locks": locks,
		"cache": of("cache", cacheFields, map[string]any{"key": text, "name": text, "maxAge": span}), "allowFailure": flag, "daemon": flag,
		"ready": of("ready", readyFields, map[string]any{"port": whole, "path": text}), "pod": pod, "uses": text, "with": named(anything),
		"resource": of("request", requestFields, map[string]any{"action": map[string]any{"enum": actions}, "manifest": either(text, typed("object")), "patch": map[string]any{"enum": patches},
			"success": text, "failure": text, "owner": flag, "account": text}),
		"suspend": either(flag, of("suspend", suspendFields, map[string]any{"for": span, "outputs": list(text)})), "description": text, "logLimit": size,
	})
	task["required"] = []string{"name"}
	spec := of("workflow", workflowFields, map[string]any{
		"inputs":  named(either(kind, of("input", inputFields, map[string]any{"type": kind, "optional": flag, "enum": list(text), "description": text}))),
		"outputs": named(either(text, of("value", valueFields, map[string]any{"type": kind, "value": text, "description": text}))),
		"tasks":   list(task), "onExit": task, "parallelism": whole, "failFast": flag, "timeout": span, "priority": whole, "locks": locks, "keep": span,
		"retryBudget": whole, "suspended": flag, "isolation": isolation, "pod": pod, "description": text,
	})
	spec["required"] = []string{"tasks"}
	cron := of("cron", cronFields, map[string]any{
		"schedules": either(text, list(text)), "timezone": text, "overlap": map[string]any{"enum": []string{"allow", "forbid", "replace"}},
		"suspended": flag, "late": span, "keepSucceeded": whole, "keepFailed": whole, "workflow": spec,
	})
	metadata := of("metadata", metadataFields, map[string]any{"name": text, "namespace": text, "labels": texture, "annotations": texture})
	metadata["required"] = []string{"name"}
	document := func(spec any, kinds ...string) map[string]any {
		o := of("object", objectFields, map[string]any{"apiVersion": map[string]any{"const": Version}, "kind": map[string]any{"enum": kinds}, "metadata": metadata, "spec": spec})
		o["required"] = objectFields
		return o
	}
	s := either(document(spec, "Workflow", "WorkflowTemplate"), document(cron, "CronWorkflow"))
	s["$schema"], s["title"] = "https://json-schema.org/draft/2020-12/schema", "Cairn workflow"
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil { // maps, texts and numbers only
		return []byte(fmt.Sprintf("{%q: %q}", "error", err))
	}
	return append(b, '\n')
}

func typed(t string) map[string]any { return map[string]any{"type": t} }

// described is what a field is for and, where it says so, how its values are
// written.
func described(what string, how any) string {
	if how, ok := how.(string); ok && !strings.Contains(what, "uch as ") {
		return what + " " + how
	}
	return what
}
