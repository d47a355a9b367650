package kube

import (
	"bufio"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// manifest reads the object of a kind from a file under deploy.
func manifest(t *testing.T, file, kind string, out any) {
	t.Helper()
	f, err := os.Open(filepath.Join("../../../deploy/agent", file))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for r := yaml.NewYAMLReader(bufio.NewReader(f)); ; {
		doc, err := r.Read()
		if errors.Is(err, io.EOF) {
			t.Fatalf("%s holds no %s", file, kind)
		}
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(doc), "\nkind: "+kind+"\n") {
			if err := yaml.UnmarshalStrict(doc, out); err != nil {
				t.Fatalf("%s: %s: %v", file, kind, err)
			}
			return
		}
	}
}

// The role that is shipped allows what is watched, and not a verb more.
func TestRole(t *testing.T) {
	var role rbacv1.ClusterRole
	manifest(t, "cluster.yaml", "ClusterRole", &role)
	got := map[string][]string{}
	for _, r := range role.Rules {
		if !slices.Equal(r.Verbs, []string{"list", "watch"}) || len(r.APIGroups) != 1 || len(r.ResourceNames) > 0 || len(r.NonResourceURLs) > 0 {
			t.Errorf("rule %+v", r)
		}
		got[r.APIGroups[0]] = append(got[r.APIGroups[0]], r.Resources...)
	}
	want := Kinds()
	if len(got) != len(want) {
		t.Errorf("groups %v, want %v", got, want)
	}
	for group, resources := range want {
		slices.Sort(resources)
		slices.Sort(got[group])
		if !slices.Equal(got[group], resources) {
			t.Errorf("group %q: %v may be watched, %v are", group, got[group], resources)
		}
	}
}

// Nothing that is shipped has more power over a node than it needs.
func TestPods(t *testing.T) {
	var cluster appsv1.Deployment
	manifest(t, "cluster.yaml", "Deployment", &cluster)
	var node appsv1.DaemonSet
	manifest(t, "node.yaml", "DaemonSet", &node)
	for name, spec := range map[string]corev1.PodSpec{"cluster": cluster.Spec.Template.Spec, "node": node.Spec.Template.Spec} {
		c := spec.Containers[0]
		s := c.SecurityContext
		if s == nil || *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(s.Capabilities.Add) > 0 || s.Privileged != nil {
			t.Errorf("%s: security context %+v", name, s)
		}
		if spec.HostNetwork || spec.HostPID || spec.HostIPC || spec.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
			t.Errorf("%s: shares more of its node than it needs", name)
		}
		token := false
		for _, v := range spec.Volumes {
			if v.HostPath != nil && name == "cluster" {
				t.Errorf("%s: mounts %s of its node", name, v.HostPath.Path)
			}
			if v.Projected != nil && v.Projected.Sources[0].ServiceAccountToken.Audience == "cairn" {
				token = true
			}
		}
		if !token || !slices.ContainsFunc(c.Args, func(a string) bool { return strings.HasPrefix(a, "--token-file=/var/run/secrets/cairn/") }) {
			t.Errorf("%s: no token for Cairn", name)
		}
	}
	if s := cluster.Spec.Template.Spec.SecurityContext; !*s.RunAsNonRoot || *s.RunAsUser == 0 {
		t.Errorf("the cluster's agent runs as root")
	}
	if s := node.Spec.Template.Spec; *s.AutomountServiceAccountToken {
		t.Errorf("the node's agent holds a token of the API server")
	}
}

func TestKubeletRole(t *testing.T) {
	var role rbacv1.ClusterRole
	manifest(t, "kubelet.yaml", "ClusterRole", &role)
	if len(role.Rules) != 1 || !slices.Equal(role.Rules[0].Verbs, []string{"request-serviceaccounts-token-audience"}) || !slices.Equal(role.Rules[0].Resources, []string{"cairn"}) {
		t.Errorf("%+v", role.Rules)
	}
}
