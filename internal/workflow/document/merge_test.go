package document

import "testing"

func TestMerge(t *testing.T) {
	lists := map[string]string{"env": "name"}
	for name, c := range map[string]struct{ under, over, want string }{
		"maps":           {"a: 1\nb: {c: 2, d: 3}", "b: {c: 4}", `{"a":1,"b":{"c":4,"d":3}}`},
		"null takes":     {"a: 1\nb: 2", "a: null", `{"a":null,"b":2}`},
		"lists are his":  {"l: [1, 2]", "l: [3]", `{"l":[3]}`},
		"lists by name":  {"env: [{name: a, v: 1}, {name: b, v: 2}]", "env: [{name: c, v: 3}, {name: a, v: 4}]", `{"env":[{"name":"c","v":3},{"name":"a","v":4},{"name":"b","v":2}]}`},
		"another kind":   {"a: {b: 1}", "a: text", `{"a":"text"}`},
		"through a name": {"x: &x {b: 1}\na: *x", "a: {c: 2}\nx: 1", `{"a":{"b":1,"c":2},"x":1}`},
	} {
		t.Run(name, func(t *testing.T) {
			log := &Log{}
			under, over := Read("under", []byte(c.under), log), Read("over", []byte(c.over), log)
			if log.Len() > 0 {
				t.Fatal(log.Problems())
			}
			before := over[0].JSON()
			if got := Merge(under[0], over[0], lists).JSON(); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
			if over[0].JSON() != before || Merge(nil, over[0], lists) != over[0] || Merge(under[0], nil, lists) != under[0] {
				t.Error("a document was changed, or one alone is not itself")
			}
		})
	}
}
