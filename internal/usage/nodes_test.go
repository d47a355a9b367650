package usage

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// How many nodes run an image is as its reporter counted last, and nothing
// once it runs no longer.
func TestNodes(t *testing.T) {
	w := newWorld(t)
	d := dg("a")
	say := func(name string, nodes int) {
		t.Helper()
		s := Statement{Reporter: "prod", Period: time.Minute, Complete: true, Statement: name, Sources: []Source{Container},
			Uses: []Use{{Digest: d, Source: Container, Subject: "prod/shop/Deployment/web", Nodes: nodes}}}
		if nodes < 0 {
			s.Uses = nil
		}
		w.report(Identity{}, s)
	}
	for _, c := range []struct{ say, want int }{{12, 12}, {3, 3}, {1 << 20, 1<<16 - 1}, {-1, 0}} {
		say(time.Duration(c.say).String(), c.say)
		if u := w.l.Uses(d); len(u) != 1 || u[0].Nodes != c.want {
			t.Errorf("said %d: %+v, want %d nodes", c.say, u, c.want)
		}
	}
}

func TestNodesOnTheWire(t *testing.T) {
	b, err := json.Marshal(Statement{Uses: []Use{{Digest: dg("a"), Source: Container, Subject: "x", Nodes: 7}}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReadStatement(strings.NewReader(string(b)), 0)
	if err != nil || len(got.Uses) != 1 || got.Uses[0].Nodes != 7 {
		t.Errorf("%s read as %+v, %v", b, got, err)
	}
	if _, err := ReadStatement(strings.NewReader(`{"uses": [{"nodes": "7"}]}`), 0); err == nil || !strings.Contains(err.Error(), "uses[0].nodes") {
		t.Errorf("nodes as text: %v", err)
	}
}
