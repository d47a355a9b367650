package serve

import (
	"path/filepath"
	"testing"
	"time"
)

// A process that follows another within a minute is told apart from one that
// does not, wherever the clock was set meanwhile.
func TestRestless(t *testing.T) {
	note := filepath.Join(t.TempDir(), "began")
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	for _, s := range []struct {
		after time.Duration
		want  bool
	}{{0, false}, {10 * time.Second, true}, {59 * time.Second, true}, {61 * time.Second, false}, {-time.Hour, true}, {2 * time.Hour, false}} {
		now = now.Add(s.after)
		if got := restless(note, now); got != s.want {
			t.Errorf("%v later: %v, want %v", s.after, got, s.want)
		}
	}
	if restless(filepath.Join(note, "nowhere"), now) {
		t.Error("without a note it is restless")
	}
}
