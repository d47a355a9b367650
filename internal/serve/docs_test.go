package serve_test

import (
	"fmt"
	"net/http"
	"regexp"
	"sort"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/goldentest"
	"cairn.dev/cairn/internal/serve/servetest"
)

const metricsPage = "../../docs/metrics.md"

// docs/metrics.md lists what /metrics shows.
func TestMetricsAreDocumented(t *testing.T) {
	s := servetest.Start(t, nil, func(c *config.Config) { // all that can be shown
		c.Bump.Forges = []config.Forge{{Name: "bare", Kind: "git", URL: "file:///nowhere", Repositories: []string{"team/app"}}}
		c.Mirrors = []config.Mirror{{Host: "docker.io", TTL: config.Duration(time.Minute), MaxBlob: 1 << 30}}
	})
	text := s.Do(t, http.MethodGet, "/metrics", "", nil).Body
	kind := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (cairn_\S+) (\S+)$`).FindAllStringSubmatch(text, -1) {
		kind[m[1]] = m[2]
	}
	help := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^# HELP (cairn_\S+) (.*)$`).FindAllStringSubmatch(text, -1) {
		help[m[1]] = m[2]
	}
	labels := map[string]map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^(cairn_[a-z_]+?)(?:_bucket|_sum|_count)?\{([^}]*)\}`).FindAllStringSubmatch(text, -1) {
		if labels[m[1]] == nil {
			labels[m[1]] = map[string]bool{}
		}
		for _, l := range regexp.MustCompile(`(\w+)="`).FindAllStringSubmatch(m[2], -1) {
			if l[1] != "le" {
				labels[m[1]][l[1]] = true
			}
		}
	}
	var names []string
	for n := range kind {
		names = append(names, n)
	}
	sort.Strings(names)
	if len(names) < 15 {
		t.Fatalf("/metrics shows only %v", names)
	}
	var b strings.Builder
	b.WriteString(`# Metrics

    curl -s http://127.0.0.1:5080/metrics

This page is written by ` + "`go test ./internal/serve -update`" + ` from what ` + "`/metrics`" + ` shows. Beside these there are the usual ones of the Go
runtime (` + "`go_…`" + `) and the process (` + "`process_…`" + `). Counts of images are at most 30 s old.

| metric | type | labels | |
|---|---|---|---|
`)
	for _, n := range names {
		var ls []string
		for l := range labels[n] {
			ls = append(ls, "`"+l+"`")
		}
		sort.Strings(ls)
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", n, kind[n], strings.Join(ls, ", "), help[n])
	}
	goldentest.Check(t, metricsPage, b.String())
}
