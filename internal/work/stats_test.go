package work_test

import (
	"testing"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/work/machine"
	"cairn.dev/cairn/internal/work/worktest"
)

func TestStats(t *testing.T) {
	r := newRig(t, work.Config{})
	r.submit(worktest.Fan("fan", 3))
	if s := r.s.Stats(); s.Runs != 1 || s.Ready != 1 || s.Active != 0 {
		t.Errorf("%+v", s)
	}
	g := r.ask(task.Ask{Worker: "w", Want: 9})
	if s := r.s.Stats(); s.Active != 3 || s.Ready != 0 || s.Workers != 1 {
		t.Errorf("%+v", s)
	}
	a := task.Ask{Worker: "w"}
	for _, l := range g.Leases {
		a.Outcomes = append(a.Outcomes, task.Outcome{Ref: l.Ref, Phase: task.Succeeded})
	}
	r.ask(a)
	r.ask(a) // too late
	r.settle()
	if s := r.s.Stats(); s.Runs != 0 || s.Active != 0 || s.Ended[machine.Succeeded] != 1 || s.Outcomes[machine.Succeeded] != 3 || s.Refused != 3 || s.Lost != 0 {
		t.Errorf("%+v", s)
	}
}
