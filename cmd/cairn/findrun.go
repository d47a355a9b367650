package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/client"
)

// runIDRE is how the server calls runs. A name may look the same.
var runIDRE = regexp.MustCompile(`^[0-9a-v]{24}$`)

// newestRun finds a run to look at: the one with the ID, else the newest of the
// name, [NAMESPACE/]NAME. It says which where there is more than one.
func (a *app) newestRun(ctx context.Context, name string) (cl *client.Client, id string, err error) {
	if cl, err = a.client(); err != nil {
		return nil, "", err
	}
	runs, more, err := findRuns(ctx, cl, name, "")
	if err != nil {
		return nil, "", err
	}
	if len(runs) > 1 {
		n := fmt.Sprint(len(runs))
		if more {
			n = "many"
		}
		fmt.Fprintf(a.stderr, "note: %s is the newest of %s runs that are called %s\n", runs[0].ID, n, name)
	}
	return cl, runs[0].ID, nil
}

// onlyRun finds a run to change, in the phase: the one with the ID, else the
// only one of the name. What it is done to is not guessed.
func (a *app) onlyRun(ctx context.Context, cl *client.Client, name, phase string) (string, error) {
	runs, more, err := findRuns(ctx, cl, name, phase)
	if err != nil {
		return "", err
	}
	if len(runs) == 1 {
		return runs[0].ID, nil
	}
	var list []string
	for _, r := range runs {
		list = append(list, fmt.Sprintf("%s (%s, %s)", r.ID, r.Phase, day(r.Created)))
	}
	if more {
		list = append(list, "…")
	}
	return "", &hinted{fmt.Errorf("several runs are called %s: %s", name, strings.Join(list, ", ")), "name one by its ID"}
}

// findRuns are the runs that a name may mean, newest first and at least one:
// the one with that ID, else some of that name, those in the phase if there are
// any, and whether there are more.
func findRuns(ctx context.Context, cl *client.Client, name, phase string) (runs []wire.Run, more bool, err error) {
	if runIDRE.MatchString(name) {
		r, err := cl.Run(ctx, name)
		if err == nil {
			return []wire.Run{r}, false, nil
		}
		if p, ok := errors.AsType[*wire.Problem](err); !ok || p.Status != http.StatusNotFound {
			return nil, false, err
		}
	}
	q := client.RunQuery{Name: name, Phase: phase, Limit: 5}
	if namespace, rest, ok := strings.Cut(name, "/"); ok {
		q.Namespace, q.Name = namespace, rest
	}
	list, err := cl.Runs(ctx, q)
	if err == nil && len(list.Runs) == 0 && phase != "" {
		q.Phase, q.Limit = "", 1 // the server says why that cannot be done to it
		list, err = cl.Runs(ctx, q)
		list.Next = ""
	}
	if err == nil && len(list.Runs) == 0 {
		err = &wire.Problem{Status: http.StatusNotFound, Detail: fmt.Sprintf("there is no run %s, by its ID or its name", name), Hint: "`cairn runs ls` lists the runs there are"}
	}
	return list.Runs, list.Next != "", err
}
