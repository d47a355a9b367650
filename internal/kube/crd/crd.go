// Package crd makes the definitions of the custom resources that Cairn hands
// to Kubernetes API servers.
//
// It owns the kinds of cairn.dev/v1alpha1 as a cluster sees them (their
// schema, which follows from [workflow.Schema], their status, their columns and
// short names), and small definitions of Argo's kinds for clusters without
// Argo. It promises to be pure, that what it makes is a structural schema that
// API servers take, and that no definition is larger than [MaxBytes]. It talks
// to no cluster; deploy/crd holds what it writes.
package crd

import (
	"bytes"
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"
)

// MaxBytes bounds a definition: kubectl apply keeps the whole object in an
// annotation, and API servers take 256 KiB of those.
const MaxBytes = 256 << 10

// Names in the API.
const (
	Group     = "cairn.dev"
	ArgoGroup = "argoproj.io"
	Version   = "v1alpha1"
	// Minimal is the label of definitions of Argo's kinds that are ours: then
	// Argo is not there, and all objects are Cairn's to run.
	Minimal = "cairn.dev/minimal"
)

// A Definition is a CustomResourceDefinition, as JSON has it.
type Definition struct {
	Name string // workflows.cairn.dev
	File string // in deploy/crd
	Spec map[string]any
}

// names of a kind.
type names struct {
	group, kind, singular, plural string
	short                         []string
	cluster                       bool // it has no namespace
}

// definition puts a custom resource together. schema is that of the whole
// object.
func definition(n names, schema map[string]any, status bool, columns ...map[string]any) Definition {
	scope := "Namespaced"
	if n.cluster {
		scope = "Cluster"
	}
	called := map[string]any{"kind": n.kind, "listKind": n.kind + "List", "singular": n.singular, "plural": n.plural}
	labels := map[string]any{"app.kubernetes.io/part-of": "cairn"}
	if n.group == Group {
		called["categories"] = []any{"cairn"}
	} else {
		labels[Minimal] = "true"
	}
	if len(n.short) > 0 {
		var short []any
		for _, s := range n.short {
			short = append(short, s)
		}
		called["shortNames"] = short
	}
	version := map[string]any{"name": Version, "served": true, "storage": true, "schema": map[string]any{"openAPIV3Schema": schema}}
	if status {
		version["subresources"] = map[string]any{"status": map[string]any{}}
	}
	at := slices.IndexFunc(columns, func(c map[string]any) bool { return c["name"] == "Message" })
	if at < 0 { // else the age is looked for behind what is long
		at = len(columns)
	}
	var list []any
	for _, c := range slices.Insert(slices.Clone(columns), at, column("Age", "date", ".metadata.creationTimestamp", 0)) {
		list = append(list, c)
	}
	version["additionalPrinterColumns"] = list
	name := n.plural + "." + n.group
	return Definition{Name: name, File: name + ".yaml", Spec: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": name, "labels": labels},
		"spec":     map[string]any{"group": n.group, "names": called, "scope": scope, "versions": []any{version}},
	}}
}

// column is one of kubectl get; those of priority 1 are shown by -o wide.
func column(name, kind, path string, priority int) map[string]any {
	c := map[string]any{"name": name, "type": kind, "jsonPath": path}
	if priority > 0 {
		c["priority"] = priority
	}
	return c
}

// YAML writes definitions as documents.
func YAML(list ...Definition) ([]byte, error) {
	var out bytes.Buffer
	for i, d := range list {
		if i > 0 {
			out.WriteString("---\n")
		}
		from := out.Len()
		e := yaml.NewEncoder(&out)
		e.SetIndent(2)
		if err := e.Encode(d.Spec); err != nil {
			return nil, fmt.Errorf("write the definition of %s: %w", d.Name, err)
		}
		if n := out.Len() - from; n > MaxBytes {
			return nil, fmt.Errorf("the definition of %s has %d bytes, more than the %d that kubectl apply can take", d.Name, n, MaxBytes)
		}
	}
	return out.Bytes(), nil
}
