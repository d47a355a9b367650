package argo

import (
	"slices"
	"strings"
	"time"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/workflow"
	"cairn.dev/cairn/internal/workflow/document"
)

// maxContainers bounds the containers of one pod.
const maxContainers = 64

// set compiles a containerSet: several containers in one pod, of which each
// begins when those that it depends on have ended well. One of them is that of
// the task, and leaves its outputs: main, or the first.
func (c *compiler) set(b *bundle, tmpl *document.Node, t *workflow.Template, p *place) *leaf {
	n := tmpl.Get("containerSet")
	c.check(n, "containerSet")
	all := n.Get("containers").List()
	if len(all) == 0 || len(all) > maxContainers {
		n.Fail("it has %d containers: from 1 to %d can be", len(all), maxContainers)
		return &leaf{image: workflow.Constant{Value: ""}}
	}
	lead, s := 0, &task.Set{}
	names := map[string]bool{}
	needs := make([][]string, len(all))
	for i, e := range all {
		name := e.Get("name").Text()
		if name == "" || names[name] || strings.Contains(name, "{{") {
			e.Fail("the container has no name of its own")
		}
		names[name] = true
		needs[i] = e.Get("dependencies").Texts()
		if name == "main" {
			lead = i
		}
	}
	for i, e := range all {
		for _, d := range needs[i] {
			if !names[d] {
				e.Get("dependencies").Fail("there is no container %q%s", d, document.Meant(d, slices.Collect(keys(names))))
			}
		}
	}
	if name := ring(all, needs); name != "" {
		n.Fail("container %q depends on itself", name)
	}
	if !names["main"] && len(tmpl.Get("outputs").Entries()) > 0 {
		tmpl.Get("outputs").FailKey("outputs are those of a container named main, and there is none")
	}
	// What is mounted in all of them is mounted in each.
	each := n.Without("containers").Without("retryStrategy")
	full := func(i int) *document.Node { return document.Merge(each, all[i].Without("dependencies"), byName) }
	l := c.program(b, tmpl, full(lead), t, p, "container")
	s.Name, s.Needs = all[lead].Get("name").Text(), needs[lead]
	var beside []workflow.Expr
	for i := range all {
		if i == lead {
			continue
		}
		m := full(i)
		c.check(m, "container")
		image := c.textOf(m.Get("image"), p)
		if image == nil {
			all[i].Fail("there is no image")
			continue
		}
		if k, ok := image.(workflow.Constant); ok {
			if err := workflow.CheckImage(k.String()); err != nil {
				m.Get("image").Fail("%v", err)
			}
			l.images = append(l.images, k.String())
		}
		e, err := p.tree(m)
		if err != nil {
			m.Fail("%v", err)
			continue
		}
		beside = append(beside, e)
		s.Members = append(s.Members, task.Member{Name: m.Get("name").Text(), Needs: needs[i]})
	}
	if r := n.Get("retryStrategy"); r != nil {
		c.check(r, "setRetry")
		if x := r.Get("retries"); x != nil {
			s.Retries = int(x.Int(0, 1000))
		}
		s.Delay = min(r.Get("duration").Duration(), 24*time.Hour)
	}
	l.base.Set, l.base.Isolation = s, "pod"
	if c.opts.Cluster && len(beside) > 0 {
		if l.pod == nil {
			l.pod = map[string]workflow.Expr{}
		}
		l.pod["containerSet"] = tree{fields: map[string]workflow.Expr{"containers": tree{list: beside}}}
	}
	return l
}

// ring is a container that waits for itself, or "".
func ring(all []*document.Node, needs [][]string) string {
	ended := map[string]bool{}
	for range all {
		for i, e := range all {
			if !slices.ContainsFunc(needs[i], func(d string) bool { return !ended[d] }) {
				ended[e.Get("name").Text()] = true
			}
		}
	}
	for _, e := range all {
		if name := e.Get("name").Text(); !ended[name] {
			return name
		}
	}
	return ""
}
