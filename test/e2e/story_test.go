package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/usage"
	"cairn.dev/cairn/test/cluster"
)

// pod is the specification of a pod that stays until it is deleted. It never
// asks the registry for an image that its node has.
func pod(ref string) string {
	return fmt.Sprintf(`{terminationGracePeriodSeconds: 0, containers: [{name: c, image: %q, imagePullPolicy: IfNotPresent, command: [sh, -c, "sleep 1000000; true"]}]}`, on(ref))
}

// once is one that ends by itself after a second.
func once(ref string) string {
	return fmt.Sprintf(`{restartPolicy: Never, containers: [{name: c, image: %q, imagePullPolicy: IfNotPresent, command: [sleep, "1"]}]}`, on(ref))
}

func deployment(name, ref string, replicas int) string {
	return fmt.Sprintf(`{apiVersion: apps/v1, kind: Deployment, metadata: {name: %[1]s}, spec: {replicas: %[3]d, selector: {matchLabels: {app: %[1]s}}, template: {metadata: {labels: {app: %[1]s}}, spec: %[2]s}}}`, name, pod(ref), replicas)
}

func daemonSet(name, ref string) string {
	return fmt.Sprintf(`{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: %[1]s}, spec: {selector: {matchLabels: {app: %[1]s}}, template: {metadata: {labels: {app: %[1]s}}, spec: %[2]s}}}`, name, pod(ref))
}

func cronJob(name, ref string, suspend bool) string {
	return fmt.Sprintf(`{apiVersion: batch/v1, kind: CronJob, metadata: {name: %s}, spec: {suspend: %t, schedule: "0 0 29 2 *", jobTemplate: {spec: {template: {spec: %s}}}}}`, name, suspend, once(ref))
}

