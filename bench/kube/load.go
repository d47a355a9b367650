package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"
)

type object = map[string]any

// cost is what something took.
type cost struct {
	spent
	took time.Duration // what was waited for; its traces may go later
}

// pods is how many were made.
func (c cost) pods() int { return c.writes["POST pods"] }

// cost counts the writes of what do does, until no Job and no pod of it is left.
func (w *world) cost(ctx context.Context, what, namespace string, do func() error) (cost, error) {
	before, err := w.admin.spent(ctx)
	if err != nil {
		return cost{}, err
	}
	begin := time.Now()
	if err := do(); err != nil {
		return cost{}, fmt.Errorf("%s: %w", what, err)
	}
	took := time.Since(begin)
	if err := w.gone(ctx, namespace); err != nil {
		return cost{}, fmt.Errorf("%s: %w", what, err)
	}
	after, err := w.admin.spent(ctx)
	if err != nil {
		return cost{}, err
	}
	c := cost{spent{after.writes.since(before.writes), after.cpu - before.cpu}, took}
	fmt.Fprintf(os.Stderr, "%s: %s, %d pods, %s of the API server's processor time, %d writes: %s\n", what, rounded(took), c.pods(), rounded(c.cpu), c.writes.total(), c.writes)
	return c, nil
}

// gone waits until a namespace has no Jobs and no pods.
func (w *world) gone(ctx context.Context, namespace string) error {
	var l struct{ Items []struct{} }
	return until(ctx, "no Job and no pod is left", 5*time.Minute, func() (bool, error) {
		for _, path := range []string{"/apis/batch/v1/namespaces/" + namespace + "/jobs?limit=1", "/api/v1/namespaces/" + namespace + "/pods?limit=1"} {
			l.Items = nil
			if err := w.admin.get(ctx, path, &l); err != nil || len(l.Items) > 0 {
				return false, err
			}
		}
		return true, nil
	})
}

func workflows(namespace string) string {
	return "/apis/cairn.dev/v1alpha1/namespaces/" + namespace + "/workflows"
}

// workflow has one task, for each of n items when there are several.
func workflow(name string, n int, command ...string) object {
	t := object{"name": "a", "image": image, "command": command}
	if n > 1 {
		t["forEach"] = object{"count": n}
	}
	return object{"apiVersion": "cairn.dev/v1alpha1", "kind": "Workflow", "metadata": object{"name": name}, "spec": object{"tasks": []object{t}}}
}

type status struct {
	Status struct {
		Phase, Message string
		Counts         struct{ Succeeded int }
		Conditions     []struct{ Type, Status string }
	}
}

// fan runs one workflow of n tasks that do nothing, and deletes it.
func (w *world) fan(ctx context.Context, namespace string, n int) error {
	if _, err := w.admin.do(ctx, http.MethodPost, workflows(namespace), workflow("fan", n, "true")); err != nil {
		return err
	}
	var s status
	if err := until(ctx, "the workflow has ended", 10*time.Minute, func() (bool, error) {
		err := w.admin.get(ctx, workflows(namespace)+"/fan", &s)
		switch s.Status.Phase {
		case "Succeeded", "Failed", "Error", "Canceled", "Refused":
			return true, err
		}
		return false, err
	}); err != nil {
		return err
	}
	if s.Status.Phase != "Succeeded" || s.Status.Counts.Succeeded < n {
		return fmt.Errorf("the workflow is %s (%s), and %d tasks have succeeded of %d", s.Status.Phase, s.Status.Message, s.Status.Counts.Succeeded, n)
	}
	_, err := w.admin.do(ctx, http.MethodDelete, workflows(namespace)+"/fan", nil)
	return err
}

// hand hands in workflows of one task, by kubectl, as one file.
func (w *world) hand(ctx context.Context, n int) error {
	var file strings.Builder
	for i := range n {
		b, err := json.Marshal(workflow(fmt.Sprint("one-", i), 1, "true"))
		if err != nil {
			return err
		}
		file.Write(b)
		file.WriteString("\n---\n")
	}
	begin := time.Now()
	// kubectl is of somebody's own machine: its priority is this program's.
	_, err := w.RunKubectl(ctx, file.String(), "apply", "--namespace="+plain, "-f", "-")
	fmt.Fprintf(os.Stderr, "kubectl apply of %d workflows: %s\n", n, rounded(time.Since(begin)))
	return err
}

// many hands in workflows of one task and waits for their ends.
func (w *world) many(ctx context.Context, n int) error {
	before, err := w.told(ctx)
	if err != nil {
		return err
	}
	if err := w.hand(ctx, n); err != nil {
		return err
	}
	// A list of all objects costs the API server too much to be asked for before.
	if err := until(ctx, fmt.Sprintf("of %d runs is told that they have ended", n), 10*time.Minute, func() (bool, error) {
		now, err := w.told(ctx)
		return now-before >= n, err
	}); err != nil {
		return err
	}
	var l struct{ Items []status }
	if err := w.admin.get(ctx, workflows(plain), &l); err != nil {
		return err
	}
	ok := 0
	for _, s := range l.Items {
		if s.Status.Phase == "Succeeded" {
			ok++
		}
	}
	if ok < n {
		return fmt.Errorf("of %d workflows %d have succeeded", n, ok)
	}
	return nil
}

// forget deletes all workflows.
func (w *world) forget(ctx context.Context) error {
	_, err := w.admin.do(ctx, http.MethodDelete, workflows(plain), nil)
	return err
}

// job runs an Indexed Job of as many pods, as people write it.
func (w *world) job(ctx context.Context, n, parallel int) error {
	const path = "/apis/batch/v1/namespaces/" + plain + "/jobs"
	if _, err := w.admin.do(ctx, http.MethodPost, path, object{"metadata": object{"name": "each"},
		"spec": object{"completionMode": "Indexed", "completions": n, "parallelism": parallel, "ttlSecondsAfterFinished": 1,
			"template": object{"spec": object{"restartPolicy": "Never", "containers": []object{{"name": "main", "image": image, "command": []string{"true"}}}}}}}); err != nil {
		return err
	}
	failed := false
	err := until(ctx, "the Job has ended", 15*time.Minute, func() (bool, error) {
		var s status
		if err := w.admin.get(ctx, path+"/each", &s); err != nil {
			return false, err
		}
		for _, c := range s.Status.Conditions {
			failed = failed || c.Type == "Failed" && c.Status == "True"
			// Its pods have ended; that they are all counted may take longer.
			if failed || (c.Type == "SuccessCriteriaMet" || c.Type == "Complete") && c.Status == "True" {
				return true, nil
			}
		}
		return false, nil
	})
	if failed {
		err = errors.New("the Job has failed")
	}
	return err
}

// first is how long it is from kubectl apply to the first line.
func (w *world) first(ctx context.Context, i int) (time.Duration, error) {
	mark := fmt.Sprintf("%s%d-%d", marked, w.n, i)
	yaml := fmt.Sprintf("apiVersion: cairn.dev/v1alpha1\nkind: Workflow\nmetadata: {name: first-%d}\nspec: {tasks: [{name: a, image: '%s', command: [echo, %s]}]}\n", i, image, mark)
	ctx, end := context.WithTimeout(ctx, time.Minute)
	defer end()
	begin := time.Now()
	if _, err := w.RunKubectl(ctx, yaml, "apply", "-f", "-"); err != nil {
		return 0, err
	}
	if !answers(ctx, "http://"+w.address+"/printed/"+mark) {
		return 0, fmt.Errorf("%s was never printed", mark)
	}
	return time.Since(begin), nil
}
