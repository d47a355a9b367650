package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/kube/jobs"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/worker"
)

// players are the workers of pods that only pretend: for each that runs there is
// the real loop of a worker, with a runner that does nothing; when it is told to
// leave, its pod has succeeded, in the one write of a kubelet that says so.
type players struct {
	api *api

	has     map[string]bool              // by uid; play's own
	secrets map[string]map[string][]byte // by path; play's own
	wg      sync.WaitGroup
	mu      sync.Mutex
	err     error // the first
}

type podOf struct {
	Metadata struct{ Name, Namespace, UID string }
	Spec     struct {
		Containers []struct {
			Name string
			Args []string
			Env  []variable
		}
	}
}

type variable struct {
	Name, Value string
	ValueFrom   struct{ SecretKeyRef struct{ Name, Key string } }
}

// expand is the environment that a kubelet makes of its description, as far as
// the worker of a pod needs it.
func (p *players) expand(ctx context.Context, namespace string, list []variable) map[string]string {
	env := map[string]string{}
	for _, e := range list {
		from := e.ValueFrom.SecretKeyRef
		if from.Name == "" {
			for k, v := range env {
				e.Value = strings.ReplaceAll(e.Value, "$("+k+")", v)
			}
			env[e.Name] = e.Value
			continue
		}
		path := "/api/v1/namespaces/" + namespace + "/secrets/" + from.Name
		if _, known := p.secrets[path]; !known {
			var s struct{ Data map[string][]byte }
			if err := p.api.get(ctx, path, &s); err != nil {
				p.fail(ctx, err)
				continue
			}
			p.secrets[path] = s.Data
		}
		env[e.Name] = string(p.secrets[path][from.Key])
	}
	return env
}

// play looks for pods that run, until ctx ends, and plays their workers. It
// watches, as kubelets do: to list them again and again would burden the API
// server as nothing does in a real cluster.
func (p *players) play(ctx context.Context) {
	defer p.wg.Wait()
	for ctx.Err() == nil { // an API server ends watches after some minutes
		p.fail(ctx, p.api.watch(ctx, "/api/v1/pods?watch=1&fieldSelector=status.phase%3DRunning&labelSelector="+jobs.LabelRun, func(b json.RawMessage) error {
			var x podOf
			if err := json.Unmarshal(b, &x); err != nil {
				return err
			}
			p.begin(ctx, x)
			return nil
		}))
	}
}

// begin plays the worker of a pod, if it does not do so already.
func (p *players) begin(ctx context.Context, x podOf) {
	if p.has[x.Metadata.UID] {
		return
	}
	p.has[x.Metadata.UID] = true
	env, pool := map[string]string{}, ""
	for _, c := range x.Spec.Containers {
		if c.Name != jobs.Main {
			continue
		}
		env = p.expand(ctx, x.Metadata.Namespace, c.Env)
		for _, a := range c.Args {
			if v, ok := strings.CutPrefix(a, "-pool="); ok {
				pool = v
			}
		}
	}
	p.wg.Go(func() {
		err := act(ctx, worker.Config{Name: x.Metadata.Name, Pool: pool}, env["CAIRN_SERVER"], env["CAIRN_TOKEN"])
		if err == nil {
			_, err = p.api.do(ctx, http.MethodPatch, fmt.Sprintf("/api/v1/namespaces/%s/pods/%s/status", x.Metadata.Namespace, x.Metadata.Name), succeeded(jobs.Main))
		}
		p.fail(ctx, err)
	})
}

// act is a worker, until it is told to leave.
func act(ctx context.Context, cfg worker.Config, server, token string) error {
	to, err := worker.NewHTTP(server, func() (string, error) { return token, nil })
	if err != nil {
		return err
	}
	defer to.Client.CloseIdleConnections()
	w, err := worker.New(cfg, worker.Deps{Server: to, Runner: nothing{}, Clock: clock.Real()})
	if err != nil {
		return err
	}
	return w.Run(ctx)
}

// nothing runs tasks that do nothing.
type nothing struct{}

func (nothing) Run(context.Context, int, worker.Job) task.Outcome {
	now := time.Now()
	return task.Outcome{Phase: task.Succeeded, Started: now, Ended: now}
}
func (nothing) Close() {}

// succeeded is what a kubelet says when the programs of a pod have ended.
func succeeded(containers ...string) object {
	now := time.Now().UTC().Format(time.RFC3339)
	var all []object
	for _, name := range containers {
		all = append(all, object{"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0,
			"state": object{"terminated": object{"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}}})
	}
	return object{"status": object{"phase": "Succeeded", "containerStatuses": all}}
}

func (p *players) fail(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = fmt.Errorf("play a worker: %w", err)
	}
}

// failed is what went wrong first.
func (p *players) failed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}
