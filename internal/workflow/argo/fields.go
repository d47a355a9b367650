package argo

import (
	"encoding/json"
	"maps"
	"slices"

	"cairn.dev/cairn/internal/workflow/document"
)

// What becomes of a field: "" is carried out; one that begins with "~" is
// accepted without effect, for the reason behind it; one that begins with "-" is
// refused, for the reason behind it. Where tasks run in pods, what begins with
// "#" or "@" is handed on to Kubernetes; elsewhere "#" is refused and "@" is
// accepted without effect.
type fate string

const (
	pod       fate = "#is about pods: it needs Kubernetes"
	noPods    fate = "~no pods are left behind"
	inStore   fate = "~the server's own store keeps artifacts, by their content, as long as the run"
	labels    fate = "@there is no pod that bears it"
	noMetrics fate = "~the server's own metrics count all runs and tasks"
	accounts  fate = "@outside of a cluster a task speaks for no account"
	shown     fate = "~is shown to people, and means nothing"
	sources   fate = "-is a store that the server does not speak to: use s3, http, git or raw"
)

// tables says of each object which fields it has. What is not here, Argo does
// not have either.
var tables = map[string]map[string]fate{
	"object":   {"apiVersion": "", "kind": "", "metadata": "", "spec": "", "status": "-is written by Argo: remove it"},
	"metadata": {"name": "", "generateName": "", "namespace": "", "labels": "", "annotations": shown, "finalizers": shown, "creationTimestamp": shown, "uid": shown, "resourceVersion": shown, "ownerReferences": "-means nothing outside of a cluster", "generation": shown, "managedFields": shown},
	"spec": {
		"entrypoint": "", "arguments": "", "templates": "", "onExit": "", "hooks": "", "parallelism": "", "activeDeadlineSeconds": "", "priority": "",
		"suspend": "", "ttlStrategy": "", "volumes": "", "synchronization": "", "workflowTemplateRef": "", "templateDefaults": "", "workflowMetadata": "",
		"podGC": noPods, "artifactGC": inStore, "artifactRepositoryRef": inStore, "archiveLogs": "~the logs of all tasks are kept", "metrics": noMetrics,
		"serviceAccountName": accounts, "automountServiceAccountToken": accounts, "executor": "~nothing of Argo's runs beside a task", "imagePullSecrets": "@images are pulled with the server's accounts at registries",
		"podMetadata": labels, "podDisruptionBudget": noPods, "podPriorityClassName": pod, "podPriority": pod, "schedulerName": pod,
		"volumeClaimTemplates": pod, "volumeClaimGC": pod, "nodeSelector": pod, "affinity": pod, "tolerations": pod, "hostAliases": pod, "hostNetwork": pod, "dnsPolicy": pod, "dnsConfig": pod,
		"securityContext": pod, "podSpecPatch": pod, "podResources": pod, "resourceClaims": pod,
		"retryStrategy": "-applies to all templates at once: write it in templateDefaults", "shutdown": "-stops a run: use cairn runs cancel", "artifactStorage": inStore,
	},
	"cron": {
		"schedule": "", "schedules": "", "timezone": "", "concurrencyPolicy": "", "startingDeadlineSeconds": "", "successfulJobsHistoryLimit": "", "failedJobsHistoryLimit": "",
		"suspend": "", "stopStrategy": "", "when": "", "workflowSpec": "", "workflowMetadata": "",
	},
	"stopStrategy":     {"expression": "", "condition": ""},
	"workflowMetadata": {"labels": "", "annotations": shown, "labelsFrom": "-works labels out, which is not supported: write them down"},
	"ttl":              {"secondsAfterCompletion": "", "secondsAfterSuccess": "", "secondsAfterFailure": ""},
	"templateRef":      {"name": "", "template": "", "clusterScope": "", "runtimeResolution": "~templates are looked up when the run is started"},
	"workflowRef":      {"name": "", "clusterScope": ""},
	"arguments":        {"parameters": "", "artifacts": ""},
	"template": {
		"name": "", "inputs": "", "outputs": "", "container": "", "script": "", "steps": "", "dag": "", "suspend": "", "http": "",
		"retryStrategy": "", "timeout": "", "activeDeadlineSeconds": "", "parallelism": "", "failFast": "", "synchronization": "", "memoize": "", "volumes": "",
		"metrics": noMetrics, "metadata": labels, "annotations": shown, "archiveLocation": inStore, "serviceAccountName": accounts, "automountServiceAccountToken": accounts, "executor": "~nothing of Argo's runs beside a task",
		"containerSet": "#runs several containers in one pod: it needs Kubernetes; or make them steps", "sidecars": "#runs containers beside each other in one pod: it needs Kubernetes",
		"initContainers": "#runs containers one after the other in one pod: it needs Kubernetes", "daemon": "",
		"resource": "", "data": "-lists a bucket in a pod: use withParam over an output", "plugin": "-runs a plugin of Argo's executor, which is not here",
		"nodeSelector": pod, "affinity": pod, "tolerations": pod, "hostAliases": pod, "securityContext": pod, "podSpecPatch": pod, "podResources": pod, "resourceClaims": pod,
		"schedulerName": pod, "priorityClassName": pod, "priority": pod, "pendingTimeout": pod, "inline": "-stands in a call, not in a template",
	},
	"inputs":  {"parameters": "", "artifacts": ""},
	"outputs": {"parameters": "", "artifacts": "", "result": "~is written by Argo", "exitCode": "~is written by Argo"},
	"parameter": {
		"name": "", "value": "", "default": "", "enum": "", "valueFrom": "", "globalName": "", "description": shown,
	},
	"valueFrom": {
		"path": "", "default": "", "parameter": "", "expression": "", "supplied": "", "configMapKeyRef": "",
		"event": "-comes from an event of a cluster", "jsonPath": "", "jqFilter": "",
	},
	"keyRef": {"name": "", "key": "", "optional": ""},
	"artifact": {
		"name": "", "path": "", "mode": "", "optional": "", "from": "", "fromExpression": "", "raw": "", "http": "", "git": "", "s3": "", "archive": "", "globalName": "",
		"artifactGC": inStore, "archiveLogs": "~the logs of all tasks are kept", "deleted": "~is written by Argo", "recurseMode": "~modes are as the program left them",
		"subPath": "",
		"gcs":     sources, "azure": sources, "oss": sources, "hdfs": sources, "artifactory": sources, "plugin": sources,
	},
	"archive":    {"none": "", "tar": "", "zip": ""},
	"tar":        {"compressionLevel": "~the store compresses as it does"},
	"raw":        {"data": ""},
	"httpSource": {"url": "", "headers": "", "auth": "-is not supported: give the server a secret for that host"},
	"header":     {"name": "", "value": "", "valueFrom": "-takes a secret of a cluster: give the server a secret for that host"},
	"git": {
		"repo": "", "revision": "", "branch": "", "usernameSecret": "", "passwordSecret": "", "sshPrivateKeySecret": "-is for ssh, which is not spoken: use https",
		"depth": "~only the revision itself is fetched", "singleBranch": "~only the revision itself is fetched", "fetch": "-is not supported: only the revision itself is fetched, name it in revision",
		"disableSubmodules": "", "insecureIgnoreHostKey": "~ssh is not spoken", "insecureSkipTLS": "-is not supported: every certificate is checked",
	},
	"s3": {
		"bucket": "", "key": "", "endpoint": "", "region": "", "accessKeySecret": "", "secretKeySecret": "", "sessionTokenSecret": "", "insecure": "",
		"roleARN": "-is not supported: give the server an account", "useSDKCreds": "~the server's own account is used", "createBucketIfNotPresent": "-is not supported: make the bucket first", "encryptionOptions": "-is not supported", "caSecret": "-is not supported: certificates are checked against the system's roots",
	},
	"secretRef": {"name": "", "key": "", "optional": ""},
	"container": {
		"image": "", "command": "", "args": "", "env": "", "workingDir": "", "resources": "", "volumeMounts": "", "securityContext": "",
		"name": shown, "imagePullPolicy": "@a tag is looked up when a task is started, and pulled once", "ports": "@on the host's network each port is open", "tty": "-wants a terminal, which is not there", "stdin": "-wants standard input, which is not there",
		"envFrom": "#takes secrets or maps of a cluster: it needs Kubernetes; or write env", "readinessProbe": "#is asked of a pod: it needs Kubernetes", "livenessProbe": "#is asked of a pod: it needs Kubernetes", "startupProbe": "#is asked of a pod: it needs Kubernetes",
		"lifecycle": "#is a hook of a pod: it needs Kubernetes", "terminationMessagePath": noPods, "terminationMessagePolicy": noPods, "volumeDevices": pod, "resizePolicy": pod, "restartPolicy": pod, "source": "-belongs to a script",
	},
	"containerSet": {"containers": "", "volumeMounts": "", "retryStrategy": ""},
	"setRetry":     {"retries": "", "duration": ""},
	"probe": {
		"exec": "", "httpGet": "", "tcpSocket": "", "grpc": "-is not supported: say httpGet or tcpSocket", "initialDelaySeconds": "", "periodSeconds": "", "timeoutSeconds": "", "successThreshold": "",
		"failureThreshold": "~a daemon that is not ready is waited for", "terminationGracePeriodSeconds": "~is of a livenessProbe",
	},
	"exec":        {"command": ""},
	"tcpSocket":   {"host": "", "port": ""},
	"httpGet":     {"host": "", "port": "", "path": "", "scheme": "", "httpHeaders": ""},
	"env":         {"name": "", "value": "", "valueFrom": ""},
	"envFrom":     {"configMapKeyRef": "", "secretKeyRef": "#takes a secret of a cluster: it needs Kubernetes", "fieldRef": "#reads a pod: it needs Kubernetes", "resourceFieldRef": "#reads a pod: it needs Kubernetes"},
	"resources":   {"requests": "", "limits": "", "claims": pod},
	"quantities":  {"cpu": "", "memory": "", "ephemeral-storage": "~disk is not counted"},
	"security":    {"runAsUser": "", "runAsGroup": "", "runAsNonRoot": "~a task is never root of the host", "allowPrivilegeEscalation": "~no task gains privileges", "privileged": pod, "capabilities": pod, "readOnlyRootFilesystem": pod, "seccompProfile": pod, "seLinuxOptions": pod, "appArmorProfile": pod, "procMount": pod, "windowsOptions": pod},
	"volumeMount": {"name": "", "mountPath": "", "readOnly": "", "subPath": "#names a part of a volume: it needs Kubernetes; or mount it whole", "mountPropagation": pod, "subPathExpr": pod, "recursiveReadOnly": pod},
	"claim":       {"claimName": "", "readOnly": ""},
	"volume":      {"name": "", "emptyDir": "", "persistentVolumeClaim": "", "secret": "#holds a secret of a cluster: it needs Kubernetes", "configMap": pod, "projected": pod, "hostPath": pod, "nfs": pod, "csi": pod, "ephemeral": pod, "downwardAPI": pod, "image": pod},
	"step": {
		"name": "", "template": "", "templateRef": "", "inline": "", "arguments": "", "when": "", "withItems": "", "withParam": "", "withSequence": "", "continueOn": "", "onExit": "", "hooks": "",
	},
	"task": {
		"name": "", "template": "", "templateRef": "", "inline": "", "arguments": "", "when": "", "withItems": "", "withParam": "", "withSequence": "", "continueOn": "", "onExit": "", "hooks": "",
		"depends": "", "dependencies": "",
	},
	"dag":        {"tasks": "", "target": "", "failFast": ""},
	"continueOn": {"failed": "", "error": ""},
	"sequence":   {"start": "", "end": "", "count": "", "format": ""},
	"hook":       {"template": "", "templateRef": "", "arguments": "", "expression": ""},
	"retry":      {"limit": "", "retryPolicy": "", "backoff": "", "expression": "", "affinity": "~the next attempt goes to whichever worker is free"},
	"backoff":    {"duration": "", "factor": "", "maxDuration": "", "cap": ""},
	"suspend":    {"duration": ""},
	"http": {
		"url": "", "method": "", "headers": "", "body": "", "timeoutSeconds": "", "successCondition": "", "insecureSkipVerify": "-is not supported: every certificate is checked", "bodyFrom": "-is not supported: write body",
	},
	"resource": {
		"action": "", "manifest": "", "manifestFrom": "", "mergeStrategy": "", "successCondition": "", "failureCondition": "", "setOwnerReference": "", "flags": "",
	},
	"manifestFrom": {"artifact": ""},
	"sync":         {"mutex": "", "mutexes": "", "semaphore": "", "semaphores": ""},
	"mutex":        {"name": "", "namespace": "", "database": "~locks are kept by the one work server"},
	"semaphore":    {"configMapKeyRef": "", "namespace": "", "database": "-takes its size from a table of Argo's: write it in a ConfigMap"},
	"memoize":      {"key": "", "maxAge": "", "cache": ""},
	"cache":        {"configMap": ""},
}

// check refuses what an object of a kind does not have, and what of it is not
// supported.
func (c *compiler) check(n *document.Node, table string) {
	known := tables[table]
	for _, e := range n.Entries() {
		f, ok := known[e.Key]
		switch {
		case !ok && table == "quantities" && c.opts.Cluster: // devices have names of their own
		case !ok:
			e.Node.FailKey("unknown field %q%s", e.Key, document.Meant(e.Key, slices.Sorted(maps.Keys(known))))
		case e.Node.IsNull() || f == "" || f[0] == '~' || f[0] == '@':
		case f[0] == '#' && c.opts.Cluster:
		default:
			e.Node.FailKey("%s %s", e.Key, f[1:])
		}
	}
}

// configMap writes one, as JSON, which is YAML.
func configMap(name string, data map[string]string) []byte {
	b, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": name}, "data": data})
	if err != nil { // texts only
		return nil
	}
	return b
}
