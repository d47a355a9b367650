package agent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/test/cluster"
	"cairn.dev/cairn/test/images"
	"cairn.dev/cairn/test/parts"
	"cairn.dev/cairn/test/site"
)

// TestShipped applies deploy/agent as it is, but for what it says has to be
// set, and lets the pods of it do their work: with their user, their file
// system, their tokens and their limits.
func TestShipped(t *testing.T) {
	t.Parallel()
	s := newPlace(t, cluster.Options{Nodes: 1})
	img := images.Program(t, parts.Cairn(t), "cairn:test")
	if err := img.Push(t.Context(), s.push); err != nil {
		t.Fatal(err)
	}
	server, err := s.cluster.Expose(s.server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"cluster.yaml", "node.yaml"} {
		manifest := strings.NewReplacer("registry.example.org/cairn:latest", cluster.NodeRegistry+"/cairn:test", "https://registry.example.org", "http://"+server).Replace(site.Manifest(t, file))
		if strings.Contains(manifest, "example.org") {
			t.Fatalf("%s names more than was set", file)
		}
		s.cluster.Apply(manifest)
	}
	s.cluster.Kubectl("rollout", "status", "-n", "cairn-agent", "deployment/cairn-agent", "daemonset/cairn-node", "--timeout=120s")

	d := s.variant("app/web:1")
	s.cluster.Apply(fmt.Sprintf(`{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {replicas: 2, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: %q, command: [sh, -c, "sleep 1000"]}]}}}}`, cluster.NodeRegistry+"/app/web:1"))
	s.until("what runs, from the pod of the Deployment", func() error {
		e, err := s.admin.Why(t.Context(), image.Reference{Repository: "app/web", Digest: d})
		if err != nil {
			return err
		}
		if !strings.Contains(e.Text(), "container prod/default/Deployment/web on 1 node") {
			return fmt.Errorf("%s", e.Text())
		}
		return nil
	})
	// The agent of the cluster does not see what is no pod's: only that of the
	// node tells what the runtime itself needs.
	s.until("what started, from the pod of the DaemonSet", func() error {
		logs := s.cluster.Kubectl("logs", "-n", "cairn-agent", "daemonset/cairn-node")
		if strings.Contains(logs, `"level":"ERROR"`) {
			return fmt.Errorf("%s", logs)
		}
		rs, err := s.admin.Reporters(t.Context())
		if err != nil {
			return err
		}
		for _, r := range rs.Reporters {
			if r.Name == "cluster/prod" && !r.Silent {
				return nil
			}
		}
		return fmt.Errorf("reporters: %+v", rs)
	})
	second := s.variant("app/second:1")
	s.cluster.Kubectl("scale", "-n", "cairn-agent", "deployment/cairn-agent", "--replicas=0")
	s.cluster.Kubectl("wait", "-n", "cairn-agent", "--for=delete", "pod", "-l", "app.kubernetes.io/name=cairn-agent", "--timeout=120s")
	s.cluster.Kubectl("run", "second", "--restart=Never", "--image="+cluster.NodeRegistry+"/app/second:1", "--command", "--", "true")
	s.until("a pod that ended at once, from the agent of the node alone", func() error {
		if uses := s.uses("app/second", second); len(uses) == 0 {
			return fmt.Errorf("no use; the agent of the node says\n%s", s.cluster.Kubectl("logs", "-n", "cairn-agent", "daemonset/cairn-node"))
		}
		return nil
	})
}

// TestKubeletPulls: a kubelet pulls a private image with the token of the pod's
// ServiceAccount, as docs/agent.md says to set it up, and nothing is stored.
func TestKubeletPulls(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/agent.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```yaml\n(apiVersion: kubelet.config.k8s.io/v1\n.*?)```").FindSubmatch(page)
	if block == nil {
		t.Fatal("docs/agent.md shows no CredentialProviderConfig")
	}
	provider := filepath.Join(t.TempDir(), "provider.yaml")
	if err := os.WriteFile(provider, []byte(strings.Replace(string(block[1]), "registry.example.org", cluster.NodeRegistry, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	s := newPlace(t, cluster.Options{Nodes: 1, Kubelet: []string{"--image-credential-provider-bin-dir=" + filepath.Dir(parts.Cairn(t)), "--image-credential-provider-config=" + provider}},
		func(c *config.Config) {
			c.Access.AnonymousPull = []string{"open/**"}
			c.Clusters[0].Pull = []string{"team/**"}
		})
	s.cluster.Apply(site.Manifest(t, "kubelet.yaml"))
	for _, ref := range []string{"open/app:1", "team/app:1", "other/app:1"} {
		s.variant(ref)
	}
	run := func(name, ref string) {
		s.cluster.Kubectl("run", name, "--restart=Never", "--image="+cluster.NodeRegistry+"/"+ref, "--command", "--", "true")
	}
	run("open", "open/app:1")
	run("team", "team/app:1")
	run("other", "other/app:1")
	for _, name := range []string{"open", "team"} {
		s.cluster.Kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/"+name, "--timeout=120s")
	}
	s.until("a refusal that names the image", func() error {
		why := s.cluster.Kubectl("get", "pod", "other", "-o", "jsonpath={.status.containerStatuses[0].state.waiting.message}")
		if !strings.Contains(why, "other/app") {
			return fmt.Errorf("%q", why)
		}
		return nil
	})
	if phase := s.cluster.Kubectl("get", "pod", "other", "-o", "jsonpath={.status.phase}"); phase != "Pending" {
		t.Errorf("a pod of an image that its cluster may not pull is %s", phase)
	}
	if secrets := s.cluster.Kubectl("get", "secrets", "-A", "-o", "name"); strings.TrimSpace(secrets) != "" {
		t.Errorf("there are secrets: %s", secrets)
	}
}
