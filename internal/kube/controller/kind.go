package controller

import (
	"k8s.io/apimachinery/pkg/runtime/schema"

	"cairn.dev/cairn/internal/kube/crd"
)

// A role is what the objects of a kind are for.
type role int

const (
	roleRun role = iota
	roleCron
	roleTemplate
)

// A kind is one custom resource.
type kind struct {
	group, name, resource string
	role                  role
	cluster               bool // its objects have no namespace
}

func (k *kind) argo() bool { return k.group == crd.ArgoGroup }

func (k *kind) gvr() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: k.group, Version: crd.Version, Resource: k.resource}
}

// definition is the name of its CustomResourceDefinition.
func (k *kind) definition() string { return k.resource + "." + k.group }

// kinds are all that is watched: templates first, so that they are there when
// workflows ask for them.
func kinds() []*kind {
	return []*kind{
		{group: crd.Group, name: "WorkflowTemplate", resource: "workflowtemplates", role: roleTemplate},
		{group: crd.ArgoGroup, name: "ClusterWorkflowTemplate", resource: "clusterworkflowtemplates", role: roleTemplate, cluster: true},
		{group: crd.ArgoGroup, name: "WorkflowTemplate", resource: "workflowtemplates", role: roleTemplate},
		{group: crd.Group, name: "Workflow", resource: "workflows", role: roleRun},
		{group: crd.ArgoGroup, name: "Workflow", resource: "workflows", role: roleRun},
		{group: crd.Group, name: "CronWorkflow", resource: "cronworkflows", role: roleCron},
		{group: crd.ArgoGroup, name: "CronWorkflow", resource: "cronworkflows", role: roleCron},
	}
}

// A ref names an object.
type ref struct {
	kind            *kind
	namespace, name string
}

func (r ref) String() string {
	if r.namespace == "" {
		return r.kind.definition() + "/" + r.name
	}
	return r.kind.definition() + "/" + r.namespace + "/" + r.name
}
