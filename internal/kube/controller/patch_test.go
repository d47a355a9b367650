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
