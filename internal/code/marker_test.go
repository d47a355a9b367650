package code

import "testing"

func TestParseMarker(t *testing.T) {
	for line, want := range map[string]MarkerComment{
		`tag: 1.2 # cairn: image=nginx`:                           {"nginx", "", "tag: 1.2 "},
		"# cairn: image=ghcr.io/team/app ~1.2 major=separate\r\n": {"ghcr.io/team/app", "~1.2 major=separate", ""},
		`  v = "1" // cairn: image=localhost:5000/a/b pushed  `:   {"localhost:5000/a/b", "pushed", `  v = "1" `},
		`/* cairn: image=nginx digest */`:                         {"nginx", "digest", ""},
		`<!-- cairn: image=nginx -->`:                             {"nginx", "", ""},
		`# cairn: image=nginx:1.2`:                                {},
		`# cairn: image=`:                                         {},
		`# cairn: image=Not/A/Name`:                               {},
		`cairn: image=nginx`:                                      {},
		`# see cairn: image=nginx in the docs`:                    {},
		`# cairn: reads this`:                                     {},
	} {
		got, ok := ParseMarker(line)
		if got != want || ok != (want != MarkerComment{}) {
			t.Errorf("%q: %+v %v, want %+v", line, got, ok, want)
		}
	}
}

func TestMarked(t *testing.T) {
	c := MarkerComment{Image: "ghcr.io/team/app"}
	const digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
	for text, want := range map[string]string{
		"1.2.3":                 "ghcr.io/team/app:1.2.3",
		"1.2.3@" + digest:       "ghcr.io/team/app:1.2.3@" + digest,
		digest:                  "ghcr.io/team/app@" + digest,
		"ghcr.io/team/app:1":    "ghcr.io/team/app:1",
		"ghcr.io/team/other:1":  "",
		"ghcr.io/team/app":      "",
		"a sentence, not a tag": "",
		"":                      "",
		"v1.2.3+build":          "",
	} {
		if got, ok := c.Marked(text); got != want || ok != (want != "") {
			t.Errorf("%q: %q %v, want %q", text, got, ok, want)
		}
	}
}
