package serve

import (
	"testing"
	"time"

	"cairn.dev/cairn/internal/config"
)

// What a crash may make the ledger forget stays small against the shortest
// time that anything is kept.
func TestGranularity(t *testing.T) {
	hour := config.Duration(time.Hour)
	for _, tc := range []struct {
		name     string
		policies []config.Policy
		want     time.Duration
	}{
		{"none", nil, time.Hour},
		{"long", []config.Policy{{After: 30 * config.Day}}, time.Hour},
		{"short", []config.Policy{{After: 30 * config.Day}, {After: 5 * hour}}, 30 * time.Minute},
		{"untagged", []config.Policy{{After: 30 * config.Day, UntaggedAfter: hour}}, 6 * time.Minute},
		{"never by age", []config.Policy{{After: 0}}, time.Hour},
		{"absurd", []config.Policy{{After: 1}}, time.Millisecond},
	} {
		s := &Server{cfg: Config{Config: *config.Default()}}
		s.cfg.Retention.Policies = tc.policies
		if got := s.granularity(); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}
