package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/client"
)

// What `cairn runs get` shows of a large run.
const (
	maxNodes    = 200 // of the tree
	maxDepth    = 8
	maxFailures = 10 // with what they printed last
	lastLines   = 5
)

// runView is what `cairn runs get -o json` prints.
type runView struct {
	wire.Run
	Nodes []nodeView `json:"nodes"`
}

type nodeView struct {
	wire.RunNode
	Below []nodeView `json:"below,omitempty"`
}

func (a *app) runsGet() *cobra.Command {
	c := &cobra.Command{
		Use:   "get RUN",
		Short: "Show a run: its nodes, what failed and what that printed last",
		Long:  "Show a run: its nodes, what failed and what that printed last.\n\nRUN is an ID, or a name: then the newest run of that name.",
		Args:  takes(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, id, err := a.newestRun(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			r, err := cl.Run(cmd.Context(), id)
			if err != nil {
				return err
			}
			left := maxNodes
			nodes, err := tree(cmd.Context(), cl, r.ID, "", 0, &left)
			if err != nil {
				return err
			}
			var outputs map[string]any
			if len(nodes) > 0 && r.Done() { // those of the box that holds all others are the run's
				n, err := cl.Node(cmd.Context(), r.ID, nodes[0].ID)
				if err != nil {
					return err
				}
				outputs, nodes[0].Outputs = n.Outputs, n.Outputs
			}
			if a.output != "table" {
				return a.print(runView{r, nodes}, nil)
			}
			nodes = inside(nodes)
			a.showRun(r, outputs, nodes, time.Now())
			if left == 0 {
				fmt.Fprintf(a.stdout, "… and more: -o json and the API show all\n")
			}
			if r.Tasks.Failed > 0 || r.Phase == "error" {
				return a.failures(cmd.Context(), cl, r.ID)
			}
			return nil
		},
	}
	return a.withOutput(c)
}

// tree reads nodes below one. Items of fan-outs are not followed, however few:
// those that failed are shown apart.
func tree(ctx context.Context, cl *client.Client, id, parent string, depth int, left *int) ([]nodeView, error) {
	out := []nodeView{}
	for after := ""; *left > 0; {
		page, err := cl.Nodes(ctx, id, client.NodeQuery{Parent: parent, After: after, Limit: min(*left, 100)})
		if err != nil {
			return nil, err
		}
		for _, n := range page.Nodes {
			if *left--; *left < 0 {
				*left = 0
				return out, nil
			}
			v := nodeView{RunNode: n}
			if n.Children && n.Kind != "tasks" && depth < maxDepth {
				if v.Below, err = tree(ctx, cl, id, n.ID, depth+1, left); err != nil {
					return nil, err
				}
			}
			out = append(out, v)
		}
		if after = page.Next; after == "" {
			break
		}
	}
	return out, nil
}

// inside leaves the box out that holds all others, which says no more than the
// run does.
func inside(nodes []nodeView) []nodeView {
	if len(nodes) == 0 || nodes[0].Kind != "dag" {
		return nodes
	}
	return append(slices.Clone(nodes[0].Below), nodes[1:]...)
}

// showRun prints a run and its tree.
func (a *app) showRun(r wire.Run, outputs map[string]any, nodes []nodeView, now time.Time) {
	w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	row := func(k, v string) { fmt.Fprintf(w, "%s\t%s\n", k, v) }
	row("run", r.ID)
	row("name", r.Namespace+"/"+r.Name)
	row("phase", phaseText(r))
	if r.Message != "" {
		row("message", r.Message)
	}
	by := r.By
	if r.Schedule != "" {
		by += ", by the schedule " + r.Schedule
	}
	row("started", day(r.Created)+" by "+by)
	if r.Done() {
		row("took", took(r))
	} else {
		row("since", roughly(now.Sub(r.Created)))
	}
	c := r.Tasks
	row("tasks", fmt.Sprintf("%d of %d done: %d succeeded, %d failed, %d skipped, %d canceled; %d running, %s", c.Done(), c.Total, c.Succeeded, c.Failed, c.Skipped, c.Canceled, c.Active, count(c.Retries, "retry", "retries")))
	if r.LogsKept > 0 {
		row("logs", "gone: they were kept for "+r.LogsKept.String())
	}
	if len(r.Isolation) > 0 {
		var out []string
		for _, k := range slices.Sorted(maps.Keys(r.Isolation)) {
			out = append(out, fmt.Sprintf("%s (%d)", k, r.Isolation[k]))
		}
		row("isolation", strings.Join(out, ", "))
	}
	for _, kind := range slices.Sorted(maps.Keys(outputs)) {
		values, ok := outputs[kind].(map[string]any)
		if !ok {
			values = map[string]any{kind: outputs[kind]}
		}
		for _, k := range slices.Sorted(maps.Keys(values)) {
			row("output "+k, brief(valueText(values[k])))
		}
	}
	_ = w.Flush()
	if len(nodes) == 0 {
		return
	}
	fmt.Fprintln(a.stdout)
	w = tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tNAME\tPHASE\tTOOK\tWHAT")
	var show func(list []nodeView, indent string)
	show = func(list []nodeView, indent string) {
		for _, n := range list {
			fmt.Fprintf(w, "%s\t%s%s\t%s\t%s\t%s\n", dash(n.ID), indent, brief(n.Name), n.Phase, nodeTook(n.RunNode), brief(nodeText(n.RunNode)))
			show(n.Below, indent+"  ")
		}
	}
	show(nodes, "")
	_ = w.Flush()
}

func nodeTook(n wire.RunNode) string {
	if n.Started.IsZero() || n.Ended.IsZero() {
		return "-"
	}
	return roughly(n.Ended.Sub(n.Started))
}

// valueText is an output in a line.
func valueText(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}

// nodeText is what there is to say of a node.
func nodeText(n wire.RunNode) string {
	var out []string
	if i := n.Items; i != nil {
		out = append(out, fmt.Sprintf("%d of %d done", i.Done(), i.Total))
		if i.Failed > 0 {
			out = append(out, fmt.Sprintf("%d failed", i.Failed))
		}
		if i.Canceled > 0 {
			out = append(out, fmt.Sprintf("%d canceled", i.Canceled))
		}
	}
	if n.Attempt > 1 {
		out = append(out, fmt.Sprintf("attempt %d", n.Attempt))
	}
	switch {
	case n.Kind == "suspend" && n.Waits != "":
		out = append(out, "waits "+n.Waits) // to be resumed
	case n.Waits != "":
		out = append(out, "waits for "+n.Waits)
	}
	if n.Worker != "" && n.Ended.IsZero() {
		out = append(out, "at "+n.Worker)
	}
	if n.Message != "" {
		out = append(out, n.Message)
	}
	return strings.Join(out, ", ")
}

// brief is text of a user's, for a table.
func brief(s string) string { return cut(oneLine(s), 100) }

// failures prints tasks that failed, and what they printed last, to stderr.
func (a *app) failures(ctx context.Context, cl *client.Client, id string) error {
	var failed []wire.RunNode
	if err := failedTasks(ctx, cl, id, "", 0, &failed); err != nil {
		return err
	}
	more := len(failed) > maxFailures
	for _, n := range failed[:min(len(failed), maxFailures)] {
		fmt.Fprintf(a.stderr, "\n%s %s %s: %s\n", n.Phase, n.ID, brief(n.Name), brief(n.Message))
		err := cl.Logs(ctx, id, client.LogQuery{Task: n.ID, Tail: lastLines}, func(l wire.LogLine) error {
			text := l.Text
			if l.Bytes != nil {
				text = strings.ToValidUTF8(string(l.Bytes), "�")
			}
			fmt.Fprintf(a.stderr, "    %s\n", cut(oneLine(text), 300))
			return nil
		})
		if p, ok := errors.AsType[*wire.Problem](err); err != nil && (!ok || p.Status != http.StatusNotFound) {
			return err
		}
	}
	if more {
		fmt.Fprintf(a.stderr, "\n… and more that failed\n")
	}
	if len(failed) > 0 {
		fmt.Fprintln(a.stderr)
	}
	return nil
}

// failedTasks finds tasks that failed, one more than are shown at most.
func failedTasks(ctx context.Context, cl *client.Client, id, parent string, depth int, out *[]wire.RunNode) error {
	page, err := cl.Nodes(ctx, id, client.NodeQuery{Parent: parent, Phases: []string{"failed", "error"}, Limit: maxFailures + 1})
	if err != nil {
		return err
	}
	for _, n := range page.Nodes {
		switch {
		case len(*out) > maxFailures:
			return nil
		case n.Children && n.Kind != "task" && depth < maxDepth:
			before := len(*out)
			if err := failedTasks(ctx, cl, id, n.ID, depth+1, out); err != nil {
				return err
			}
			if len(*out) > before {
				continue // what is below says it
			}
			fallthrough
		default:
			*out = append(*out, n)
		}
	}
	return nil
}
