package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/test/parts"
)

// Argo's controller, and where its runs are.
const (
	argoPart    = "workflow-controller"
	argoVersion = "3.7.14"
	argoSpace   = "argo"
	argoRuns    = "argo-runs"
	argoPath    = "/apis/argoproj.io/v1alpha1/namespaces/" + argoRuns
)

// argo measures Argo's controller with the same work, on nodes that only
// pretend, with the executors of its pods played.
func (s settings) argo(ctx context.Context, r *report, w *world, ours cost) error {
	stop, err := w.startArgo(ctx)
	if err != nil {
		return fmt.Errorf("argo's controller: %w", err)
	}
	defer stop()
	acting, end := context.WithCancel(ctx)
	e := &executors{api: w.admin, has: map[string]bool{}}
	var wg sync.WaitGroup
	wg.Go(func() { e.play(acting) })
	defer func() { end(); wg.Wait() }()

	n := max(s.n/5, 1)
	what := fmt.Sprintf("Argo's controller, %d workflows of one task, kwok", n)
	c, err := w.cost(ctx, what, argoRuns, func() error { return w.argoMany(ctx, n, 1) })
	if err != nil {
		return err
	}
	r.detail(what, c)
	how := "Argo's controller " + argoVersion + " with --qps=200, its executors played (a WorkflowTaskResult that is made and completed, and one write of a kubelet); until the workflows have ended and were deleted, with their pods"
	r.add(row{what: what + ": writes each", measured: fmt.Sprintf("%.1f", float64(c.writes.total())/float64(n)), how: how})

	what = fmt.Sprintf("Argo's controller, one workflow of %d pods, kwok", s.n)
	if c, err = w.cost(ctx, what, argoRuns, func() error { return w.argoMany(ctx, 1, s.n) }); err != nil {
		return err
	}
	r.detail(what, c)
	r.add(row{what: what + ": writes, times ours", measured: fmt.Sprintf("%.0f", float64(c.writes.total())/float64(ours.writes.total())),
		how: fmt.Sprintf("%d writes, %s; likewise", c.writes.total(), rounded(c.took))})
	return e.failed()
}

