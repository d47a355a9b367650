package clock

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.FixedZone("east", 3600))

func TestFakeMovesOnlyWhenTold(t *testing.T) {
	f := NewFake(noon)
	if now := f.Now(); !now.Equal(noon) || now.Location() != time.UTC {
		t.Errorf("it stands at %v, want %v in UTC", now, noon)
	}
	if f.Mono() != 0 {
		t.Errorf("monotonic %v", f.Mono())
	}
	f.Advance(time.Minute)
	if !f.Now().Equal(noon.Add(time.Minute)) || f.Mono() != time.Minute {
		t.Errorf("after a minute: %v, %v", f.Now(), f.Mono())
	}
	f.Jump(-365 * 24 * time.Hour)
	if !f.Now().Equal(noon.Add(time.Minute-365*24*time.Hour)) || f.Mono() != time.Minute {
		t.Errorf("after a jump: %v, %v", f.Now(), f.Mono())
	}
}

func TestFakeAfter(t *testing.T) {
	f := NewFake(noon)
	fired := func(ch <-chan time.Time) bool {
		select {
		case <-ch:
			return true
		default:
			return false
		}
	}
	if !fired(f.After(0)) || !fired(f.After(-time.Second)) {
		t.Error("a time that has come is not delivered at once")
	}
	a, b, c := f.After(time.Second), f.After(2*time.Second), f.After(2*time.Second)
	if f.Waiting() != 3 {
		t.Errorf("%d wait, want 3", f.Waiting())
	}
	f.Jump(time.Hour) // no time passes
	if fired(a) {
		t.Error("a jump of the wall clock woke somebody")
	}
	f.Advance(time.Second - 1)
	if fired(a) {
		t.Error("woken a nanosecond early")
	}
	f.Advance(1)
	if !fired(a) || fired(b) {
		t.Error("after a second: a must be woken, b not")
	}
	f.Advance(time.Hour)
	if !fired(b) || !fired(c) || f.Waiting() != 0 {
		t.Error("after an hour all must be woken")
	}
	if fired(a) || fired(b) {
		t.Error("woken twice")
	}
}

func TestSleep(t *testing.T) {
	f := NewFake(noon)
	done := make(chan error)
	go func() { done <- Sleep(t.Context(), f, time.Second) }()
	for f.Waiting() == 0 {
		runtime.Gosched()
	}
	f.Advance(time.Second)
	if err := <-done; err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- Sleep(ctx, f, time.Second) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestReal(t *testing.T) {
	c := Real()
	before := time.Now()
	now := c.Now()
	if now.Before(before.Round(0)) || now.Location() != time.UTC || now != now.Round(0) {
		t.Errorf("%v is not the wall clock in UTC without a monotonic reading", now)
	}
	a := c.Mono()
	<-c.After(time.Microsecond)
	if b := c.Mono(); a < 0 || b-a < time.Microsecond {
		t.Errorf("monotonic %v, then %v", a, b)
	}
}

func TestFakeIsSafe(t *testing.T) {
	f := NewFake(noon)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				ch := f.After(time.Second)
				f.Now()
				f.Mono()
				f.Jump(1)
				f.Advance(time.Second)
				<-ch
			}
		})
	}
	wg.Wait()
	if f.Mono() != 800*time.Second {
		t.Errorf("monotonic %v", f.Mono())
	}
}