func barePod(name, spec string) string {
	return fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: %s}, spec: %s}`, name, spec)
}

func apply(c *cluster.Cluster, docs ...string) { c.Apply(strings.Join(docs, "\n---\n")) }

// forget removes images from the node, so that whatever needs them next pulls
// them.
func (s *world) forget(c *cluster.Cluster, refs ...string) {
	s.t.Helper()
	for _, ref := range refs {
		if out, err := c.Command(s.t.Context(), 0, "ctr", "-n", "k8s.io", "images", "rm", "--sync", on(ref)).CombinedOutput(); err != nil {
			s.t.Fatalf("remove %s from the node: %v: %s", ref, err, out)
		}
	}
}

// A real kubelet and containerd pull from Cairn, and then never ask again. A
// month passes. What runs, and what would run, is there; its neighbours are
// not.
func TestNothingThatRunsIsDeleted(t *testing.T) {
	s := newWorld(t, cluster.Options{Nodes: 1})
	c := s.clusters[0]
	for _, ref := range []string{"app/shop:1", "app/shop:2", "app/web:1", "app/web:2", "app/zero:1", "app/suspended:1", "app/monthly:1", "app/each:1", "app/volume:1", "app/second:1", "app/once:1"} {
		s.image(ref)
	}
	s.report(0)
	apply(c,
		deployment("shop", "app/shop:1", 1),
		deployment("web", "app/web:1", 1),
		deployment("zero", "app/zero:1", 0),
		cronJob("suspended", "app/suspended:1", true),
		cronJob("monthly", "app/monthly:1", false),
		daemonSet("each", "app/each:1"),
		barePod("mounts", fmt.Sprintf(`{terminationGracePeriodSeconds: 0, volumes: [{name: v, image: {reference: %q, pullPolicy: IfNotPresent}}], containers: [{name: c, image: %q, imagePullPolicy: IfNotPresent, command: [sh, -c, "sleep 1000000"], volumeMounts: [{name: v, mountPath: /v}]}]}`, on("app/volume:1"), on("app/shop:1"))),
		barePod("first", once("app/second:1")),
		barePod("once", once("app/once:1")),
	)
	c.Kubectl("create", "job", "run", "--from=cronjob/monthly")
	c.Kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/first", "pod/once", "--timeout=90s")
	c.Kubectl("wait", "--for=condition=complete", "job/run", "--timeout=90s")
	c.Kubectl("wait", "--for=condition=ready", "pod/mounts", "--timeout=90s")
	for _, w := range []string{"deployment/shop", "deployment/web", "daemonset/each"} {
		c.Kubectl("rollout", "status", w, "--timeout=90s")
	}
	s.wantUse("app/once:1", usage.Container, "prod/default/Pod/once", false)
	s.wantUse("app/monthly:1", usage.Container, "prod/default/CronJob/monthly", false)
	c.Kubectl("delete", "pod/first", "pod/once", "job/run")

	s.pass(2 * day)
	c.Kubectl("set", "image", "deployment/web", "c="+on("app/web:2"))
	c.Kubectl("rollout", "status", "deployment/web", "--timeout=90s")
	s.wantUse("app/web:2", usage.Container, "prod/default/Deployment/web", true)
	s.wantUse("app/web:1", usage.Container, "prod/default/Deployment/web", false)

	// A pod of one second, from the image that its node has.
	s.pass(13 * day)
	apply(c, barePod("second", once("app/second:1")))
	c.Kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/second", "--timeout=90s")
	s.wantUse("app/second:1", usage.Container, "prod/default/Pod/second", false)
	c.Kubectl("delete", "pod/second")

	// The container ends, and its kubelet starts it again.
	c.Kubectl("exec", "deployment/shop", "--", "killall", "sleep")
	s.until("the restart", func() error {
		if n := c.Kubectl("get", "pods", "-l", "app=shop", "-o", "jsonpath={.items[*].status.containerStatuses[*].restartCount}"); n == "0" {
			return fmt.Errorf("%s restarts", n)
		}
		return nil
	})
	c.Kubectl("rollout", "status", "deployment/shop", "--timeout=90s")

	s.pass(16 * day)
	all := []string{"app/shop:1", "app/web:1", "app/web:2", "app/zero:1", "app/suspended:1", "app/monthly:1", "app/each:1", "app/volume:1", "app/second:1"}
	s.kept(all...)
	s.gone("app/shop:2", "app/once:1")

	// The node asked for each image once; only what it runs keeps it.
	if pull, ok := s.used("app/shop:1", usage.Pull, ""); !ok || pull.At.Sub(s.begin) > day {
		t.Errorf("the last pull of what runs is %v, want one of the first day: nobody pulls it again", pull)
	}
	why := s.why("app/shop:1").Text()
	for _, want := range []string{"kept       in use by", "now                  container prod/default/Deployment/shop on 1 node\n", "now                  container prod/default/Pod/mounts on 1 node\n"} {
		if !strings.Contains(why, want) {
			t.Errorf("why does not say %q:\n%s", want, why)
		}
	}
	t.Logf("day %d\n%s%s", s.since()/day, why, s.why("app/shop:2").Text())

	// What was not needed for a month is pulled as if nothing was: the node
	// does not have it any more.
	s.forget(c, "app/web:1", "app/monthly:1")
	c.Kubectl("rollout", "undo", "deployment/web")
	c.Kubectl("rollout", "status", "deployment/web", "--timeout=90s")
	c.Kubectl("create", "job", "run", "--from=cronjob/monthly")
	c.Kubectl("scale", "deployment/zero", "--replicas=1")
	c.Kubectl("rollout", "status", "deployment/zero", "--timeout=90s")
	c.Kubectl("wait", "--for=condition=complete", "job/run", "--timeout=90s")
	s.wantUse("app/web:1", usage.Container, "prod/default/Deployment/web", true)
	if pull, _ := s.used("app/web:1", usage.Pull, ""); pull.At.Sub(s.begin) < 30*day {
		t.Errorf("the rollback did not pull: %v", pull)
	}

	// What is not wanted any more goes like everything else.
	c.Kubectl("delete", "cronjob/suspended", "pod/mounts")
	s.wantUse("app/suspended:1", usage.Workload, "prod/default/CronJob/suspended", false)
	s.pass(31 * day)
	s.kept("app/shop:1", "app/web:1", "app/web:2", "app/zero:1", "app/monthly:1", "app/each:1") // web:2 by the ReplicaSet it was rolled back from
	s.gone("app/suspended:1", "app/volume:1")
	s.swept("app/shop:2", "app/once:1")
}
