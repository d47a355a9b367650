package upstream

import (
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/outbound"
)

// A registry that there is not is not asked again, and whoever wanted something
// of it can tell.
func TestNoSuchHost(t *testing.T) {
	host := strings.Repeat("a", 64) + ".example" // a label that no name may have
	c, err := New(Config{Host: host, Clock: clock.NewFake(time.Unix(0, 0)), Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time nobody asks
		resp, e := c.Ask(t.Context(), Question{Method: http.MethodGet, Repository: "a", What: "tags/list"})
		if resp != nil || e == nil || e.Kind != Unreachable || !outbound.Never(e) || !strings.Contains(e.Why, host) {
			t.Errorf("%+v", e)
		}
	}
	down := Unreachablef("h", "is down")
	down.Cause = &net.DNSError{Name: "h", IsTemporary: true}
	if outbound.Never(down) || outbound.Never(Unreachablef("h", "is down")) {
		t.Error("a registry that is down today is gone for good")
	}
}
