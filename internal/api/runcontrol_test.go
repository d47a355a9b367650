package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/access"
	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/internal/task"
)

const two = `apiVersion: cairn.dev/v1alpha1
kind: Workflow
metadata: {name: two}
spec:
  failFast: false
  tasks:
  - {name: many, image: busybox, forEach: {count: 3}, args: ["${{ item }}"]}
  - {name: ask, suspend: {outputs: [who]}}
  - {name: last, image: busybox, args: ["${{ tasks.ask.outputs.who }}"]}
`

// A run is suspended, goes on, waits for somebody, fails, is retried and ends.
func TestControl(t *testing.T) {
	r := newRig(t, true)
	c := r.client("")
	s, err := c.Submit(t.Context(), wire.Submission{Document: wire.Document{Text: two}})
	if err != nil {
		t.Fatal(err)
	}
	if x, err := c.Suspend(t.Context(), s.ID); err != nil || !x.Suspended {
		t.Errorf("suspended: %+v, %v", x, err)
	}
	if x, err := c.Resume(t.Context(), s.ID, wire.ResumeRequest{}); err != nil || x.Suspended {
		t.Errorf("resumed: %+v, %v", x, err)
	}
	for _, l := range r.lease(3) {
		o := task.Outcome{Phase: task.Succeeded}
		if strings.HasSuffix(l.Task, ".1") {
			o = task.Outcome{Phase: task.Failed, Exit: 3, Message: "exit code 3"}
		}
		r.end(l, o)
	}
	var waits wire.RunNode
	for _, n := range r.all(c, s.ID, "") {
		if n.Waits != "" {
			waits = n
		}
		if n.Name == "many" && (n.Items == nil || n.Items.Total != 3 || n.Items.Succeeded != 2 || n.Items.Failed != 1) {
			t.Errorf("the fan-out is %+v", n.Items)
		}
	}
	if waits.Name != "ask" {
		t.Fatalf("nobody waits, but %+v", waits)
	}
	for name, q := range map[string]wire.ResumeRequest{
		"without what it asks for": {Node: waits.ID},
		"no such node":             {Node: "99"},
		"no node":                  {Node: "x/y"},
		"values for no node":       {Outputs: map[string]string{"who": "me"}},
	} {
		if _, err := c.Resume(t.Context(), s.ID, q); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := c.Resume(t.Context(), s.ID, wire.ResumeRequest{Node: waits.ID, Outputs: map[string]string{"who": "me"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Retry(t.Context(), s.ID); err == nil {
		t.Error("a run that goes on was retried")
	}
	if err := c.DeleteRun(t.Context(), s.ID); err == nil {
		t.Error("a run that goes on was deleted")
	}
	for _, l := range r.lease(1) {
		r.end(l, task.Outcome{Phase: task.Succeeded})
	}
	if x, err := c.Run(t.Context(), s.ID); err != nil || x.Phase != "failed" || !x.Done() {
		t.Fatalf("in the end: %+v, %v", x, err)
	}
	failed, err := c.Nodes(t.Context(), s.ID, client.NodeQuery{Phases: []string{"error", "failed"}})
	if err != nil || len(failed.Nodes) == 0 {
		t.Fatalf("what failed: %+v, %v", failed, err)
	}
	if none, err := c.Nodes(t.Context(), s.ID, client.NodeQuery{Phases: []string{"error", "canceled"}}); err != nil || len(none.Nodes) != 0 {
		t.Errorf("with errors: %+v, %v", none, err)
	}
	if _, err := c.Nodes(t.Context(), s.ID, client.NodeQuery{Phases: []string{"dead"}}); err == nil {
		t.Error("a phase that is none is taken")
	}
	if _, err := c.Retry(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
	l := r.lease(5)
	if len(l) != 1 || !strings.HasSuffix(l[0].Task, ".1") {
		t.Errorf("retried: %+v", l)
	}
	r.end(l[0], task.Outcome{Phase: task.Succeeded})
	if x, err := c.Run(t.Context(), s.ID); err != nil || x.Phase != "succeeded" {
		t.Errorf("after the retry: %+v, %v", x, err)
	}

	again, err := c.Resubmit(t.Context(), s.ID)
	if err != nil || again.ID == s.ID {
		t.Fatalf("resubmitted as %+v: %v", again, err)
	}
	if x, err := c.Cancel(t.Context(), again.ID, true); err != nil || x.Phase != "canceled" {
		t.Errorf("canceled: %+v, %v", x, err)
	}
	for what, f := range map[string]func() error{
		"cancel":  func() error { _, err := c.Cancel(t.Context(), again.ID, false); return err },
		"suspend": func() error { _, err := c.Suspend(t.Context(), again.ID); return err },
	} {
		if p, ok := f().(*wire.Problem); !ok || p.Status != http.StatusConflict || !strings.Contains(p.Detail, "has ended") {
			t.Errorf("%s of a run that has ended is answered %+v", what, p)
		}
	}
	for _, f := range []func() error{
		func() error { _, err := c.Cancel(t.Context(), "none", false); return err },
		func() error { _, err := c.Retry(t.Context(), "none"); return err },
		func() error { _, err := c.Suspend(t.Context(), "none"); return err },
		func() error { _, err := c.Resubmit(t.Context(), "none"); return err },
		func() error { return c.DeleteRun(t.Context(), "none") },
		func() error { return c.Logs(t.Context(), "none", client.LogQuery{}, nil) },
		func() error { _, err := c.Nodes(t.Context(), "none", client.NodeQuery{}); return err },
		func() error { _, err := c.Node(t.Context(), s.ID, "99"); return err },
	} {
		if p, ok := f().(*wire.Problem); !ok || p.Status != http.StatusNotFound || p.Detail == "" {
			t.Errorf("what is not there is answered %+v", p)
		}
	}
}

// all are the nodes below one, at any depth.
func (r *rig) all(c *client.Client, id, parent string) (out []wire.RunNode) {
	r.t.Helper()
	l, err := c.Nodes(r.t.Context(), id, client.NodeQuery{Parent: parent})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, n := range l.Nodes {
		out = append(out, n)
		if n.Children {
			out = append(out, r.all(c, id, n.ID)...)
		}
	}
	return out
}

// Pages follow one another without a gap or a repetition.
func TestRunPages(t *testing.T) {
	r := newRig(t, true)
	c := r.client("")
	for n := range 25 {
		r.clock.Advance(time.Second)
		doc := strings.Replace(hello, "hello-", fmt.Sprintf("run%02d", n), 1)
		if _, err := c.Submit(t.Context(), wire.Submission{Document: wire.Document{Text: doc}, Run: wire.SubmitOptions{Namespace: fmt.Sprintf("n%d", n%2)}}); err != nil {
			t.Fatal(err)
		}
	}
	for namespace, want := range map[string]int{"": 25, "n0": 13, "n1": 12, "n2": 0} {
		var names []string
		for q := (client.RunQuery{Namespace: namespace, Limit: 4, Phase: "live"}); ; {
			l, err := c.Runs(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range l.Runs {
				names = append(names, x.Name)
			}
			if q.After = l.Next; q.After == "" {
				break
			}
		}
		if len(names) != want {
			t.Errorf("in %q there are %v", namespace, names)
		}
		for i := 1; i < len(names); i++ {
			if names[i] >= names[i-1] {
				t.Errorf("in %q: %s after %s", namespace, names[i], names[i-1])
			}
		}
	}
	for _, path := range []string{"?after=none", "?phase=dead", "?limit=0", "?limit=2000"} {
		if status, body := r.send(http.MethodGet, "/api/v1/runs"+path, "", "", ""); status < 400 || status >= 500 {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
}

// Accounts see and start what their namespaces hold, and nothing else.
func TestWhoMayRun(t *testing.T) {
	r := newRig(t, false)
	r.account("a", access.Run, "team-a")
	r.account("ab", access.Run, "team-*")
	r.account("reader", access.Pull, "**")
	r.account("worker", access.Work, "**")
	r.account("all", access.Run, "**")
	sub := func(as, namespace string) (wire.Submitted, error) {
		return r.client(as).Submit(t.Context(), wire.Submission{Document: wire.Document{Text: hello}, Run: wire.SubmitOptions{Namespace: namespace, Key: "same"}})
	}
	mine, err := sub("a", "team-a")
	if err != nil {
		t.Fatal(err)
	}
	other, err := sub("ab", "team-b")
	if err != nil || other.ID == mine.ID {
		t.Fatalf("another namespace's key: %+v, %v", other, err)
	}
	status := func(err error) int {
		if p, ok := err.(*wire.Problem); ok {
			return p.Status
		}
		if err != nil {
			return -1
		}
		return http.StatusOK
	}
	for _, c := range []struct {
		as, namespace string
		want          int
	}{{"a", "team-b", 403}, {"a", "", 403}, {"reader", "team-a", 403}, {"worker", "team-a", 403}, {"", "team-a", 401}, {"all", "", 200}} {
		if _, err := sub(c.as, c.namespace); status(err) != c.want {
			t.Errorf("%s submits in %q: %v, want %d", c.as, c.namespace, err, c.want)
		}
	}
	for _, c := range []struct {
		as   string
		id   string
		want int
	}{{"a", mine.ID, 200}, {"a", other.ID, 403}, {"ab", mine.ID, 200}, {"reader", mine.ID, 403}, {"reader", "none", 403}, {"", mine.ID, 401}, {"all", other.ID, 200}, {"worker", mine.ID, 403}} {
		for what, f := range map[string]func(*client.Client) error{
			"get":     func(x *client.Client) error { _, err := x.Run(t.Context(), c.id); return err },
			"nodes":   func(x *client.Client) error { _, err := x.Nodes(t.Context(), c.id, client.NodeQuery{}); return err },
			"suspend": func(x *client.Client) error { _, err := x.Suspend(t.Context(), c.id); return err },
			"logs": func(x *client.Client) error {
				return x.Logs(t.Context(), c.id, client.LogQuery{}, func(wire.LogLine) error { return nil })
			},
		} {
			if err := f(r.client(c.as)); status(err) != c.want {
				t.Errorf("%s %s: %v, want %d", c.as, what, err, c.want)
			}
		}
	}
	for _, c := range []struct {
		as, namespace string
		want          int // runs; -1: refused
	}{{"a", "", 1}, {"a", "team-a", 1}, {"a", "team-b", -1}, {"ab", "", -1}, {"ab", "team-b", 1}, {"all", "", 3}, {"reader", "", -1}} {
		l, err := r.client(c.as).Runs(t.Context(), client.RunQuery{Namespace: c.namespace})
		if got := len(l.Runs); err == nil && got != c.want || err != nil && (c.want >= 0 || status(err) != 403) {
			t.Errorf("%s lists %q: %d runs, %v", c.as, c.namespace, got, err)
		}
	}
	if _, err := r.client("ab").Runs(t.Context(), client.RunQuery{}); !strings.Contains(hintOf(err), "team-*") {
		t.Errorf("the hint is %q", hintOf(err))
	}
	if _, err := r.client("reader").Upload(t.Context(), "", strings.NewReader("x")); status(err) != 403 {
		t.Errorf("a reader uploads: %v", err)
	}
}

func TestSchedules(t *testing.T) {
	r := newRig(t, false)
	r.account("a", access.Run, "team-a")
	r.account("b", access.Run, "team-b")
	const doc = `apiVersion: cairn.dev/v1alpha1
kind: CronWorkflow
metadata: {name: nightly, namespace: team-a}
spec:
  schedules: ["0 3 * * *"]
  timezone: Europe/Berlin
  workflow: {tasks: [{name: a, image: busybox}]}
`
	c := r.client("a")
	s, err := c.PutSchedule(t.Context(), wire.Document{Text: doc}, "")
	if err != nil || s.Name != "nightly" || s.Next.IsZero() || s.By != "a" || s.Timezone != "Europe/Berlin" {
		t.Fatalf("stored as %+v: %v", s, err)
	}
	for as, want := range map[string]int{"a": 1, "b": 0} {
		if l, err := r.client(as).Schedules(t.Context(), ""); err != nil || len(l.Schedules) != want {
			t.Errorf("%s sees %+v, %v", as, l.Schedules, err)
		}
	}
	if _, err := r.client("b").PutSchedule(t.Context(), wire.Document{Text: doc}, ""); err == nil {
		t.Error("another namespace's schedule is stored")
	}
	if err := r.client("b").DeleteSchedule(t.Context(), "team-a", "nightly"); err == nil {
		t.Error("another namespace's schedule is deleted")
	}
	if s, err = c.SuspendSchedule(t.Context(), "team-a", "nightly", true); err != nil || !s.Suspended {
		t.Errorf("suspended: %+v, %v", s, err)
	}
	if s, err = c.SuspendSchedule(t.Context(), "team-a", "nightly", false); err != nil || s.Suspended {
		t.Errorf("resumed: %+v, %v", s, err)
	}
	if err := c.DeleteSchedule(t.Context(), "team-a", "nightly"); err != nil {
		t.Error(err)
	}
	if err := c.DeleteSchedule(t.Context(), "team-a", "nightly"); err == nil {
		t.Error("deleted twice")
	}
	if _, err := c.PutSchedule(t.Context(), wire.Document{Name: "f", Text: hello}, ""); err == nil {
		t.Error("a Workflow is a schedule")
	}
	if _, err := c.PutSchedule(t.Context(), wire.Document{Name: "f", Text: strings.Replace(doc, "0 3", "61 3", 1)}, ""); err == nil || !strings.Contains(err.Error(), "f:5:15") {
		t.Errorf("a time that never comes: %v", err)
	}
}
