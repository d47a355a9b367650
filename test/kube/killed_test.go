package kube_test

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/test/cluster"
	"cairn.dev/cairn/test/images"
)

// photos is the example of the README on a cluster: a task for each item, and
// one that gets what they left, with files on both ends.
const photos = `
apiVersion: cairn.dev/v1alpha1
kind: Workflow
metadata: {name: %s}
spec:
  tasks:
  - name: shrink
    image: busybox:1
    forEach: {count: %d}
    command: [sh, -c, 'echo "shrinks $0" >&2; sleep 0.2; echo "small $0" > /tmp/out; echo "$0"', "${{ string(item) }}"]
    outputs: {said: text, small: {type: file, path: /tmp/out}}
  - name: tell
    image: busybox:1
    command: [sh, -c, 'cat /tmp/in']
    files: {/tmp/in: "${{ tasks.shrink.outputs.said }}"}
    outputs: {all: json}
`

// runOf is the run of a workflow that was applied.
func (s *served) runOf(name string) string {
	s.t.Helper()
	id := ""
	await(s.t, name+" has a run", func() (string, bool) {
		out, err := s.cluster.RunKubectl(s.t.Context(), "", "get", "workflows.cairn.dev", name, "-o", "jsonpath={.status.run}")
		if err != nil {
			return err.Error(), false
		}
		id = out
		return out, out != ""
	})
	return id
}

// complete checks that everything a run of photos leaves is there: values,
// lines, files, and the object that tells of it.
func (s *served) complete(t *testing.T, name, id string, n int) {
	t.Helper()
	r := s.ran(id, 3*time.Minute)
	if r.Phase != "succeeded" || r.Tasks.Succeeded != n+1 || r.Tasks.Retries != 0 {
		t.Errorf("%s: %s (%s): %+v", name, r.Phase, r.Message, r.Tasks)
	}
	lines := map[string]int{}
	err := s.client.Logs(t.Context(), id, client.LogQuery{}, func(l wire.LogLine) error { lines[strings.TrimSpace(l.Text)]++; return nil })
	if err != nil {
		t.Error(err)
	}
	var all []string
	for i := range n {
		// An attempt whose worker was lost may have printed, too.
		if line := fmt.Sprint("shrinks ", i); lines[line] == 0 || lines[line] > 1 && r.Tasks.Crashes == 0 {
			t.Errorf("%s: %q was printed %d times, %d tasks were lost with their pods", name, line, lines[line], r.Tasks.Crashes)
		}
		all = append(all, fmt.Sprint(i))
	}
	nodes := s.tasks(id, "")
	for i := range n {
		found := slices.IndexFunc(nodes, func(x wire.RunNode) bool { return strings.Contains(x.Name, fmt.Sprintf("(%d", i)) })
		if found < 0 {
			t.Fatalf("%s: no task %d among %d", name, i, len(nodes))
		}
		if got, want := s.file(id, nodes[found].ID, "small"), fmt.Sprintf("small %d\n", i); got != want {
			t.Errorf("%s: the file of task %d holds %q, want %q", name, i, got, want)
		}
	}
	tell := nodes[slices.IndexFunc(nodes, func(x wire.RunNode) bool { return x.Name == "tell" })]
	told, err := s.client.Node(t.Context(), id, tell.ID)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(told.Outputs["result"]); got != "["+strings.Join(all, " ")+"]" {
		t.Errorf("%s: the last task got %s", name, got)
	}
	s.cluster.Kubectl("wait", "--for=condition=Succeeded", "--timeout=30s", "workflows.cairn.dev/"+name)
}

// tasks are the nodes of a run below one, at any depth.
func (s *served) tasks(id, parent string) (out []wire.RunNode) {
	s.t.Helper()
	for q := (client.NodeQuery{Parent: parent}); ; {
		l, err := s.client.Nodes(s.t.Context(), id, q)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, n := range l.Nodes {
			out = append(out, n)
			if n.Children {
				out = append(out, s.tasks(id, n.ID)...)
			}
		}
		if q.After = l.Next; q.After == "" {
			return out
		}
	}
}

