package work

import (
	"context"
	"reflect"
	"slices"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work/machine"
)

// claimed says of a task's claims in whose namespace they are. The task may be
// one of many that have its volumes.
func claimed(t *task.Task, namespace string) *task.Task {
	if !slices.ContainsFunc(t.Volumes, func(v task.Volume) bool { return v.Claim != "" }) {
		return t
	}
	out := *t
	out.Volumes = slices.Clone(t.Volumes)
	for i := range out.Volumes {
		if v := &out.Volumes[i]; v.Claim != "" {
			v.Namespace = namespace
		}
	}
	return &out
}

// render makes tasks of leases and puts them into g. Tasks that their
// conditions skip, and those that cannot be made, are said to their runs. pods:
// they are handed on to pods.
func (s *Server) render(ctx context.Context, leases []lease, g *task.Grant, pods bool) error {
	// Who leaves meanwhile must not make items fail, or keep verdicts back.
	ctx = context.WithoutCancel(ctx)
	failed := make([]error, len(leases))
	for i := range leases {
		if l := &leases[i]; l.list != "" {
			l.item, failed[i] = s.lists.item(ctx, l.list, l.Item)
		}
	}
	verdicts := map[*run]*machine.Judged{}
	judge := func(l lease, why string) {
		v := verdicts[l.run]
		if v == nil {
			v = &machine.Judged{}
			verdicts[l.run] = v
		}
		if n := len(v.Verdicts); n > 0 && v.Verdicts[n-1].Error == why && v.Verdicts[n-1].Node == l.Node && v.Verdicts[n-1].Item+v.Verdicts[n-1].Count == l.Item {
			v.Verdicts[n-1].Count++
			return
		}
		v.Verdicts = append(v.Verdicts, machine.Verdict{Pick: machine.Pick{Node: l.Node, Item: l.Item, Count: 1}, Error: why})
	}
	var judged []lease
	s.mu.RLock()
	for i, l := range leases {
		if failed[i] != nil {
			judge(l, "item: "+failed[i].Error())
			judged = append(judged, l)
			continue
		}
		t, skip, err := l.run.m.Render(l.Ref, l.item, pods)
		switch {
		case err != nil:
			judge(l, err.Error())
			judged = append(judged, l)
		case skip:
			judge(l, "")
			judged = append(judged, l)
		default:
			name := l.run.m.TaskName(l.Ref)
			x := task.Lease{Ref: task.Ref{Run: l.run.id, Task: name, Attempt: int(l.Attempt)}, Key: l.run.id + "/" + name}
			x.Token = s.tokens.make(x.Run, x.Task, x.Attempt)
			x.Body, x.Own = share(g, claimed(t, l.run.namespace))
			g.Leases = append(g.Leases, x)
		}
	}
	s.mu.RUnlock()
	if len(judged) == 0 {
		return nil
	}
	return s.do(ctx, func(c *commit) error {
		for _, l := range judged {
			s.drop(l.run, l.Lease)
		}
		for r, e := range verdicts {
			if s.runs[r.id] != r {
				continue
			}
			if err := c.apply(r, *e); err != nil {
				return err
			}
		}
		return nil
	})
}

// share finds a body that the task can share with others of the grant, and
// what of it is its own.
func share(g *task.Grant, t *task.Task) (int, *task.Own) {
	for i := range g.Bodies {
		if own, ok := differ(&g.Bodies[i], t); ok {
			return i, own
		}
	}
	g.Bodies = append(g.Bodies, *t)
	return len(g.Bodies) - 1, nil
}

// differ is what of t is not as in the body; false if that cannot be said in
// an Own.
func differ(b, t *task.Task) (*task.Own, bool) {
	if b.Image != t.Image || b.WorkDir != t.WorkDir || b.Timeout != t.Timeout || b.Grace != t.Grace || b.CPU != t.CPU || b.Memory != t.Memory ||
		b.User != t.User || b.Isolation != t.Isolation || b.LogLimit != t.LogLimit || b.HTTP != nil || t.HTTP != nil || b.Resource != nil || t.Resource != nil || b.Daemon != t.Daemon || !reflect.DeepEqual(b.Ready, t.Ready) || !reflect.DeepEqual(b.Set, t.Set) || !reflect.DeepEqual(b.Pod, t.Pod) ||
		!slices.Equal(b.Env, t.Env) || !slices.Equal(b.Volumes, t.Volumes) || !slices.EqualFunc(b.Inputs, t.Inputs, sameInput) || !slices.EqualFunc(b.Outputs, t.Outputs, sameOutput) {
		return nil, false
	}
	var own task.Own
	changed := false
	if !slices.Equal(b.Command, t.Command) {
		if len(t.Command) == 0 { // an empty one would say "as the body"
			return nil, false
		}
		own.Command, changed = t.Command, true
	}
	if !slices.Equal(b.Args, t.Args) {
		if len(t.Args) == 0 {
			return nil, false
		}
		own.Args, changed = t.Args, true
	}
	if b.Script != t.Script {
		own.Script, changed = &t.Script, true
	}
	if !changed {
		return nil, true
	}
	return &own, true
}

func sameInput(a, b task.Input) bool {
	return a.Name == b.Name && a.Path == b.Path && a.Mode == b.Mode && a.Digest == b.Digest && a.Size == b.Size && a.Folder == b.Folder &&
		a.Source == nil && b.Source == nil && string(a.Content) == string(b.Content)
}

func sameOutput(a, b task.Output) bool {
	return a.Name == b.Name && a.Kind == b.Kind && a.Path == b.Path && a.Type == b.Type && a.Optional == b.Optional && a.Archive == b.Archive &&
		a.To == nil && b.To == nil && (a.Default == b.Default || a.Default != nil && b.Default != nil && *a.Default == *b.Default)
}
