package usage

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPlatforms(t *testing.T) {
	arm, amd := Platform{"linux", "arm64", 3}, Platform{"linux", "amd64", 7}
	w := newWorld(t)
	want := func(what string, want ...Platform) {
		t.Helper()
		if got := w.l.Reporters()[0].Platforms; !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	s := says("a").called("1")
	w.report(Identity{}, s)
	want("none was told")
	s.Platforms = []Platform{amd}
	w.report(Identity{}, s)
	want("told", amd)
	w.report(Identity{}, says("b").called("2"))
	want("kept by a statement without", amd)
	w.report(Identity{}, Statement{Reporter: "host", SameAs: "2", Platforms: []Platform{amd, arm}})
	want("told with a restatement", amd, arm)
	w.stop()
	w.start()
	want("after a start", amd, arm)
}

func TestPlatformsOnTheWire(t *testing.T) {
	s := Statement{Reporter: "host", Period: time.Minute, Platforms: []Platform{{"linux", "arm64", 3}}}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReadStatement(strings.NewReader(string(b)), 0)
	if err != nil || !slices.Equal(got.Platforms, s.Platforms) {
		t.Errorf("%s read as %v, %v", b, got.Platforms, err)
	}
	w := newWorld(t)
	for in, path := range map[string]string{
		`{"platforms":{}}`:               "platforms",
		`{"platforms":[1]}`:              "platforms[0]",
		`{"platforms":[{"os":1}]}`:       "platforms[0].os",
		`{"platforms":[{"count":-1}]}`:   "platforms[0].count",
		`{"platforms":[{},{"cpu":"x"}]}`: "platforms[1]",
		`{"platforms":[` + strings.TrimSuffix(strings.Repeat("{},", 101), ",") + `]}`:                      "platforms",
		`{"reporter":"a","period":"60s","platforms":[{"os":"a\u0007"}]}`:                                   "platforms[0].os",
		`{"reporter":"a","period":"60s","platforms":[{"architecture":"` + strings.Repeat("x", 65) + `"}]}`: "platforms[0].architecture",
	} {
		s, err := ReadStatement(strings.NewReader(in), 0)
		if err == nil {
			_, err = w.l.Report(w.ctx, Identity{}, s)
		}
		var b *BadStatementError
		if !errors.As(err, &b) || b.Path != path {
			t.Errorf("%.60s: %v, want a complaint about %s", in, err, path)
		}
	}
}

func TestInForce(t *testing.T) {
	w := newWorld(t)
	w.report(Identity{}, says("a", "b", "c"))
	w.report(Identity{}, says("b", "c", "d"))
	for limit, want := range map[int]int{10: 3, 2: 2, 0: 0} {
		got, err := w.l.InForce("host", limit)
		if err != nil || len(got) != want {
			t.Errorf("at most %d: %v, %v", limit, got, err)
		}
		for _, u := range got {
			if u.Digest == dg("a") || !u.Now {
				t.Errorf("%+v is not in force", u)
			}
		}
	}
	if _, err := w.l.InForce("nobody", 1); !errors.Is(err, ErrUnknownReporter) {
		t.Errorf("of nobody: %v", err)
	}
}
