package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestInterleave(t *testing.T) {
	var order []string
	make := func(name string, v float64) contender {
		return contender{name, func(context.Context) (float64, error) {
			order = append(order, name)
			return v * float64(1+len(order)/4), nil // the machine gets slower or faster
		}}
	}
	s, err := interleave(t.Context(), 3, []contender{make("a", 8), make("b", 2)})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"a", "b", "b", "a", "a", "b"}; !slices.Equal(order, want) {
		t.Errorf("order %v, want %v", order, want)
	}
	if len(s["a"]) != 3 || len(s["b"]) != 3 {
		t.Errorf("samples %v", s)
	}
	_, err = interleave(t.Context(), 3, []contender{{"x", func(context.Context) (float64, error) { return 0, errors.New("down") }}})
	if err == nil || !strings.Contains(err.Error(), "x: down") {
		t.Errorf("a failed contender: %v", err)
	}
}

func TestRatioIsOfRounds(t *testing.T) {
	s := samples{"a": {100, 10, 300}, "b": {50, 5, 100}} // a disturbed round disturbs both
	if got := s.ratio("a", "b"); got != 2 {
		t.Errorf("ratio %v, want 2", got)
	}
	if got := s.median("a"); got != 100 {
		t.Errorf("median %v", got)
	}
	if got := median([]float64{1, 2, 3, 4}); got != 2.5 {
		t.Errorf("median of an even number %v", got)
	}
	if got := median(nil); got != 0 {
		t.Errorf("median of nothing %v", got)
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0: "0.00", 0.00412: "0.0041", 0.954: "0.95", 12.34: "12.3", 123.4: "123", 1234: "1,234", 1234567: "1,234,567"} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %s, want %s", v, got, want)
		}
	}
}

func TestReportSaysWhatWasMissed(t *testing.T) {
	r := &report{facts: &facts{start: time.Unix(0, 0), options: options{rounds: 1}}, results: []result{{
		name:     "A thing",
		title:    "A thing, in detail",
		rows:     []row{{"cairn", 1000, "/s", "note"}},
		verdicts: []verdict{{"≥ 2×", "1.0×", false}, {"≥ 1×", "1.0×", true}},
	}}}
	for _, text := range []string{r.markdown(), r.table()} {
		if !strings.Contains(text, "MISSED") || !strings.Contains(text, "met") || strings.Count(text, "A thing") < 2 {
			t.Errorf("report:\n%s", text)
		}
	}
	if !strings.Contains(r.markdown(), "| cairn | 1,000/s | note |") {
		t.Errorf("report without its rows:\n%s", r.markdown())
	}
}

func TestCargoIsWhole(t *testing.T) {
	c := makeCargo()
	if len(c.blobs) != 7 || len(c.layer) != 1<<20 || c.blobs[c.layerDigest] == nil {
		t.Errorf("%d blobs, layer of %d", len(c.blobs), len(c.layer))
	}
	for d := range c.blobs {
		if !strings.Contains(string(c.manifest), d) {
			t.Errorf("the manifest does not name %s", d)
		}
	}
}
