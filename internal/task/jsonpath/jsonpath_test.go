package jsonpath

import (
	"encoding/json"
	"strings"
	"testing"
)

const object = `{"metadata": {"name": "x", "labels": {"a.b/c": "d"}}, "spec": {"replicas": 12345678, "on": true, "none": null},
	"status": {"conditions": [{"type": "Old", "status": "False", "n": 1}, {"type": "Ready", "status": "True", "n": 2}], "ips": ["1", "2", "3"]}}`

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

// The answers are those of kubectl.
func TestText(t *testing.T) {
	v := decode(t)
	for s, want := range map[string]string{
		"{.metadata.name}":                                       "x",
		"{$.metadata.name}":                                      "x",
		"{@.metadata.name}":                                      "x",
		"{.metadata['name']}":                                    "x",
		"name {.metadata.name}, on {.spec.on}":                   "name x, on true",
		`{.metadata.labels.a\.b/c}`:                              "d",
		"{.metadata.labels['a.b/c']}":                            "d",
		"{.spec.replicas}":                                       "12345678",
		"{.spec.none}":                                           "",
		"{.status.ips}":                                          `["1","2","3"]`,
		"{.status.ips[*]}":                                       "1 2 3",
		"{.status.ips[1]}":                                       "2",
		"{.status.ips[-1]}":                                      "3",
		"{.status.ips[9]}":                                       "",
		"{.status.conditions[*].type}":                           "Old Ready",
		`{.status.conditions[?(@.type=="Ready")].status}`:        "True",
		`{.status.conditions[?( @.type == 'Ready' )].status}`:    "True",
		`{.status.conditions[?(@.type!="Ready")].status}`:        "False",
		`{.status.conditions[?(@.n>1)].type}`:                    "Ready",
		`{.status.conditions[?(@.n<=1)].type}`:                   "Old",
		`{.status.conditions[?(@.n)].n}`:                         "1 2",
		`{.status.conditions[?(@.gone)].n}`:                      "",
		`{.status.conditions[?(@.n=="1")].n}`:                    "",
		"{..type}":                                               "Old Ready",
		"{.status..n}":                                           "1 2",
		"{.metadata.labels.*}":                                   "d",
		`{.metadata.name}{"\n"}{.spec.on}`:                       "x\ntrue",
		"{.metadata.gone.name}":                                  "",
		"{ .metadata.name }":                                     "x",
		`{"{"}{.metadata.name}`:                                  "{x",
		"{.spec}":                                                `{"none":null,"on":true,"replicas":12345678}`,
		`{.status.conditions[?(@.status=="True")].type} is here`: "Ready is here",
	} {
		p, err := Parse(s)
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		if got, _, err := p.Text(v); err != nil || got != want {
			t.Errorf("%s gives %q, %v; want %q", s, got, err, want)
		}
	}
	p, err := Parse("a {.gone} b")
	if err != nil {
		t.Fatal(err)
	}
	if _, found, err := p.Text(v); found || err != nil {
		t.Errorf("something was found: %v", err)
	}
}

func TestWrong(t *testing.T) {
	for s, says := range map[string]string{
		"": "names no value", ".status": "with braces", "{.a": "a }", "{.a[}": "is expected", "{.a[0:2]}": "slices", "{.a['b','c']}": "unions", "{range .items[*]}{.a}{end}": "range",
		"{.a[?(b==1)]}": "begins with @", "{.a[?(@.b==c)]}": "in quotes", "{.a[?(@.b==1]}": "in quotes", "{.a[?(@.b==1 ]}": "a )", `{"a}`: "no end", "{.a..}": "name of a field", strings.Repeat("{.a}", 2000): "limit",
		"{" + strings.Repeat(".a", 60) + "}": "more than 50",
	} {
		if _, err := Parse(s); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.40q: %v, want %q", s, err, says)
		}
	}
}

// However a template is written, what it does is bounded.
func TestBounded(t *testing.T) {
	list := make([]any, 1000)
	for i := range list {
		list[i] = strings.Repeat("x", 2000)
	}
	p, err := Parse("{" + strings.Repeat("..", 1) + "[*]" + strings.Repeat("..[*]", 9) + "}")
	if err != nil {
		t.Fatal(err)
	}
	nested := any(list)
	for range 30 {
		nested = []any{nested, nested}
	}
	if _, _, err := p.Text(nested); err == nil {
		t.Error("it found everything")
	}
	if p, err = Parse("{[*]}"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.Text(list); err == nil {
		t.Error("it wrote everything")
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"{.a.b[0]}", `{..a[?(@.b=="c")].d} x {"y"}`, "{$['a']}", "{.a[*].*}", "{..[-1]}"} {
		f.Add(s)
	}
	v := decode(f)
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := Parse(s); err == nil {
			_, _, _ = p.Text(v)
		}
	})
}
