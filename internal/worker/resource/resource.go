// Package resource makes the requests of tasks to the API server of the cluster
// that its pod is in: objects are read, made, applied, patched, replaced and
// deleted, and what becomes of them is waited for.
//
// It owns a small client of that API (discovery, JSON over HTTPS, watches), and
// what the actions mean, which is what kubectl makes of them. It promises that
// every request is made with the token of the pod's own service account; that an
// attempt which comes after one that was lost finds the object which that one
// made, and makes no other; that restarts of the API server and its requests to
// be left alone are waited out, within bounds; that an error is the API
// server's own, which names the right that is missing; and that what is read is
// bounded. Nothing is undone: what a task that was canceled has made stays. A
// patch that adds to a list adds twice if its worker was lost in between.
package resource

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/worker"
)

// Runner is a [worker.Runner] for tasks that are a [task.Resource] and no others.
type Runner struct {
	api   *api
	files Files
}

// New makes one that speaks for an account. Manifests that are inputs come from
// files; nil: there are none.
func New(a *Account, files Files, c clock.Clock) *Runner {
	return &Runner{api: &api{account: a, clock: c}, files: files}
}

// Close implements [worker.Runner].
func (r *Runner) Close() { r.api.account.Client.CloseIdleConnections() }

// Why a request ends that is not answered: the cause of its context.
type timeout struct{ after time.Duration }

func (t timeout) Error() string { return fmt.Sprintf("it ran longer than its timeout of %v", t.after) }

// Run implements [worker.Runner].
func (r *Runner) Run(ctx context.Context, _ int, j worker.Job) task.Outcome {
	if j.Task.Resource == nil {
		return task.Outcome{Phase: task.Errored, Exit: -1, Message: "this worker makes requests to its cluster and runs no programs"}
	}
	within, end := context.WithCancelCause(ctx)
	defer end(nil)
	if t := j.Task.Timeout; t > 0 {
		over := r.api.clock.After(t)
		go func() {
			select {
			case <-over:
				end(timeout{t})
			case <-within.Done():
			}
		}()
	}
	asked := *j.Task.Resource
	q := &request{Resource: &asked, api: r.api, key: fmt.Sprintf("%s/%d", j.Lease.Key, j.Task.Resource.Try),
		say: func(format string, args ...any) { j.Print(task.Stdout, fmt.Appendf(nil, format+"\n", args...)) }}
	var found map[string]task.Produced
	var err error
	if asked.Manifest, err = r.manifestOf(within, j); err == nil {
		found, err = q.finish(within, len(j.Task.Outputs) > 0)
	}
	if err == nil {
		return task.Outcome{Phase: task.Succeeded, Outputs: found}
	}
	out := task.Outcome{Phase: task.Failed, Exit: 1, Message: err.Error()}
	if late, is := errors.AsType[timeout](err); is {
		out.Message = "killed: " + late.Error() + q.seen
	} else if errors.Is(err, errAway) || errors.Is(err, errFiles) {
		out.Phase, out.Exit, out.Infrastructure = task.Errored, -1, true
	}
	q.say("%s", out.Message)
	return worker.Ended(ctx, out)
}

// finish makes the request and reads what is wanted of the object that it ended
// with: as a whole, too, if object is set.
func (q *request) finish(ctx context.Context, object bool) (map[string]task.Produced, error) {
	o, err := q.run(ctx)
	if err != nil {
		return nil, err
	}
	if m, ok := o["metadata"].(map[string]any); ok {
		delete(m, "managedFields")
	}
	out, err := read(ctx, o, q.Read)
	if err == nil && object {
		out[task.Object], err = whole(o)
	}
	return out, err
}

// named is what people call an object.
func named(k *kind, namespace, name string) string {
	what := k.resource
	if k.group != "" {
		what += "." + k.group
	}
	if name != "" {
		what += " " + name
	}
	if k.namespaced {
		what += " in namespace " + namespace
	}
	return what
}

// at finds a text in an object; "" where there is none.
func at(o object, path ...string) string {
	var v any = o
	for _, p := range path {
		m, _ := v.(map[string]any)
		v = m[p]
	}
	s, _ := v.(string)
	return strings.TrimSpace(s)
}

var _ worker.Runner = (*Runner)(nil)
