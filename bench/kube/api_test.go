package main

import (
	"maps"
	"testing"
)

func TestWritesOfMetrics(t *testing.T) {
	const head = "# TYPE apiserver_request_total counter\n"
	line := func(verb, resource, sub, n string) string {
		return `apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="` + resource + `",scope="resource",subresource="` + sub + `",verb="` + verb + `",version="v1"} ` + n + "\n"
	}
	before, err := parseWrites(head + line("POST", "pods", "", "3") + line("GET", "pods", "", "7"))
	if err != nil {
		t.Fatal(err)
	}
	after, err := parseWrites(head + line("POST", "pods", "", "5") + line("POST", "pods", "binding", "2") + line("PUT", "leases", "", "9") +
		line("PATCH", "nodes", "status", "4") + line("LIST", "pods", "", "8") + line("DELETE", "jobs", "", "1e+00"))
	if err != nil {
		t.Fatal(err)
	}
	got := after.since(before)
	if want := (writes{"POST pods": 2, "POST pods/binding": 2, "DELETE jobs": 1}); !maps.Equal(got, want) {
		t.Errorf("writes %v, want %v", got, want)
	}
	if got.total() != 5 {
		t.Errorf("%d in all, want 5", got.total())
	}
	if _, err := parseWrites("other 1\n"); err == nil {
		t.Error("metrics without requests are taken for none made")
	}
	if _, err := parseWrites(head + line("POST", "pods", "", "x")); err == nil {
		t.Error("a count that is no number is taken")
	}
}

func TestRowsSayWhatWasMissed(t *testing.T) {
	for _, x := range []struct {
		row  row
		want string
	}{
		{row{"a", "1", "≤ 2", true, "so"}, "| a | 1 | ≤ 2 | met | so |\n"},
		{row{"a", "3", "≤ 2", false, "so"}, "| a | 3 | ≤ 2 | **missed** | so |\n"},
		{row{"a", "3", "", false, "so"}, "| a | 3 |  |  | so |\n"},
	} {
		if got := x.row.String(); got != x.want {
			t.Errorf("%q, want %q", got, x.want)
		}
	}
}
