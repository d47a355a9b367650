package controller

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/work/machine"
)

// Bounds of what a status says: with all of them reached it stays below
// [MaxStatus].
const (
	maxSamples = 20
	maxMessage = 1000
	maxSample  = 200
)

// phases of an object that are not those of runs.
const (
	phaseRefused   = "Refused"
	phaseSuspended = "Suspended"
	phaseError     = "Error"
)

// sample is a task that failed.
type sample struct {
	task, name, message string
	exit                int
}

// picture is everything that the status of an object tells.
type picture struct {
	generation int64
	spec       string // fingerprint of that which was looked at
	now        time.Time

	refused string // why; "" when it was accepted
	changed bool   // the spec is not that of the run
	run     work.Info
	waits   string // what keeps its pods from starting; "" for nothing
	lost    bool   // the server knows no such run
	link    string
	samples []sample
}

// ended reports whether nothing more is to come.
func (p picture) ended() bool { return p.lost || p.refused == "" && p.run.Phase.Ended() }

// phase is the run in one word.
func (p picture) phase() string {
	switch {
	case p.refused != "":
		return phaseRefused
	case p.lost || p.run.Phase == machine.Errored:
		return phaseError
	case !p.run.Phase.Ended() && p.run.Suspended:
		return phaseSuspended
	}
	name := p.run.Phase.String()
	return strings.ToUpper(name[:1]) + name[1:]
}

func (p picture) message() string {
	switch {
	case p.refused != "":
		return p.refused
	case p.lost:
		return lostMessage
	}
	return cmp.Or(p.run.Message, p.waits)
}

const lostMessage = "the server does not know this run any more: delete the object and apply it again to run it"

// progress is n/m, of tasks that are known.
func (p picture) progress() string {
	return strconv.Itoa(p.run.Counts.Done()) + "/" + strconv.Itoa(p.run.Counts.Total)
}

// runStatus is the status of a Workflow of ours. old is the one that is there:
// conditions keep the time since when they are what they are.
func runStatus(p picture, old map[string]any) map[string]any {
	out := map[string]any{"phase": p.phase(), "observedGeneration": p.generation}
	put(out, "message", cut(p.message(), maxMessage))
	put(out, "observedSpec", p.spec)
	cs := conditionsOf(old, p.now, p.generation)
	if p.refused != "" {
		cs.set("Accepted", false, "Refused", cut(p.refused, 2*maxMessage))
		out["conditions"] = cs.list
		return out
	}
	cs.set("Accepted", true, "Accepted", "the run was taken")
	put(out, "run", p.run.ID)
	if p.lost {
		cs.set("Running", false, "Lost", lostMessage)
		cs.set("Succeeded", false, "Lost", lostMessage)
		cs.set("Failed", true, "Lost", lostMessage)
		out["conditions"] = cs.list
		return out
	}
	put(out, "link", p.link)
	put(out, "startedAt", moment(p.run.Created))
	put(out, "finishedAt", moment(p.run.Ended))
	out["progress"] = p.progress()
	n := p.run.Counts
	out["counts"] = map[string]any{"total": int64(n.Total), "active": int64(n.Active), "succeeded": int64(n.Succeeded), "failed": int64(n.Failed), "skipped": int64(n.Skipped), "canceled": int64(n.Canceled), "retries": int64(n.Retries)}
	if len(p.samples) > 0 {
		var list []any
		for _, s := range p.samples[:min(len(p.samples), maxSamples)] {
			e := map[string]any{"task": s.task, "name": cut(s.name, 80), "exitCode": int64(s.exit)}
			put(e, "message", cut(s.message, maxSample))
			list = append(list, e)
		}
		out["failed"] = list
	}
	reason, message := p.phase(), cut(p.message(), maxMessage)
	cs.set("Running", !p.ended(), reason, message)
	if p.ended() {
		good := p.run.Phase == machine.Succeeded
		cs.set("Succeeded", good, reason, message)
		cs.set("Failed", !good, reason, message)
	} else {
		// A run that is retried has not failed any more.
		cs.drop("Succeeded")
		cs.drop("Failed")
	}
	if p.changed {
		cs.set("Changed", true, "SpecChanged", "the run is that of an earlier spec: what was changed since has no effect; delete the object and apply it again")
	} else {
		cs.drop("Changed")
	}
	out["conditions"] = cs.list
	return out
}

// put leaves out what is not there.
func put(m map[string]any, key string, v any) {
	if v != nil && v != "" {
		m[key] = v
	}
}

// conditions are those of an object, in the order in which they came.
type conditions struct {
	list       []any
	now        time.Time
	generation int64
}

func conditionsOf(status map[string]any, now time.Time, generation int64) *conditions {
	c := &conditions{now: now, generation: generation, list: []any{}}
	old, _ := status["conditions"].([]any)
	for _, e := range old {
		if m, ok := e.(map[string]any); ok {
			c.list = append(c.list, m)
		}
	}
	return c
}

func (c *conditions) find(kind string) (int, map[string]any) {
	for i, e := range c.list {
		if m, ok := e.(map[string]any); ok && m["type"] == kind {
			return i, m
		}
	}
	return -1, nil
}

// set makes a condition true or false. Since when it is is kept while it stays.
func (c *conditions) set(kind string, on bool, reason, message string) {
	status := "False"
	if on {
		status = "True"
	}
	since := c.now.UTC().Format(time.RFC3339)
	i, old := c.find(kind)
	if old != nil && old["status"] == status {
		if t, ok := old["lastTransitionTime"].(string); ok {
			since = t
		}
	}
	m := map[string]any{"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since, "observedGeneration": c.generation}
	if i < 0 {
		c.list = append(c.list, m)
	} else {
		c.list[i] = m
	}
}

func (c *conditions) drop(kind string) {
	if i, _ := c.find(kind); i >= 0 {
		c.list = append(c.list[:i:i], c.list[i+1:]...)
	}
}

// sampleOf is a node that failed, in few words.
func sampleOf(v machine.View) sample {
	s := sample{task: v.ID, name: v.Name, message: v.Message, exit: v.Exit}
	if s.message == "" && s.exit != 0 {
		s.message = fmt.Sprintf("exit code %d", s.exit)
	}
	return s
}
