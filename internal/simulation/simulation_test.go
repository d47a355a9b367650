package simulation

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func soak() bool { return os.Getenv("CAIRN_SOAK") == "1" }

// fail prints a shortest history.
func fail(t *testing.T, l *Lab, ops []Op, err error) {
	t.Helper()
	ops = Shrink(ops, func(ops []Op) bool {
		_, err := l.Run(ops)
		var v *Violation
		return errors.As(err, &v)
	})
	if _, e := l.Run(ops); e != nil {
		err = e
	}
	t.Errorf("after\n%s%v", l.Print(ops), err)
}

// historyLength is how long a random history is: long enough for images to
// expire, be swept and be pushed again several times.
const historyLength = 400

// At least a million random steps keep what must hold.
func TestRandom(t *testing.T) {
	want := int64(1_000_000)
	if testing.Short() {
		want /= 20
	}
	if soak() {
		want *= 20
	}
	start := time.Now()
	var steps, histories, seed atomic.Int64
	var wg sync.WaitGroup
	var once sync.Once
	var mu sync.Mutex
	var seen Tally
	for range 2 {
		wg.Go(func() {
			l := NewLab(0)
			for steps.Load() < want {
				ops, tally, err := l.Random(uint64(seed.Add(1)), historyLength)
				mu.Lock()
				seen.add(tally)
				mu.Unlock()
				steps.Add(int64(len(ops)))
				histories.Add(1)
				if err != nil {
					steps.Store(want)
					once.Do(func() { fail(t, l, ops, err) })
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d steps in %d histories took %s: %+v", steps.Load(), histories.Load(), time.Since(start).Round(time.Millisecond), seen)
	idle(t, seen)
}

// idle fails a test whose histories do not do what they are about.
func idle(t *testing.T, seen Tally) {
	if t.Failed() || testing.Short() {
		return
	}
	const few = 50
	if seen.Expired < few || seen.Revived < few || seen.Deleted < few || seen.Swept < few || seen.Collected < few || seen.Crashes < few || seen.CameBetween < few {
		t.Errorf("too little happened: %+v", seen)
	}
}

// Each mistake that the model can be told to make is found, and its shortest
// history is short: the exploration is able to fail.
func TestBugsAreFound(t *testing.T) {
	for i := range nBugs {
		bug := Bug(1) << i
		t.Run(bug.String(), func(t *testing.T) {
			t.Parallel()
			l := NewLab(bug)
			for seed := uint64(1); seed <= 3000; seed++ {
				ops, _, err := l.Random(seed, historyLength)
				if err == nil {
					continue
				}
				kind := err
				ops = Shrink(ops, func(ops []Op) bool {
					_, err := l.Run(ops)
					var v *Violation
					return errors.As(err, &v)
				})
				_, err = l.Run(ops)
				t.Logf("seed %d; after\n%s%v (was: %v)", seed, l.Print(ops), err, kind)
				if len(ops) > 14 {
					t.Errorf("the shortest history found has %d steps", len(ops))
				}
				if n, err := NewLab(0).Run(ops); err != nil {
					t.Errorf("without the mistake step %d fails as well: %v", n+1, err)
				}
				return
			}
			t.Error("not found")
		})
	}
}