// startArgo runs Argo's controller in the network of the control plane.
func (w *world) startArgo(ctx context.Context) (stop func(), err error) {
	program, err := parts.Build(ctx, argoPart, os.Stderr)
	if err != nil {
		return nil, err
	}
	definitions, err := filepath.Glob(filepath.Join(filepath.Dir(program), "manifests/base/crds/minimal/argoproj.io_*.yaml"))
	if err != nil || len(definitions) == 0 {
		return nil, errors.Join(err, fmt.Errorf("no definitions lie beside %s", program))
	}
	for _, file := range definitions {
		if _, err := w.RunKubectl(ctx, "", "apply", "--server-side", "-f", file); err != nil {
			return nil, err
		}
	}
	if _, err := w.RunKubectl(ctx, "", "wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"); err != nil {
		return nil, err
	}
	if _, err := w.RunKubectl(ctx, fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata: {name: %[1]s}
---
apiVersion: v1
kind: Namespace
metadata: {name: %[2]s}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: workflow-controller-configmap, namespace: %[1]s}
`, argoSpace, argoRuns), "apply", "-f", "-"); err != nil {
		return nil, err
	}
	ctx, end := context.WithCancel(ctx)
	cmd := w.Command(ctx, 0, program, "--kubeconfig="+w.Kubeconfig, "--namespace="+argoSpace, "--executor-image=executor", "--qps=200", "--burst=200", "--loglevel=error")
	cmd.Env = append(os.Environ(), "LEADER_ELECTION_DISABLE=true")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		end()
		return nil, err
	}
	return func() { end(); _ = cmd.Wait() }, nil
}

// argoMany runs so many workflows of so many pods, and deletes them.
func (w *world) argoMany(ctx context.Context, n, pods int) error {
	for i := range n {
		step := object{"name": "a", "template": "true"}
		if pods > 1 {
			step["withSequence"] = object{"count": fmt.Sprint(pods)}
		}
		if _, err := w.admin.do(ctx, http.MethodPost, argoPath+"/workflows", object{"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
			"metadata": object{"name": fmt.Sprint("run-", i)},
			"spec": object{"entrypoint": "main", "templates": []object{
				{"name": "main", "steps": [][]object{{step}}},
				{"name": "true", "container": object{"image": image, "command": []string{"true"}}}}}}); err != nil {
			return err
		}
	}
	if err := untilEach(ctx, 2*time.Second, fmt.Sprintf("%d workflows of Argo's have ended", n), 10*time.Minute, func() (bool, error) {
		var l struct{ Items []status }
		if err := w.admin.get(ctx, argoPath+"/workflows?labelSelector=workflows.argoproj.io%2Fcompleted%3Dtrue", &l); err != nil {
			return false, err
		}
		for _, s := range l.Items {
			if s.Status.Phase != "Succeeded" {
				return false, fmt.Errorf("a workflow is %s: %s", s.Status.Phase, s.Status.Message)
			}
		}
		return len(l.Items) >= n, nil
	}); err != nil {
		return err
	}
	_, err := w.admin.do(ctx, http.MethodDelete, argoPath+"/workflows", nil)
	return err
}

// executors are those of Argo's pods: what its wait container writes, and then
// what a kubelet does.
type executors struct {
	api *api

	has map[string]bool // by uid; play's own
	wg  sync.WaitGroup
	mu  sync.Mutex
	err error // the first
}

type argoPods struct {
	Items []struct {
		Metadata struct {
			Name, UID       string
			OwnerReferences []struct{ Name, UID string }
		}
		Spec struct {
			Containers []struct {
				Name string
				Env  []variable
			}
		}
	}
}

// play looks for pods that run, until ctx ends, and plays their executors.
func (e *executors) play(ctx context.Context) {
	defer e.wg.Wait()
	turns := make(chan struct{}, 8)
	for ctx.Err() == nil {
		var l argoPods
		err := e.api.get(ctx, "/api/v1/namespaces/"+argoRuns+"/pods?resourceVersion=0&fieldSelector=status.phase%3DRunning&labelSelector=workflows.argoproj.io%2Fworkflow", &l)
		e.fail(ctx, err)
		for _, x := range l.Items {
			if e.has[x.Metadata.UID] || len(x.Metadata.OwnerReferences) == 0 {
				continue
			}
			e.has[x.Metadata.UID] = true
			node, owner := "", x.Metadata.OwnerReferences[0]
			var names []string
			for _, c := range x.Spec.Containers {
				names = append(names, c.Name)
				for _, v := range c.Env {
					if v.Name == "ARGO_NODE_ID" {
						node = v.Value
					}
				}
			}
			turns <- struct{}{}
			e.wg.Go(func() {
				e.fail(ctx, e.act(ctx, x.Metadata.Name, node, owner.Name, owner.UID, names))
				<-turns
			})
		}
		_ = clock.Sleep(ctx, clock.Real(), 500*time.Millisecond)
	}
}

// act is one pod: its executor says that it began and that it has reported, and
// all its containers have ended.
func (e *executors) act(ctx context.Context, pod, node, workflow, uid string, containers []string) error {
	if node == "" {
		return fmt.Errorf("pod %s of Argo's names no node", pod)
	}
	const label = "workflows.argoproj.io/report-outputs-completed"
	if _, err := e.api.do(ctx, http.MethodPost, argoPath+"/workflowtaskresults", object{"apiVersion": "argoproj.io/v1alpha1", "kind": "WorkflowTaskResult",
		"metadata": object{"name": node, "labels": object{"workflows.argoproj.io/workflow": workflow, label: "false"},
			"ownerReferences": []object{{"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": workflow, "uid": uid}}}}); err != nil {
		return err
	}
	if _, err := e.api.do(ctx, http.MethodPatch, argoPath+"/workflowtaskresults/"+node, object{"metadata": object{"labels": object{label: "true"}}}); err != nil {
		return err
	}
	_, err := e.api.do(ctx, http.MethodPatch, "/api/v1/namespaces/"+argoRuns+"/pods/"+pod+"/status", succeeded(containers...))
	return err
}

func (e *executors) fail(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err == nil {
		e.err = fmt.Errorf("play an executor of Argo's: %w", err)
	}
}

// failed is what went wrong first.
func (e *executors) failed() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}
