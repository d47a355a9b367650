package argo

import (
	"strings"

	"cairn.dev/cairn/internal/workflow"
	"cairn.dev/cairn/internal/workflow/document"
)

// schedule compiles a CronWorkflow.
func (c *compiler) schedule(o *object) *workflow.Schedule {
	g := c.graph(o, o.spec)
	spec := o.spec
	s := &workflow.Schedule{Name: o.name, Namespace: o.namespace, Overlap: "allow", Suspend: spec.Get("suspend").Bool(), KeepGood: 3, KeepBad: 1, Graph: g}
	crons := spec.Get("schedules").List()
	if n := spec.Get("schedule"); n != nil {
		crons = append(crons, n)
	}
	if len(crons) == 0 {
		spec.Fail("there are no schedules")
	}
	for _, n := range crons {
		cron := strings.TrimSpace(n.Text())
		// A zone may stand before the times themselves.
		if zone, rest, ok := strings.Cut(cron, " "); ok && (strings.HasPrefix(zone, "CRON_TZ=") || strings.HasPrefix(zone, "TZ=")) {
			_, s.Timezone, _ = strings.Cut(zone, "=")
			cron = rest
			if len(crons) > 1 {
				n.Fail("one time zone counts for all schedules: write it in timezone")
			}
		}
		if err := workflow.CheckCron(cron); err != nil {
			n.Fail("%v", err)
		}
		s.Crons = append(s.Crons, cron)
	}
	if n := spec.Get("timezone"); n != nil {
		s.Timezone = n.Text()
		if err := workflow.CheckZone(s.Timezone); err != nil {
			n.Fail("%v", err)
		}
	}
	if n := spec.Get("concurrencyPolicy"); n != nil {
		s.Overlap = strings.ToLower(n.Text())
		if s.Overlap != "allow" && s.Overlap != "forbid" && s.Overlap != "replace" {
			n.Fail("%.40q: this has to be one of Allow, Forbid, Replace%s", n.Text(), document.Meant(n.Text(), []string{"Allow", "Forbid", "Replace"}))
		}
	}
	s.Late = spec.Get("startingDeadlineSeconds").Duration()
	if n := spec.Get("successfulJobsHistoryLimit"); n != nil {
		s.KeepGood = int(n.Int(0, 10_000))
	}
	if n := spec.Get("failedJobsHistoryLimit"); n != nil {
		s.KeepBad = int(n.Int(0, 10_000))
	}
	p := &place{cron: true, params: c.params}
	if n := spec.Get("when"); n != nil {
		s.When = c.condition(n, p)
	}
	stop := spec.Get("stopStrategy")
	c.check(stop, "stopStrategy")
	for _, k := range []string{"expression", "condition"} {
		if n := stop.Get(k); n != nil {
			s.StopWhen = c.condition(n, p)
		}
	}
	s.Documents = c.documents()
	return s
}
