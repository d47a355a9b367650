package rules

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/choose"
	"cairn.dev/cairn/internal/code"
	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/goldentest"
	"cairn.dev/cairn/internal/image"
)

func parse(t *testing.T, text string) *Rules {
	t.Helper()
	r, err := Parse(Name, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

const full = `
enabled: true
ignore: [examples/**, vendor]
environments:
- name: prod
  files: [common.tfvars, envs/prod.tfvars]
- {name: dev, files: envs/dev.tfvars}
sinks:
- {type: acme_service, path: spec.container.image}
rules:
- images: [nginx, "ghcr.io/acme/*"]
  directories: prod
  versioning: semver
  range: ~1.2
  tags: "1.*"
  ignore: ["*-debug"]
  major: separate
  prerelease: true
  pin: always
  cooldown: 3d
  signed: true
  platforms: [linux/amd64, linux/arm/v7]
  automerge: true
  labels: prod
  reviewers: [ops]
- images: "localhost:5000/**"
  enabled: false
groups:
- {name: base, images: ["docker.io/library/*"]}
- {name: dev, directories: [dev/**]}
schedule: {days: [mon-fri], hours: 06-18, timezone: Europe/Berlin}
limits: {open: 3, per_hour: 0}
labels: [images]
reviewers: [acme/platform]
branch_prefix: bots/cairn-
message: "build: {image} {to}"
`

func TestFor(t *testing.T) {
	r := parse(t, full)
	yes := true
	strict := choose.Policy{
		Versioning: "semver", Range: "~1.2", Tags: []string{"1.*"}, Ignore: []string{"*-debug"}, Major: "separate", Prerelease: true, Pin: &yes,
		Cooldown: 72 * time.Hour, Signed: true, Needed: []image.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm", Variant: "v7"}},
	}
	plain := choose.Policy{Versioning: "auto", Major: "off"}
	ruled := Ruling{Policy: strict, Enabled: true, Automerge: true, Labels: []string{"images", "prod"}, Reviewers: []string{"acme/platform", "ops"}, Source: "rule 1 of .cairn.yaml"}
	defaults := Ruling{Policy: plain, Enabled: true, Labels: []string{"images"}, Reviewers: []string{"acme/platform"}, Source: "the defaults"}
	with := func(r Ruling, f func(*Ruling)) Ruling { f(&r); return r }
	for _, c := range []struct {
		img  code.Image
		want Ruling
	}{
		{code.Image{Value: "nginx:1.2", Dir: "prod"}, with(ruled, func(r *Ruling) { r.Group = "base" })},
		{code.Image{Value: "docker.io/library/nginx:1.2", Dir: "prod/web"}, with(ruled, func(r *Ruling) { r.Group = "base" })},
		{code.Image{Value: "ghcr.io/acme/api:1", Dir: "prod/a/b"}, ruled},
		{code.Image{Value: "ghcr.io/acme/api:1", Dir: "production"}, defaults},
		{code.Image{Value: "ghcr.io/acme/api/sub:1", Dir: "prod"}, defaults},
		{code.Image{Value: "nginx:1.2", Dir: "."}, with(defaults, func(r *Ruling) { r.Group = "base" })},
		{code.Image{Value: "quay.io/a/b:1", Dir: "dev"}, with(defaults, func(r *Ruling) { r.Group = "dev" })},
		{code.Image{Value: "quay.io/a/b:1", Dir: "dev/x"}, with(defaults, func(r *Ruling) { r.Group = "dev" })},
		{code.Image{Value: "localhost:5000/a/b:1"}, with(defaults, func(r *Ruling) { r.Enabled, r.Source = false, "rule 2 of .cairn.yaml" })},
		{code.Image{Value: ""}, defaults},
		{code.Image{Value: "${broken}", Dir: "dev"}, with(defaults, func(r *Ruling) { r.Group = "dev" })},
		{code.Image{Value: "ghcr.io/x/chart:1.2.3+b", Chart: true}, with(defaults, func(r *Ruling) { r.Policy.Versioning = "semver" })},
		{code.Image{Value: "quay.io/a/b:1", Policy: "major=together"}, with(defaults, func(r *Ruling) {
			r.Policy.Major, r.Source = "together", "the defaults, and the marker beside the image"
		})},
	} {
		got, err := r.For(c.img)
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%+v:\n got %+v, %v\nwant %+v", c.img, got, err, c.want)
		}
	}
	if _, err := r.For(code.Image{Value: "a:1", Policy: "major=all", Place: code.Place{File: "main.tf", Line: 7}}); err == nil || !strings.HasPrefix(err.Error(), "marker at main.tf:7: ") {
		t.Errorf("a bad marker: %v", err)
	}
	o := r.Options()
	want := code.Options{Environments: map[string][]string{"prod": {"common.tfvars", "envs/prod.tfvars"}, "dev": {"envs/dev.tfvars"}}, Sinks: []code.Sink{{Type: "acme_service", Path: "spec.container.image"}}, Ignore: []string{"examples/**", "vendor", "vendor/**"}}
	if !reflect.DeepEqual(o, want) {
		t.Errorf("options %+v, want %+v", o, want)
	}
	if s := r.Subject("nginx", "1.2", "1.3"); s != "build: nginx 1.3" {
		t.Errorf("subject %q", s)
	}
	if r.Limits != (Limits{3, 0}) || r.BranchPrefix != "bots/cairn-" {
		t.Errorf("%+v", r)
	}
}

// Without a file there are good defaults, and an empty one means the same.
func TestDefaults(t *testing.T) {
	d := Default()
	for _, text := range []string{"", "# nothing\n", "{}", "schedule:\n"} {
		if r := parse(t, text); !reflect.DeepEqual(r, d) {
			t.Errorf("%q: %+v, want %+v", text, r, d)
		}
	}
	got, err := d.For(code.Image{Value: "nginx:1.2"})
	want := Ruling{Policy: choose.Policy{Versioning: "auto", Major: "off"}, Enabled: true, Source: "the defaults"}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	if !d.Open(time.Unix(0, 0)) || d.Limits.Open != 10 || d.Subject("a", "1", "2") != "Bump a from 1 to 2" {
		t.Errorf("%+v", d)
	}
}

// Each mistake is answered with its line, what it is, and the cure.
func TestMistakes(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"rule: []", `f:1: unknown key "rule"; did you mean "rules"?`},
		{"\nrules:\n- image: nginx", `f:3: unknown key "image" in rules#1; did you mean "images"?`},
		{"cooldown: 3d", `f:1: unknown key "cooldown"; did you mean "rules.cooldown"?`},
		{"enabled: 1", `f:1: enabled: "1": write true or false`},
		{"ignore: /abs", `f:1: ignore: "/abs" can never match: paths begin at the root`},
		{"ignore:\n- a\n- '../b'", `f:3: ignore#2: "../b" can never match`},
		{"ignore: 'a{b,c}'", `f:1: ignore: "a{b,c}": brackets, braces and ! are not special`},
		{"ignore: ''", `f:1: ignore: empty glob`},
		{"environments:\n- files: a.tfvars", `f:2: environments#1: environment 1: "" is no name`},
		{"environments:\n- name: a", `f:2: environments#1: environment 1 has no files`},
		{"environments:\n- {name: a, files: a}\n- {name: a, files: b}", `f:3: environments#2.name: environment 1 is called "a", too`},
		{"environments: [{name: a, files: [x, ../y]}]", `f:1: environments#1.files#2: "../y": write the path of one file`},
		{"environments: [{name: a, files: /y}]", `f:1: environments#1.files: "/y": write the path`},
		{"environments: [{name: a, files: '*.tfvars'}]", `environments#1.files: "*.tfvars": write the path of one file`},
		{"sinks: [{type: Acme, path: a}]", `f:1: sinks#1.type: "Acme" is no type of a resource`},
		{"sinks: [{type: a, path: 'a[0].b'}]", `f:1: sinks#1.path: "a[0].b" is no attribute`},
		{"rules: [{range: 1.2}]", `f:1: rules#1.range: 1.2 is not text: put it in quotes`},
		{"rules: [{range: '>'}]", `f:1: rules#1.range: range ">": nothing follows >`},
		{"rules: [{range: '~a'}]", `f:1: rules#1.range: range "~a": "a" is no version`},
		{"rules:\n- range: ~1\n  versioning: pushed", `f:3: rules#1.versioning: range "~1" with versioning pushed`},
		{"rules: [{versioning: semvar}]", `f:1: rules#1.versioning: versioning "semvar" is not known: there are auto, semver`},
		{"rules: [{versioning: 'regex:('}]", `f:1: rules#1.versioning: expression "("`},
		{"rules: [{versioning: 'regex:(?P<mayor>1)'}]", `group "mayor" is not known`},
		{"rules: [{versioning: 'regex:1'}]", `has no number to order by`},
		{"rules: [{major: sepparate}]", `f:1: rules#1.major: "sepparate" is not one of off, separate, together; did you mean "separate"?`},
		{"rules: [{pin: true}]", `f:1: rules#1.pin: true is not text`},
		{"rules: [{cooldown: 3}]", `f:1: rules#1.cooldown: "3" is no duration`},
		{"rules: [{platforms: arm64}]", `f:1: rules#1.platforms: "arm64" is no platform: write os/architecture`},
		{"rules: [{images: Nginx}]", `f:1: rules#1.images: glob "Nginx" can never match: names of repositories have no upper-case`},
		{"rules: [{images: 'nginx:1.2'}]", `f:1: rules#1.images: glob "nginx:1.2" has a tag`},
		{"rules: [{images: [a, 'b c']}]", `f:1: rules#1.images#2: glob "b c" can never match a repository`},
		{"rules: [{directories: ./a}]", `f:1: rules#1.directories: "./a" can never match`},
		{"rules: [{tags: a/b}]", `f:1: rules#1.tags: glob "a/b" can never match: no tag has the character '/'`},
		{"rules: [{labels: 'a,b'}]", `f:1: rules#1.labels: "a,b" is no label`},
		{"rules:\n- {major: off}\n- {images: a}", `f:3: rules#2: rule 2 can never match: rule 1 takes everything`},
		{"groups: [{images: a}]", `f:1: groups#1: group 1: "" is no name`},
		{"groups: [{name: a}]", `f:1: groups#1: group 1 names no images and no directories: write images: "**" for all`},
		{"groups:\n- {name: a, images: a}\n- {name: a, images: b}", `f:3: groups#2.name: group 1 is called "a", too`},
		{"schedule: {days: someday}", `f:1: schedule.days: "someday" is no day`},
		{"schedule: {days: [mon, tu]}", `f:1: schedule.days#2: "tu" is no day: write mon, tue, wed, thu, fri, sat, sun, or a range such as mon-fri; did you mean "tue"?`},
		{"schedule: {days: []}", `f:1: schedule.days: no day`},
		{"schedule: {hours: []}", `f:1: schedule.hours: no hour`},
		{"schedule: {hours: 18}", `f:1: schedule.hours: 18 is not text`},
		{"schedule: {hours: 6-25}", `f:1: schedule.hours: "6-25" are no hours`},
		{"schedule: {hours: 06-06}", `f:1: schedule.hours: "06-06" ends when it begins: write 00-24`},
		{"schedule: {hours: '06:60-07'}", `f:1: schedule.hours: "06:60-07" are no hours`},
		{"schedule: {timezone: Berlin}", `f:1: schedule.timezone: "Berlin" is no time zone`},
		{"schedule: {timezone: Local}", `f:1: schedule.timezone: "Local" is no time zone`},
		{"limits: {open: -1}", `f:1: limits.open: -1 is negative`},
		{"limits: {per_hour: many}", `f:1: limits.per_hour: "many" is not a whole number`},
		{"reviewers: '@ops'", `f:1: reviewers: "@ops" is no account: write its name, without an @`},
		{"labels: [a, '']", `f:1: labels#2: "" is no label`},
		{"branch_prefix: ''", `f:1: branch_prefix: "": write up to 50`},
		{"branch_prefix: a..b/", `f:1: branch_prefix: "a..b/"`},
		{"branch_prefix: /a", `f:1: branch_prefix: "/a"`},
		{"branch_prefix: -a", `f:1: branch_prefix: "-a"`},
		{"message: 'to {tag}'", `f:1: message: "{tag}" is not known: there are {image}, {from}, {to}; did you mean "{to}"?`},
		{"message: \"a\\nb\"", `f:1: message: write one line`},
		{"- a", `f:1: this is a list: write keys and values`},
		{"a: [", `f:`},
		{"rules: &a [{}]\ngroups: *a", `f:2: groups: aliases (*a) are not read`},
	} {
		r, err := Parse("f", []byte(c.text))
		var e *config.Error
		if !errors.As(err, &e) || r != nil {
			t.Errorf("%q: %v, want an error", c.text, err)
			continue
		}
		if !strings.Contains(err.Error(), c.want) || len(e.Problems) != 1 {
			t.Errorf("%q:\n got %s\nwant %s", c.text, err, c.want)
		}
	}
	_, err := Parse("f", []byte("enabled: maybe\nrules: [{major: x}]\nlimits: {open: -1}\nlabls: []\n"))
	if lines := strings.Split(fmt.Sprint(err), "\n"); len(lines) != 4 || !strings.HasPrefix(lines[2], "f:3: ") {
		t.Errorf("four mistakes:\n%v", err)
	}
}

