package choose

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/catalog"
	"cairn.dev/cairn/internal/image"
)

// words are what tags are made of here: enough to meet all rules, few enough
// that tags are alike.
var words = [][]string{
	{"", "", "", "v", "release-", "bookworm-"},
	{"1", "2", "10", "1.2", "1.10", "1.2.3", "1.2.10", "01.2", "2024.01.15", "2024.1.2", "20240115", "20240116", "2024-01-15", "abc1234", "def5678", "1234567"},
	{"", "", "", "-rc.1", "rc2", "-beta", "-alpha.1", "-dev.3", "-M1"},
	{"", "", "", "-alpine", "-alpine3.19", "-alpine3.20", "-1", "-2", "-r0", "_b1", "-abc1234"},
}

func anyTag(r *rand.Rand) string {
	var b strings.Builder
	for _, w := range words {
		b.WriteString(w[r.IntN(len(w))])
	}
	return b.String()
}

// alike is fewer words, so that tags made of them often are.
func alike(r *rand.Rand) func() string {
	var few [][]string
	for i, w := range words {
		n := []int{1, len(w), 4, 2}[i]
		var pick []string
		for range n {
			pick = append(pick, w[r.IntN(len(w))])
		}
		few = append(few, pick)
	}
	return func() string {
		var b strings.Builder
		for _, w := range few {
			b.WriteString(w[r.IntN(len(w))])
		}
		return b.String()
	}
}

// The order of versions is total and transitive, whatever they are, and so is
// that of candidates, in which only a tag is equal to itself.
func TestOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var vs []candidate
	for _, s := range []scheme{strict{}, loose{dates: true}, loose{}} {
		vs = vs[:0]
		for range 150 {
			tag := &catalog.Tag{Name: anyTag(r), Since: now}
			if v, ok := s.read(tag.Name); ok {
				vs = append(vs, candidate{tag: tag, v: v})
			}
		}
		if len(vs) < 5 {
			t.Fatalf("%T reads only %d tags", s, len(vs))
		}
		n := &numbered{}
		p := &pushes{}
		for name, cmp := range map[string]func(a, b candidate) int{
			"versions": func(a, b candidate) int { return compare(a.v, b.v) }, "candidates": n.compare, "pushes": p.compare,
		} {
			for _, a := range vs {
				for _, b := range vs {
					if cmp(a, b) != -cmp(b, a) {
						t.Fatalf("%s: %s and %s: %d one way, %d the other", name, a.tag.Name, b.tag.Name, cmp(a, b), cmp(b, a))
					}
					if name != "versions" && (cmp(a, b) == 0) != (a.tag.Name == b.tag.Name) {
						t.Fatalf("%s: %s and %s compare %d", name, a.tag.Name, b.tag.Name, cmp(a, b))
					}
					for _, c := range vs {
						if cmp(a, b) <= 0 && cmp(b, c) <= 0 && cmp(a, c) > 0 {
							t.Fatalf("%s: %s <= %s <= %s, but not the first and the last", name, a.tag.Name, b.tag.Name, c.tag.Name)
						}
					}
				}
			}
		}
	}
}

// anyPolicy is a policy of those that can be told apart here.
func anyPolicy(r *rand.Rand) Policy {
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	p := Policy{
		Versioning: pick("", "auto", "semver", "docker", "calver", "pushed", "digest"), Major: pick("", "off", "separate", "together"),
		Prerelease: r.IntN(2) == 0, Signed: r.IntN(8) == 0,
	}
	if r.IntN(4) == 0 && p.Versioning != "pushed" && p.Versioning != "digest" {
		p.Range = pick("~1", "^1.2", ">=1.2 <20", "1.x || 2024")
	}
	if r.IntN(4) == 0 {
		p.Cooldown = 2 * day
	}
	if r.IntN(3) == 0 {
		p.Pin = []*bool{new(bool), ptr(true)}[r.IntN(2)]
	}
	if r.IntN(5) == 0 {
		p.Ignore = []string{pick("*alpine*", "2*", "**")}
	}
	return p
}

func ptr[T any](v T) *T { return &v }

