package api_test

import (
	"bytes"
	"fmt"
	"net/http"
	"testing"

	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/serve/servetest"
)

// BenchmarkReportUses is one statement of a hundred containers in full, over
// HTTP, client included, of ten thousand reporters in turn.
func BenchmarkReportUses(b *testing.B) {
	s := servetest.Start(b, nil, func(c *config.Config) { c.Log.Level = "info" })
	h := http.Header{"Content-Type": {"application/json"}}
	n := 0
	for b.Loop() {
		var body bytes.Buffer
		r := n % 10_000
		fmt.Fprintf(&body, `{"reporter": "host-%d", "period": "60s", "complete": true, "statement": "s%d", "uses": [`, r, n)
		for k := range 100 {
			if k > 0 {
				body.WriteByte(',')
			}
			fmt.Fprintf(&body, `{"digest": "sha256:%064x", "repository": "app/web-%d", "source": "container", "subject": "host-%d/web-%d"}`, k*7+r%50, k%20, r, k)
		}
		body.WriteString("]}")
		if a := s.Send(b, http.MethodPost, "/api/v1/uses", h, body.Bytes()); a.Status != http.StatusOK {
			b.Fatalf("%d %s", a.Status, a.Body)
		}
		n++
	}
}
