package dispatch

import (
	"fmt"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
)

// idle is a server that nobody asks.
type idle struct{ Server }

// Where tasks run is remembered of as many as are shown, and for as long as
// somebody may still show them.
func TestPlaces(t *testing.T) {
	c := clock.NewFake(time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC))
	d, err := New(Config{Cluster: "prod", Secret: make([]byte, 32)}, Deps{Server: idle{}, Clock: c})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 * maxPlaces {
		d.place("r1", fmt.Sprint(i), "a")
	}
	d.place("r1", "0", "b") // it was lost, and is run again
	for task, want := range map[string]string{"0": "b", fmt.Sprint(maxPlaces - 1): "a", fmt.Sprint(maxPlaces): "", "none": ""} {
		if got := d.Place("r1", task); got != want {
			t.Errorf("task %s was in %q, want %q", task, got, want)
		}
	}
	for _, run := range []string{"r1", "r2"} {
		d.room(run, "data")
		d.Ended(run)
		if run == "r1" {
			if d.Place("r1", "0") == "" {
				t.Error("its run has just ended, and it is forgotten")
			}
			c.Advance(time.Hour)
		}
	}
	if len(d.places) > 0 {
		t.Errorf("an hour after its end there is %d of a run", len(d.places))
	}
}