// Whatever the tags and the policy: what is chosen is not older, passes all
// that the policy asks for, and nothing newer that passes was left. The order of
// the listing does not matter.
func TestNeverOlder(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	states := map[State]int{}
	for range 5000 {
		reg, tagOf := newRegistry(""), alike(r)
		for range 1 + r.IntN(30) {
			tag := tagOf()
			if _, ok := reg.images[tag]; ok {
				continue
			}
			at := now.Add(-time.Duration(r.IntN(200)) * time.Hour)
			reg.tags = append(reg.tags, catalog.Tag{Name: tag, Since: at, Pushed: true})
			reg.images[tag] = catalog.Image{Digest: digestOf(tag), Since: at, Signed: r.IntN(2) == 0, Platforms: platforms([]string{"linux/amd64", "linux/amd64 linux/arm64"}[r.IntN(2)])}
		}
		p, from := anyPolicy(r), tagOf()
		ref := "a:" + from
		if img, ok := reg.images[from]; ok && r.IntN(3) == 0 {
			ref += "@" + string(img.Digest)
		}
		got := Choose(ref, p, reg.facts())
		states[got.State]++
		r.Shuffle(len(reg.tags), func(i, j int) { reg.tags[i], reg.tags[j] = reg.tags[j], reg.tags[i] })
		if again := Choose(ref, p, reg.facts()); fmt.Sprint(again.To, again.Reason, again.Passed) != fmt.Sprint(got.To, got.Reason, got.Passed) {
			t.Fatalf("%s by %+v: %+v, and in another order %+v", ref, p, got, again)
		}
		if got.State != Newer || got.Tag == from {
			continue
		}
		to := reg.images[got.Tag]
		at := func(tag string) time.Time {
			i := slices.IndexFunc(reg.tags, func(t catalog.Tag) bool { return t.Name == tag })
			return reg.tags[i].Since
		}
		switch fromV, isV := spell(from, p.Versioning != "docker"); {
		case p.Versioning == "pushed" || hasHash(from) && !isV:
			if !at(got.Tag).After(at(from)) {
				t.Fatalf("%s by %+v: %s was pushed before", ref, p, got.Tag)
			}
		case p.Versioning == "semver":
			a, _ := strict{}.read(from)
			b, _ := strict{}.read(got.Tag)
			if compare(b, a) <= 0 {
				t.Fatalf("%s by %+v: %s is older", ref, p, got.Tag)
			}
		default:
			toV, _ := spell(got.Tag, p.Versioning != "docker")
			if compare(toV.version, fromV.version) <= 0 || toV.alike != fromV.alike {
				t.Fatalf("%s by %+v: %s is older, or something else", ref, p, got.Tag)
			}
		}
		switch {
		case p.Signed && !to.Signed, at(got.Tag).Add(p.Cooldown).After(now),
			image.MatchAny(p.Ignore, got.Tag),
			len(to.Platforms) < len(reg.images[from].Platforms):
			t.Fatalf("%s by %+v: %+v may not be chosen", ref, p, got)
		}
		// All that is told as passed over is newer, and the newest comes first.
		if slices.ContainsFunc(got.Passed, func(x Passed) bool { return x.Tag == got.Tag || x.Reason == "" }) {
			t.Fatalf("%s by %+v: %+v", ref, p, got.Passed)
		}
		// What was chosen is chosen again from there only if there is more to it.
		p.Pin = nil
		if next := Choose(got.To, p, reg.facts()); next.State == Newer && next.Tag == from {
			t.Fatalf("%s by %+v: there and back: %+v, %+v", ref, p, got, next)
		}
	}
	for _, s := range []State{Current, Newer, Held, Blocked, Unversioned, Unknown} {
		if states[s] < 20 {
			t.Errorf("only %d choices are %s: what was tested? %v", states[s], s, states)
		}
	}
}

func FuzzChoose(f *testing.F) {
	f.Add("a:1.2@sha256:"+strings.Repeat("0", 64), "1.3 1.4-rc.1 2.0", "", "~1", "")
	f.Add("a:1.2.3+b", "1.2.4_b", "semver", "", "separate")
	f.Add("a:abc1234", "def5678 20240115", "auto", ">=1 || ~> 2.x", "off")
	f.Add("a:v1-2", "v1-3", `regex:v(?P<major>\d+)-(?P<minor>\d+)`, "", "together")
	f.Fuzz(func(t *testing.T, ref, tags, versioning, rng, major string) {
		if len(tags) > 2000 || len(versioning) > 200 {
			return
		}
		p := Policy{Versioning: versioning, Range: rng, Major: major}
		got := Choose(ref, p, newRegistry(tags).facts())
		if got.Reason == "" {
			t.Errorf("no reason: %+v", got)
		}
		if (got.State == Newer) != (got.To != "") {
			t.Errorf("%+v", got)
		}
		if got.State == Newer {
			if got.To == ref {
				t.Errorf("from %s to itself", ref)
			}
			name, _, _ := strings.Cut(ref, "@")
			if i := strings.LastIndexByte(name, ':'); i >= 0 && !strings.HasPrefix(got.To, name[:i+1]) {
				t.Errorf("from %s to %s: another repository", ref, got.To)
			}
			if next := Choose(got.To, p, newRegistry(tags).facts()); next.To == ref {
				t.Errorf("from %s to %s and back", ref, got.To)
			}
		}
	})
}

// 200,000 tags, all of them newer, in the worst order.
func BenchmarkChoose(b *testing.B) {
	for _, c := range []struct{ name, from, form string }{{"semver", "0.0.1", "1.%d.%d"}, {"suffix", "0.0.1-alpine3.18", "1.%d.%d-alpine3.19"}, {"hash", "abc1234", "%04d%03dabc"}} {
		r := newRegistry(c.from)
		for i := range 200_000 {
			r.tags = append(r.tags, catalog.Tag{Name: fmt.Sprintf(c.form, i/1000, i%1000), Since: now.Add(-300*day + time.Duration(i)*time.Second)})
		}
		f := r.facts()
		f.Look = func(string) (catalog.Image, error) {
			return catalog.Image{Digest: digestOf("x"), Platforms: platforms("linux/amd64")}, nil
		}
		for name, p := range map[string]Policy{
			"together": {Major: "together"}, "ignore": {Ignore: []string{"*-slim", "*rc*"}}, "range": {Range: ">=1.2 <1.50 || ~1.60", Major: "together"},
			"regex": {Versioning: `regex:(?P<major>\d+)\.(?P<minor>\d+)\.(?P<patch>\d+)`, Major: "together"},
		} {
			b.Run(c.name+"/"+name, func(b *testing.B) {
				for b.Loop() {
					Choose("a:"+c.from, p, f)
				}
			})
		}
	}
}