func TestParsePolicy(t *testing.T) {
	yes, no := true, false
	base := Ruling{Enabled: true, Policy: choose.Policy{Versioning: "auto", Major: "off"}}
	for words, want := range map[string]func(*Ruling){
		"":                                  func(*Ruling) {},
		"semver major=separate":             func(r *Ruling) { r.Policy.Versioning, r.Policy.Major = "semver", "separate" },
		"~1.2":                              func(r *Ruling) { r.Policy.Range = "~1.2" },
		">= 1.2 <2 || 3.x":                  func(r *Ruling) { r.Policy.Range = ">= 1.2 <2 || 3.x" },
		"1.2 - 1.5 semver":                  func(r *Ruling) { r.Policy.Range, r.Policy.Versioning = "1.2 - 1.5", "semver" },
		"~> 1.2":                            func(r *Ruling) { r.Policy.Range = "~> 1.2" },
		"range=^2":                          func(r *Ruling) { r.Policy.Range = "^2" },
		"pushed":                            func(r *Ruling) { r.Policy.Versioning = "pushed" },
		"digest pin=always":                 func(r *Ruling) { r.Policy.Versioning, r.Policy.Pin = "digest", &yes },
		"pin=never":                         func(r *Ruling) { r.Policy.Pin = &no },
		"pin=keep":                          func(*Ruling) {},
		"cooldown=3d":                       func(r *Ruling) { r.Policy.Cooldown = 72 * time.Hour },
		"tags=a*,b ignore=*-rc":             func(r *Ruling) { r.Policy.Tags, r.Policy.Ignore = []string{"a*", "b"}, []string{"*-rc"} },
		"prerelease signed":                 func(r *Ruling) { r.Policy.Prerelease, r.Policy.Signed = true, true },
		"prerelease=false automerge":        func(r *Ruling) { r.Automerge = true },
		"off":                               func(r *Ruling) { r.Enabled = false },
		"group=base":                        func(r *Ruling) { r.Group = "base" },
		"platforms=linux/arm64":             func(r *Ruling) { r.Policy.Needed = []image.Platform{{OS: "linux", Architecture: "arm64"}} },
		`regex:^v(?P<major>\d+)$ major=off`: func(r *Ruling) { r.Policy.Versioning = `regex:^v(?P<major>\d+)$` },
	} {
		r := base
		want(&r)
		got, err := ParsePolicy(words, base)
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%q: %+v, %v, want %+v", words, got, err, r)
		}
	}
	for words, want := range map[string]string{
		"semvar":                 `"semvar" is not known; did you mean "semver"?`,
		"mayor=off":              `"mayor=off" is not known; did you mean "major"?`,
		"major":                  `"major" is not known`,
		"major=all":              `major: "all" is not one of off, separate, together`,
		"cooldown=soon":          `cooldown: "soon" is no duration`,
		"signed=yes":             `signed: "yes" is not one of true, false`,
		"pin=true":               `pin: "true" is not one of keep, always, never`,
		"platforms=arm64":        `platforms: "arm64" is no platform`,
		"group=a/b":              `group: "a/b" is no name`,
		"~":                      `nothing follows ~`,
		"pushed ~1":              `range "~1" with versioning pushed`,
		"tags=":                  `empty glob`,
		"regex:(":                `expression "("`,
		"versioning=x":           `versioning "x" is not known`,
		strings.Repeat("a", 501): `the limit is 500`,
	} {
		if _, err := ParsePolicy(words, base); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %s", words, err, want)
		}
	}
}

