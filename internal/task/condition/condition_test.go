package condition

import (
	"encoding/json"
	"strings"
	"testing"
)

const object = `{"metadata": {"name": "x", "annotations": {"a.b/c": "yes"}}, "spec": {"replicas": 3, "share": 1.50, "paused": true, "none": null},
	"status": {"phase": "Succeeded", "list": [{"name": "a"}, {"name": "b"}], "conditions": [{"type": "Ready", "status": "True"}, {"type": "Old"}], "big": 12345678901234567}}`

func decode(t testing.TB) any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(object))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestMeets(t *testing.T) {
	v := decode(t)
	for s, want := range map[string]bool{
		"status.phase == Succeeded":                              true,
		"status.phase=Succeeded":                                 true,
		"status.phase == Failed":                                 false,
		"status.phase != Failed":                                 true,
		"status.gone == x":                                       false,
		"status.gone != x":                                       true,
		"status.phase in (Failed, Succeeded)":                    true,
		"status.phase notin (Failed,Succeeded)":                  false,
		"status.gone notin (a)":                                  true,
		"status.gone in (a, )":                                   false,
		"status.phase":                                           true,
		"!status.phase":                                          false,
		"status.gone":                                            false,
		"! status.gone":                                          true,
		"spec.replicas > 2":                                      true,
		"spec.replicas > 3":                                      false,
		"spec.replicas >= 3":                                     true,
		"spec.replicas<4":                                        true,
		"spec.replicas <= 2":                                     false,
		"status.phase > 1":                                       false,
		"status.gone > -1":                                       false,
		"spec.replicas == 3":                                     true,
		"spec.share == 1.5":                                      true,
		"spec.paused == true":                                    true,
		"spec.none":                                              true,
		"spec.none ==":                                           true,
		"spec.none == , status.phase == Succeeded":               true,
		"status.big == 12345678901234567":                        true,
		"status.list.1.name == b":                                true,
		"status.list.2.name":                                     false,
		"status.list.name":                                       false,
		"status.list[name=b].name == b":                          true,
		"status.conditions[type=Ready].status == True":           true,
		`status.conditions[type="Ready"].status == "True"`:       true,
		"status.conditions[type=Old].status == True":             false,
		"status.conditions[type=Gone].status == True":            false,
		`metadata.annotations.a\.b/c == yes`:                     true,
		"status.phase == Succeeded, spec.replicas == 2":          false,
		"status.phase == Succeeded,spec.replicas in (1,2,3)":     true,
		`status.list.0 == "{\"name\":\"a\"}"`:                    true,
		"status.conditions[type = Ready ].status == True, !in.x": true,
	} {
		c, err := Parse(s)
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		if got := c.All(v); got != want {
			t.Errorf("%s is %v", s, got)
		}
	}
}

// A failure is any of its requirements.
func TestAny(t *testing.T) {
	c, err := Parse("status.phase in (Failed, Error), spec.replicas > 2, status.phase")
	if err != nil {
		t.Fatal(err)
	}
	if text, met := c.Any(decode(t)); !met || text != "spec.replicas > 2" {
		t.Errorf("met %q, %v", text, met)
	}
	if c, err = Parse("status.phase == Failed"); err != nil {
		t.Fatal(err)
	}
	if text, met := c.Any(decode(t)); met {
		t.Errorf("met %q", text)
	}
}

func TestWrong(t *testing.T) {
	for s, says := range map[string]string{
		"":                               "a path",
		"  ":                             "a path",
		"status.phase == a b":            "a comma",
		"status.phase is a":              "no operator",
		"status.phase in Failed":         "parentheses",
		"status.phase in (Failed":        "a comma or )",
		"status.replicas > many":         "whole number",
		"status..phase":                  "a path",
		"status.":                        "a path",
		"== 3":                           "a path",
		"a == b,":                        "a path",
		"a,,b":                           "a path",
		`a == "b`:                        "no end",
		"a[b] == c":                      "conditions[type=Ready]",
		"a[ b = c].d":                    "a path",
		`a == {"name":"a"}`:              "a comma",
		`a\ b`:                           "a comma",
		"a[b=c == d":                     "[ has no ]",
		strings.Repeat("a", 5000):        "limit",
		"a" + strings.Repeat(", a", 100): "requirements",
		"status.x == {{a}}":              "a comma",
	} {
		if c, err := Parse(s); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.40q: %v, %v; want an error that says %q", s, c, err, says)
		}
	}
}

// What was read can be written and read again, and decides the same.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"a.b == c", "a in (b, c), !d", "a[b=c].d >= -3", `a\.b = "x\"y"`, "a notin ()", "a=,b="} {
		f.Add(s)
	}
	v := decode(f)
	f.Fuzz(func(t *testing.T, s string) {
		c, err := Parse(s)
		if err != nil {
			return
		}
		all, met := c.All(v), ""
		met, _ = c.Any(v)
		again, err := Parse(c.String())
		if err != nil {
			t.Fatalf("%q was written as %q: %v", s, c, err)
		}
		if m, _ := again.Any(v); again.All(v) != all || m != met {
			t.Errorf("%q and %q decide differently", s, c)
		}
	})
}
