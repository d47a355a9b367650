package mirror

import (
	"slices"
	"strings"
)

// Stats of one upstream.
type Stats struct {
	Host     string
	Requests int64 // sent to it, for manifests, tags and blobs
	Failed   int64 // of those: no answer, no use, or a request to be left alone
	Bytes    int64 // of blobs that came
	Asked    bool  // it is asked now; false while it is left alone, or offline
	Waiting  int   // images that are not here in whole
}

// Stats are those of all upstreams, by host.
func (m *Mirror) Stats() []Stats {
	var out []Stats
	waiting := map[string]int{}
	m.pending.mu.Lock()
	for _, w := range m.pending.byKey {
		waiting[w.u.Host]++
	}
	m.pending.mu.Unlock()
	for _, u := range m.byHost {
		requests, failed := u.client.Counts()
		out = append(out, Stats{Host: u.Host, Requests: requests, Failed: failed, Bytes: u.bytes.Load(),
			Asked: !u.Offline && !u.client.Closed(), Waiting: waiting[u.Host]})
	}
	slices.SortFunc(out, func(a, b Stats) int { return strings.Compare(a.Host, b.Host) })
	return out
}
