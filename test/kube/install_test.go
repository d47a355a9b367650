package kube_test

import (
	"slices"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/kube/crd"
	"cairn.dev/cairn/internal/kube/install"
	"cairn.dev/cairn/test/cluster"
)

// What cairn install prints is taken as it is; what cairn uninstall prints
// takes all of it away again, workflows that were there included.
func TestInstall(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t, cluster.Options{})
	before := everything(t, c)
	o := install.Default()
	o.Argo, o.StorageClass = true, "fast"
	made, err := install.Manifest(o)
	if err != nil {
		t.Fatal(err)
	}
	removed, err := install.Removal(o)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time nothing changes
		out, err := c.RunKubectl(t.Context(), string(made), "apply", "-f", "-")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out) {
			if !strings.Contains(line, "created") && !strings.Contains(line, "unchanged") {
				t.Errorf("apply: %s", line)
			}
		}
	}
	// The pod is one that the namespace takes, which enforces the restricted
	// profile: it waits for a node.
	c.Kubectl("wait", "--for=create", "--timeout=30s", "--namespace=cairn", "pod/cairn-0")
	for what, verb := range map[string]string{"workflows.cairn.dev": "create", "cronworkflows.cairn.dev": "delete", "workflows.argoproj.io": "create"} {
		c.Kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd/"+what)
		c.Apply("apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: ann, namespace: default}\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}\nsubjects: [{kind: User, name: ann, apiGroup: rbac.authorization.k8s.io}]\n")
		await(t, "who may edit may "+verb+" "+what, func() (string, bool) {
			out, _ := c.RunKubectl(t.Context(), "", "auth", "can-i", verb, what, "--as=ann", "--namespace=default")
			return out, strings.TrimSpace(out) == "yes"
		})
	}
	// An API server that has not begun to serve a kind is slow to take it back.
	for _, d := range append(ours(t), crd.Argo()...) {
		c.Kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd/"+d.Name)
		c.Kubectl("get", d.Name, "-A")
	}
	c.Apply(workflow("left", "hello"))
	c.Kubectl("delete", "rolebinding/ann", "--namespace=default")

	if out, err := c.RunKubectl(t.Context(), string(removed), "delete", "--ignore-not-found", "--timeout=60s", "-f", "-"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	after := everything(t, c)
	for _, o := range after {
		if !slices.Contains(before, o) {
			t.Errorf("left behind: %s", o)
		}
	}
}

// everything is what a cluster holds, but for what it makes of itself.
func everything(t *testing.T, c *cluster.Cluster) []string {
	t.Helper()
	var err error
	for range 10 { // a kind may go while it is asked for
		var kinds []string
		for kind := range strings.FieldsSeq(c.Kubectl("api-resources", "--verbs=list", "-o", "name")) {
			if strings.HasPrefix(kind, "events") || strings.HasPrefix(kind, "componentstatuses") || strings.HasPrefix(kind, "leases") || kind == "configmaps" || strings.HasPrefix(kind, "apiservices") {
				continue
			}
			kinds = append(kinds, kind)
		}
		var list string
		list, err = c.RunKubectl(t.Context(), "", "get", strings.Join(kinds, ","), "-A", "-o", `jsonpath={range .items[*]}{.kind}/{.metadata.namespace}/{.metadata.name}{"\n"}{end}`)
		if err == nil {
			return strings.Fields(list)
		}
	}
	t.Fatal(err)
	return nil
}