func (s *served) file(id, node, name string) string {
	s.t.Helper()
	r, err := s.client.Artifact(s.t.Context(), id, node, name)
	if err != nil {
		return err.Error()
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, 1<<10))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// TestServed is the example of the README in real pods, whose server is killed
// at every step: before there is a Job, while pods start, while tasks run,
// while their results come, at the end. What a run left is there when its pods
// are not any more.
func TestServed(t *testing.T) {
	t.Parallel()
	s := newServed(t, cluster.Options{Nodes: 1}, "  lease: 10s\n", ", max_pods_per_run: 4, pod_rate: 20")
	images.Push(t, s.pushes(), "library/busybox:1")
	const n = 12
	hand := func(name string) { s.cluster.Apply(fmt.Sprintf(photos, name, n)) }
	pods := func(id, path string) string {
		return s.cluster.Kubectl("get", "pods", "-l", "cairn.dev/run="+id, "-o", "jsonpath={.items[*]"+path+"}")
	}
	done := func(id string, tasks int) {
		await(t, fmt.Sprintf("%d tasks are done", tasks), func() (string, bool) {
			r, err := s.client.Run(t.Context(), id)
			return fmt.Sprint(r.Tasks, err), r.Tasks.Succeeded >= tasks
		})
	}
	again := func() { s.kill(); s.start() }

	t.Run("its pods are gone", func(t *testing.T) {
		hand("plain")
		id := s.runOf("plain")
		s.ran(id, 2*time.Minute)
		s.cluster.Kubectl("delete", "jobs,pods", "--all", "--timeout=60s")
		again()
		s.complete(t, "plain", id, n)
	})
	t.Run("it says what it waits for", func(t *testing.T) {
		quota := "{apiVersion: v1, kind: ResourceQuota, metadata: {name: pods, namespace: tight}, spec: {hard: {pods: %q}}}"
		s.cluster.Apply("{apiVersion: v1, kind: Namespace, metadata: {name: tight}}\n---\n" + fmt.Sprintf(quota, "0"))
		s.cluster.Apply("apiVersion: cairn.dev/v1alpha1\nkind: Workflow\nmetadata: {name: tight, namespace: tight}\nspec: {tasks: [{name: a, image: 'busybox:1', command: ['true']}]}\n")
		says := func(want string) {
			await(t, fmt.Sprintf("it says %q", want), func() (string, bool) {
				out := s.cluster.Kubectl("get", "workflows.cairn.dev/tight", "--namespace=tight", "-o", "jsonpath={.status.phase}: {.status.message}")
				return out, strings.Contains(out, want)
			})
		}
		says("exceeded quota")
		s.cluster.Apply(fmt.Sprintf(quota, "2"))
		s.cluster.Kubectl("wait", "--for=condition=Succeeded", "--timeout=90s", "--namespace=tight", "workflows.cairn.dev/tight")
		if out := s.cluster.Kubectl("get", "workflows.cairn.dev/tight", "--namespace=tight", "-o", "jsonpath={.status.message}"); out != "" {
			t.Errorf("it has succeeded, and says %q", out)
		}
	})
	for _, c := range []struct {
		name string
		when func(id string)
	}{
		{"before it is looked at", nil},
		{"before there is a job", func(string) {}},
		{"while pods start", func(id string) {
			await(t, "there are pods", func() (string, bool) { out := pods(id, ".metadata.name"); return out, out != "" })
		}},
		{"while tasks run", func(id string) { done(id, 1) }},
		{"while results come", func(id string) { done(id, n/2) }},
		{"at its end", func(id string) { done(id, n) }},
	} {
		t.Run("killed "+c.name, func(t *testing.T) {
			name := strings.ReplaceAll(c.name, " ", "-")
			if c.when == nil {
				s.kill()
				hand(name)
				s.start()
			} else {
				hand(name)
				c.when(s.runOf(name))
				again()
			}
			s.complete(t, name, s.runOf(name), n)
		})
	}
}