func TestSchedule(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	at := func(s string) time.Time {
		v, err := time.ParseInLocation("2006-01-02 15:04", s, berlin)
		if err != nil {
			t.Fatal(err)
		}
		return v.UTC()
	}
	office := "schedule: {days: mon-fri, hours: 06-18, timezone: Europe/Berlin}"
	night := "schedule: {days: [fri, Saturday], hours: ['22-06', '12:30-13:00'], timezone: Europe/Berlin}"
	for _, c := range []struct{ text, at, opens string }{
		// 2026-11-23 is a Monday; clocks change on 2026-03-29 and 2026-10-25.
		{office, "2026-11-23 06:00", ""},
		{office, "2026-11-23 05:59", "2026-11-23 06:00"},
		{office, "2026-11-23 17:59", ""},
		{office, "2026-11-23 18:00", "2026-11-24 06:00"},
		{office, "2026-11-27 18:00", "2026-11-30 06:00"},
		{office, "2026-11-28 12:00", "2026-11-30 06:00"},
		{office, "2026-03-27 18:00", "2026-03-30 06:00"},
		{office, "2026-10-23 18:00", "2026-10-26 06:00"},
		{night, "2026-11-27 22:00", ""},
		{night, "2026-11-28 05:59", ""},
		{night, "2026-11-29 05:59", ""},
		{night, "2026-11-29 06:00", "2026-12-04 12:30"},
		{night, "2026-11-27 05:59", "2026-11-27 12:30"},
		{night, "2026-11-27 13:00", "2026-11-27 22:00"},
		{"schedule: {days: sat-mon, timezone: Europe/Berlin}", "2026-11-24 00:00", "2026-11-28 00:00"},
		{"schedule: {days: sat-mon, timezone: Europe/Berlin}", "2026-11-23 23:59", ""},
		{"schedule: {hours: 00-24}", "2026-11-23 03:00", ""},
		{"", "2026-11-23 03:00", ""},
	} {
		r, now := parse(t, c.text), at(c.at)
		want := now
		if c.opens != "" {
			want = at(c.opens)
		}
		if got := r.Opens(now); !got.Equal(want) || r.Open(now) != (c.opens == "") || !r.Open(got) {
			t.Errorf("%s at %s: open %v, opens %s, want %s", c.text, c.at, r.Open(now), got.In(berlin), want.In(berlin))
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte("schedule: {days: [fri-mon], hours: 22-06}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Parse(Name, b)
		if (r == nil) == (err == nil) {
			t.Fatalf("%v, %v", r, err)
		}
		if err != nil {
			return
		}
		if got := r.Opens(time.Unix(1e9, 0)); !r.Open(got) {
			t.Errorf("it is not open at %s, when it opens", got)
		}
		if _, err := r.For(code.Image{Value: "nginx:1.2", Dir: "a/b"}); err != nil {
			t.Error(err)
		}
	})
}

func FuzzParsePolicy(f *testing.F) {
	f.Add("semver major=separate ~1.2 || 3")
	f.Add("regex:(?P<major>x) cooldown=3d platforms=a/b,c/d off")
	f.Fuzz(func(t *testing.T, words string) {
		if r, err := ParsePolicy(words, Ruling{}); err == nil && r.Policy.Check() != nil {
			t.Errorf("%q: %+v is no policy", words, r)
		}
	})
}

func TestSchema(t *testing.T) {
	goldentest.Check(t, "testdata/schema.json", Schema())
	var s struct {
		Properties map[string]struct {
			Items struct {
				Required   []string
				Properties map[string]struct {
					Default any
					Enum    []string
				}
			}
		}
	}
	if err := json.Unmarshal(Schema(), &s); err != nil {
		t.Fatal(err)
	}
	rule := s.Properties["rules"].Items.Properties
	if rule["enabled"].Default != true || !reflect.DeepEqual(rule["major"].Enum, choose.Majors) || len(s.Properties["groups"].Items.Required) != 1 {
		t.Errorf("%+v", s)
	}
}

const page = "../../docs/cairn-yaml.md"

// The page has all keys, as the code documents them, and its examples hold.
func TestPage(t *testing.T) {
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- keys: written by go test ./internal/rules -update -->\n", "<!-- end of keys -->"
	before, rest, ok1 := bytes.Cut(b, []byte(begin))
	_, after, ok2 := bytes.Cut(rest, []byte(end))
	if !ok1 || !ok2 {
		t.Fatalf("%s has no place for the keys", page)
	}
	var table strings.Builder
	table.WriteString("| key | default | |\n|---|---|---|\n")
	for _, k := range Keys() {
		if !strings.HasSuffix(k.Doc, ".") {
			t.Errorf("%s: %q is no sentence", k.Name, k.Doc)
		}
		def := ""
		if k.Default != "" {
			def = "`" + k.Default + "`"
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s |\n", k.Name, def, strings.ReplaceAll(strings.ReplaceAll(k.Doc, "|", `\|`), "*", `\*`))
	}
	goldentest.Check(t, page, []byte(string(before)+begin+table.String()+end+string(after)))

	examples := 0
	for _, part := range strings.Split(string(b), "```yaml\n")[1:] {
		text, _, _ := strings.Cut(part, "```")
		if _, err := Parse(Name, []byte(text)); err != nil {
			t.Errorf("an example of %s: %v\n%s", page, err, text)
		}
		examples++
	}
	if examples < 2 {
		t.Errorf("%s has %d examples", page, examples)
	}
	for _, name := range append(choose.Versionings, markerKeys...) {
		if !strings.Contains(string(b), "`"+name) { // `major=` or `signed`
			t.Errorf("%s does not say what %s is", page, name)
		}
	}
}
