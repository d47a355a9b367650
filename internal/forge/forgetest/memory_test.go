package forgetest_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/forge/forgetest"
)

func TestMemory(t *testing.T) {
	m := forgetest.NewMemory(clock.NewFake(time.Unix(1_790_000_000, 0)), "cairn-bot")
	forgetest.Run(t, m.Site(m))
}

func TestMemoryFaults(t *testing.T) {
	m := forgetest.NewMemory(clock.NewFake(time.Unix(1_790_000_000, 0)), "cairn-bot")
	head := m.AddRepository("team/app", map[string]string{"main.tf": "1"})
	c := forge.Commit{Branch: "b", Parent: head, Message: "m", Files: map[string][]byte{"main.tf": []byte("2")}}
	boom := errors.New("boom")
	for _, late := range []bool{false, true} {
		m.Fail(func(forgetest.Call) *forgetest.Fault { return &forgetest.Fault{Err: boom, Late: late} })
		c.Branch = fmt.Sprint("late-", late)
		if _, err := m.Commit(t.Context(), "team/app", c); !errors.Is(err, boom) {
			t.Errorf("late %v: %v", late, err)
		}
		if _, made := m.Branches("team/app")[c.Branch]; made != late {
			t.Errorf("late %v: made %v", late, made)
		}
	}
	m.Fail(func(call forgetest.Call) *forgetest.Fault {
		if call.Name != "Commit" {
			return nil
		}
		return &forgetest.Fault{Do: func() { m.Push("team/app", "quick", map[string]string{"main.tf": "3"}) }}
	})
	c.Branch = "quick"
	if _, err := m.Commit(t.Context(), "team/app", c); !errors.Is(err, forge.ErrMoved) {
		t.Errorf("somebody was quicker: %v", err)
	}
}
