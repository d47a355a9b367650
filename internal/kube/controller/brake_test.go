package controller

import (
	"testing"
	"time"
)

// However many ask, no second has more writes than the rate, after those at once.
func TestBrake(t *testing.T) {
	b := brake{every: 20 * time.Millisecond, burst: 50}
	begin := time.Hour
	var last time.Duration
	atOnce := 0
	for i := range 1000 {
		at := b.final(begin)
		if at < last {
			t.Fatalf("the turn of %d is before that of the one before", i)
		}
		if last = at; at == begin {
			atOnce++
		}
	}
	if atOnce != 50 {
		t.Errorf("%d at once, want 50", atOnce)
	}
	if took := last - begin; took < 18*time.Second || took > 20*time.Second {
		t.Errorf("a thousand take %v, want about 19 s", took)
	}
	if d, _ := b.passing(begin + 5*time.Second); d < 10*time.Second {
		t.Errorf("what passes waits for %v while ends are waited for", d)
	}

	// After a rest it is as in the beginning: what passes takes half of what is free.
	rest := begin + time.Minute
	n := 0
	for {
		if d, spread := b.passing(rest); d > 0 {
			if spread != b.every {
				t.Errorf("the one that waits has %v to come back in", spread)
			}
			break
		}
		n++
	}
	if n != 25 {
		t.Errorf("what passes took %d of 50 turns, want 25", n)
	}
	for range 25 {
		if at := b.final(rest); at != rest {
			t.Fatalf("an end waits for %v behind what passes", at-rest)
		}
	}
	if at := b.final(rest); at != rest+20*time.Millisecond {
		t.Errorf("the next turn is after %v", at-rest)
	}
}
