package kube_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"cairn.dev/cairn/test/cluster"
	"cairn.dev/cairn/test/parts"
)

const terraform = `
terraform {
  required_providers {
    kubectl = {
      source  = "gavinbunney/kubectl"
      version = "1.19.0"
    }
  }
}

resource "kubectl_manifest" "once" {
  yaml_body = <<-YAML
    apiVersion: cairn.dev/v1alpha1
    kind: Workflow
    metadata:
      name: once
      namespace: default
    spec:
      tasks:
      - {name: a, image: alpine, command: [echo, hello]}
  YAML
}

resource "kubectl_manifest" "long" {
  depends_on = [kubectl_manifest.once]
  yaml_body  = <<-YAML
    apiVersion: cairn.dev/v1alpha1
    kind: Workflow
    metadata:
      name: long
      namespace: default
    spec:
      tasks:
      - {name: a, image: alpine, command: [echo, hang]}
  YAML
}
`

// Terraform hands workflows in, finds nothing to change afterwards though their
// status has, and destroying them cancels what runs.
func TestTofu(t *testing.T) {
	t.Parallel()
	tofu, provider := parts.Path(t, "tofu"), parts.Path(t, "terraform-provider-kubectl")
	w := newWorld(t, cluster.Options{}, nil)
	w.start()
	dir, mirror := t.TempDir(), t.TempDir()
	to := filepath.Join(mirror, "registry.opentofu.org/gavinbunney/kubectl/1.19.0", runtime.GOOS+"_"+runtime.GOARCH)
	if err := os.MkdirAll(to, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(provider, filepath.Join(to, "terraform-provider-kubectl_v1.19.0")); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"main.tf": terraform,
		"tofurc":  "disable_checkpoint = true\nprovider_installation {\n  filesystem_mirror {\n    path = \"" + mirror + "\"\n    include = [\"*/*\"]\n  }\n}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), tofu, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "TF_CLI_CONFIG_FILE="+filepath.Join(dir, "tofurc"), "TF_IN_AUTOMATION=1", "KUBE_CONFIG_PATH="+w.cluster.Kubeconfig)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			t.Fatalf("tofu %s: %v\n%s", strings.Join(args, " "), err, out.Bytes())
		}
		return out.String()
	}
	run("init", "-input=false", "-no-color")
	run("apply", "-input=false", "-no-color", "-auto-approve")
	w.cluster.Kubectl("wait", "--for=condition=Succeeded", "--timeout=30s", "wf/once")
	w.cluster.Kubectl("wait", "--for=condition=Running", "--timeout=30s", "wf/long")
	id := w.run("wf/long").ID
	if out := run("plan", "-input=false", "-no-color", "-detailed-exitcode"); !strings.Contains(out, "No changes") {
		t.Errorf("after apply: %s", out)
	}
	run("destroy", "-input=false", "-no-color", "-auto-approve")
	w.runPhase(id, "canceled")
}
