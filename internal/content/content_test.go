package content_test

import (
	"testing"

	"cairn.dev/cairn/internal/content/contenttest"
)

// ways are the two ways in which bytes and rows become durable.
var ways = map[string]contenttest.OpenFaulty{
	"one flush": func(t testing.TB, dir string, fault func() error) contenttest.Place {
		return openDisk(t, dir, fault, true)
	},
	"two syncs": func(t testing.TB, dir string, fault func() error) contenttest.Place {
		return openDisk(t, dir, fault, false)
	},
}

func well(open contenttest.OpenFaulty) contenttest.Open {
	return func(t testing.TB, dir string) contenttest.Place { return open(t, dir, func() error { return nil }) }
}

func TestSuite(t *testing.T) {
	for name, open := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of the time is the disk's
			contenttest.Run(t, well(open))
		})
	}
}

// TestSoak is short; with CAIRN_SOAK in the environment it is long.
func TestSoak(t *testing.T) {
	images := 25
	if contenttest.Long() {
		images = 500
	}
	contenttest.Soak(t, well(ways["one flush"]), images)
}

func TestCrash(t *testing.T) {
	for name, open := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			contenttest.Crash(t, open)
		})
	}
}

func TestUnflushed(t *testing.T) { contenttest.Unflushed(t, well(ways["one flush"])) }
