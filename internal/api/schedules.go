package api

import (
	"cmp"
	"context"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"cairn.dev/cairn/internal/access"
	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/workflow"
	"cairn.dev/cairn/internal/workflow/front"
)

// Schedules start runs by the clock.
type Schedules interface {
	PutSchedule(ctx context.Context, x *workflow.Schedule, by, pool string) error
	Schedules() []work.ScheduleInfo
	SuspendSchedule(ctx context.Context, namespace, name string, on bool) error
	DeleteSchedule(ctx context.Context, namespace, name string) error
}

func (a *API) scheduleRoutes() {
	huma.Register(a.huma, op("list-schedules", http.MethodGet, "/api/v1/schedules", "runs", "List schedules"), a.listSchedules)
	huma.Register(a.huma, op("put-schedule", http.MethodPut, "/api/v1/schedules", "runs", "Store a schedule, from a CronWorkflow, in place of one of its name", 400, 422), a.putSchedule)
	one := "/api/v1/schedules/{namespace}/{name}"
	huma.Register(a.huma, op("suspend-schedule", http.MethodPost, one+"/suspend", "runs", "Start no more runs of a schedule", 404), a.suspendSchedule)
	huma.Register(a.huma, op("resume-schedule", http.MethodPost, one+"/resume", "runs", "Start runs of a schedule again; times that passed are not made up for", 404), a.resumeSchedule)
	huma.Register(a.huma, op("delete-schedule", http.MethodDelete, one, "runs", "Forget a schedule; runs that it began go on", 404), a.deleteSchedule)
}

type schedulesInput struct {
	Namespace string `query:"namespace" maxLength:"253" doc:"only of this namespace"`
}

func (a *API) listSchedules(ctx context.Context, in *schedulesInput) (*output[wire.ScheduleList], error) {
	if err := a.mayRunAny(ctx); err != nil {
		return nil, err
	}
	c := callerOf(ctx)
	out := wire.ScheduleList{Schedules: []wire.Schedule{}}
	for _, s := range a.Work.Schedules() {
		if c.Can(access.Run, s.Namespace) && (in.Namespace == "" || in.Namespace == s.Namespace) {
			out.Schedules = append(out.Schedules, scheduleOf(s))
		}
	}
	return &output[wire.ScheduleList]{out}, nil
}

type putScheduleInput struct {
	Pool string `query:"pool" maxLength:"200" doc:"the workers that run its tasks"`
	Body wire.Document
}

func (a *API) putSchedule(ctx context.Context, in *putScheduleInput) (*output[wire.Schedule], error) {
	if err := a.mayRunAny(ctx); err != nil {
		return nil, err
	}
	d := in.Body
	if d.Name == "" {
		d.Name = "request"
	}
	x, problems := front.CompileSchedule(d.Name, []byte(d.Text), a.frontOptions(ctx, "", in.Pool))
	if len(problems) > 0 {
		return nil, documentProblem(d.Name, problems)
	}
	namespace := cmp.Or(x.Namespace, defaultNamespace)
	if err := a.mayRun(ctx, namespace); err != nil {
		return nil, err
	}
	if err := a.Work.PutSchedule(ctx, x, actor(ctx), in.Pool); err != nil {
		return nil, a.runProblem(err, "store the schedule "+x.Name)
	}
	return a.schedule(namespace, x.Name)
}

// schedule is one that was there a moment ago.
func (a *API) schedule(namespace, name string) (*output[wire.Schedule], error) {
	all := a.Work.Schedules()
	i := slices.IndexFunc(all, func(s work.ScheduleInfo) bool { return s.Namespace == namespace && s.Name == name })
	if i < 0 {
		return nil, refuse(http.StatusNotFound, "`cairn schedules ls` lists them", "there is no schedule %s/%s", namespace, name)
	}
	return &output[wire.Schedule]{scheduleOf(all[i])}, nil
}

type scheduleInput struct {
	Namespace string `path:"namespace" maxLength:"253"`
	Name      string `path:"name" maxLength:"253"`
}

func (a *API) suspendSchedule(ctx context.Context, in *scheduleInput) (*output[wire.Schedule], error) {
	return a.setSchedule(ctx, in, "suspend", func() error { return a.Work.SuspendSchedule(ctx, in.Namespace, in.Name, true) })
}

func (a *API) resumeSchedule(ctx context.Context, in *scheduleInput) (*output[wire.Schedule], error) {
	return a.setSchedule(ctx, in, "resume", func() error { return a.Work.SuspendSchedule(ctx, in.Namespace, in.Name, false) })
}

func (a *API) setSchedule(ctx context.Context, in *scheduleInput, verb string, f func() error) (*output[wire.Schedule], error) {
	if err := a.mayRun(ctx, in.Namespace); err != nil {
		return nil, err
	}
	if err := f(); err != nil {
		return nil, a.runProblem(err, verb+" the schedule "+in.Namespace+"/"+in.Name)
	}
	return a.schedule(in.Namespace, in.Name)
}

func (a *API) deleteSchedule(ctx context.Context, in *scheduleInput) (*struct{}, error) {
	if err := a.mayRun(ctx, in.Namespace); err != nil {
		return nil, err
	}
	if err := a.Work.DeleteSchedule(ctx, in.Namespace, in.Name); err != nil {
		return nil, a.runProblem(err, "forget the schedule "+in.Namespace+"/"+in.Name)
	}
	return nil, nil
}

func scheduleOf(s work.ScheduleInfo) wire.Schedule {
	return wire.Schedule{Namespace: s.Namespace, Name: s.Name, By: s.By, Pool: s.Pool, Crons: s.Crons, Timezone: s.Timezone, Suspended: s.Suspended,
		Created: s.Created, Last: s.Last, Next: s.Next, Trouble: s.Trouble}
}
