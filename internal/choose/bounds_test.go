package choose

import (
	"strings"
	"testing"
)

func TestRanges(t *testing.T) {
	for _, c := range []struct{ rng, in, out string }{
		{"1.2", "1.2 1.2.0 1.2.9 1.2.9-alpine 1.2.5-rc.1", "1.3 1.1.9 1 2 1.2.0-rc.1 1.20"},
		{"=1.2.3", "1.2.3 1.2.3.4", "1.2.4 1.2 1.2.3-rc.1"},
		{"==1.2.3", "1.2.3", "1.2.4"},
		{"1.2.x", "1.2 1.2.9", "1.3"},
		{"1.*", "1.0 1.9", "2.0 0.9"},
		{"1.X", "1.9", "2.0"},
		{"*", "0 1.2.3 99", ""},
		{"x", "0 1.2.3 99", ""},
		{"v1.2", "1.2.9 v1.2.9", "1.3"},
		{">=1.2 <2", "1.2 1.9.9 1.10", "1.1 2 2.0.0-rc.1 1.2.0-rc.1"},
		{">= 1.2, < 2.0", "1.2 1.9.9", "1.1 2.0 2.0.0-rc.1"},
		{">1.2", "1.3 2", "1.2 1.2.9 1.1"},
		{">1.2.3", "1.2.4 1.3", "1.2.3 1.2.3-rc.1"},
		{"<=1.2", "1.2 1.2.9 1.1 0", "1.3 2"},
		{"<2", "1.9 1.9.9-rc.1", "2 2.0.0-alpha"},
		{"!=1.4", "1.3 1.5 2", "1.4 1.4.9"},
		{">=1 !=1.4.2 <2", "1.4.1 1.4.3", "1.4.2 2 0.9"},
		{"~1.2.3", "1.2.3 1.2.9", "1.2.2 1.3.0"},
		{"~1.2", "1.2 1.2.9", "1.3 1.1"},
		{"~1", "1 1.9.9", "2 0.9"},
		{"^1.2.3", "1.2.3 1.9.0", "1.2.2 2.0.0"},
		{"^0.2.3", "0.2.3 0.2.9", "0.3.0 0.2.2 1.0.0"},
		{"^0.0.3", "0.0.3", "0.0.4 0.0.2 0.1.0"},
		{"^0.0", "0.0.1 0.0.9", "0.1.0"},
		{"^0", "0.9", "1.0"},
		{"~> 1.2", "1.2 1.9", "2.0 1.1"},
		{"~> 1.2.3", "1.2.3 1.2.9", "1.3.0 1.2.2"},
		{"~> 1", "1 2 3", "0.9"},
		{"1.2 - 1.5", "1.2 1.5 1.5.9 1.3.1", "1.1 1.6"},
		{"1.2 - 1.5 !=1.3", "1.2 1.4", "1.3"},
		{"1.x || 3.x", "1.9 3.0", "2.0 4.0"},
		{"<1 || >=2 <3", "0.9 2.5", "1.5 3"},
		{">=1.3.0-rc.1", "1.3.0-rc.1 1.3.0-rc.2 1.3.0 1.3.1", "1.3.0-beta.9 1.2.9"},
		{"~1.3.0-rc.1", "1.3.0-rc.2 1.3.0 1.3.9", "1.4.0 1.3.0-beta.1"},
		{"<1.3.0-rc.2", "1.3.0-rc.1 1.2.9", "1.3.0-rc.2 1.3.0"},
		{"^1.3.0-rc.1", "1.3.0-rc.2 1.9", "2.0"},
		{">=2024.01", "2024.01.15 2024.02 2025.1", "2023.12.31"},
		{">=20240101", "20240115", "20231231"},
		{">=99999999999999999999", "99999999999999999999 100000000000000000000", "99999999999999999998"},
	} {
		b, err := parseRange(c.rng, prerelease)
		if err != nil {
			t.Errorf("%s: %v", c.rng, err)
			continue
		}
		for want, list := range map[bool]string{true: c.in, false: c.out} {
			for tag := range strings.FieldsSeq(list) {
				s, ok := spell(tag, true)
				if !ok || b.hold(s.version) != want {
					t.Errorf("%s holds %s: %v, want %v", c.rng, tag, !want, want)
				}
			}
		}
	}
	for rng, want := range map[string]string{
		"":                        "empty part",
		"1.2 ||":                  "empty part",
		"|| 1":                    "empty part",
		">":                       "nothing follows >",
		"=>1.2":                   `"=>" is no operator`,
		"~=1.2":                   `"~=" is no operator`,
		"a":                       `"a" is no version`,
		"1.x.2":                   `"1.x.2" is no version`,
		"1..2":                    `"1..2" is no version`,
		"1.2-":                    `"1.2-" is no version`,
		"1.x-rc":                  `"1.x-rc" is no version`,
		"1.2 - b":                 `"b" is no version`,
		"1 2 &":                   `"&" is no version`,
		strings.Repeat("1 ", 300): "the limit is 500",
	} {
		if err := CheckRange(rng); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %s", rng, err, want)
		}
	}
}

func TestCheck(t *testing.T) {
	for want, p := range map[string]Policy{
		"versioning":                  {Versioning: "newest"},
		"expression \"(\"":            {Versioning: "regex:("},
		"the limit is 1000":           {Versioning: "regex:" + strings.Repeat("a", 1001)},
		"group \"x\" is not known":    {Versioning: "regex:(?P<x>a)"},
		"no number to order by":       {Versioning: "regex:(?P<compatibility>a)"},
		"range \"1\" with versioning": {Versioning: "pushed", Range: "1"},
		"major":                       {Major: "on"},
		"empty glob":                  {Ignore: []string{""}},
		"cooldown -1ns is negative":   {Cooldown: -1},
		// Two halves that are whole only together.
		"expression \"a)|(?:(?P<major>b)\"": {Versioning: "regex:a)|(?:(?P<major>b)"},
	} {
		if err := p.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want …%s…", p, err, want)
		}
	}
	if err := (Policy{}).Check(); err != nil {
		t.Error(err)
	}
}

func TestHashes(t *testing.T) {
	for s, want := range map[string]bool{
		"abc1234": true, "1234abc": true, "da39a3ee5e6b4b0d3255bfef95601890afd80709": true, "1234567890123456789012345678901234567890": true,
		"abc123": false, "1234567": false, "abcdefa": false, "20240115a": false, "ABC1234": false, "abc123g": false, "": false,
		strings.Repeat("a1", 33): false,
	} {
		if isHash(s) != want {
			t.Errorf("%q: %v", s, !want)
		}
	}
	for tag, want := range map[string]string{
		"abc1234": "*", "1234567": "*", "sha-abc1234": "sha-*", "main-abc1234-1700000000": "main-*-*", "v1.2.3-4-gabc1234": "v#.#.#-#-g*",
		"blue": "name", "blue-otter": "name", "build-12": "build-#", "da39a3ee5e6b4b0d3255bfef95601890afd80709": "**",
	} {
		if got := pushShape(tag); got != want {
			t.Errorf("%s: %q, want %q", tag, got, want)
		}
	}
}
