package controller

import (
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
)

// What is written of a run's progress grows with the logarithm of its time; its
// phase is told within a second, however old it is.
func TestPace(t *testing.T) {
	fake := clock.NewFake(time.Unix(0, 0))
	c := &Controller{d: Deps{Clock: fake}}
	rec := &record{}
	if d := c.wait(rec, true); d != 0 {
		t.Errorf("the first time is %v away", d)
	}
	fake.Advance(time.Second)
	begin := fake.Mono()
	rec.written, rec.since = begin, begin
	writes := 0
	for fake.Mono()-begin < time.Hour {
		if c.wait(rec, true) == 0 {
			rec.written = fake.Mono()
			writes++
		}
		if d := c.wait(rec, false); d > time.Second {
			t.Fatalf("a change of phase waits for %v", d)
		}
		fake.Advance(500 * time.Millisecond)
	}
	if writes < 10 || writes > 35 {
		t.Errorf("%d writes in an hour", writes)
	}
}

// The end of a run is written at its turn and not before, however often it is
// looked at; that a run goes on is not written while ends wait.
func TestTurns(t *testing.T) {
	fake := clock.NewFake(time.Unix(0, 0))
	fake.Advance(time.Second)
	c := &Controller{d: Deps{Clock: fake}, brake: brake{every: time.Second, burst: 2}}
	var ends [4]record
	for i, want := range []time.Duration{0, 0, time.Second, 2 * time.Second} {
		if d := c.queued(&ends[i], true); d != want {
			t.Errorf("end %d waits for %v, want %v", i, d, want)
		}
	}
	if d := c.queued(&record{}, false); d <= 2*time.Second {
		t.Errorf("what is no end waits for %v, with two ends before it", d)
	}
	for range 2 {
		if d := c.wait(&ends[3], false); d != 2*time.Second {
			t.Errorf("the last end is %v away, want 2s", d)
		}
	}
	fake.Advance(2 * time.Second)
	if d := c.wait(&ends[3], false); d != 0 {
		t.Errorf("its turn has come, and it waits for %v", d)
	}
	if d := c.queued(&ends[3], true); d != 0 {
		t.Errorf("its turn has come, and another one is taken, after %v", d)
	}
}
