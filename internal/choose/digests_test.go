package choose

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/catalog"
)

func TestDigests(t *testing.T) {
	yes, no := true, false
	at := func(s string) string { return "@" + string(digestOf(s)) }
	// moved is a repository whose tag 1.2 names another image since.
	moved := func(edit func(moved, pinned *catalog.Image)) *registry {
		r := newRegistry("1.2 latest")
		img, old := r.images["1.2"], r.images["1.2"]
		old.Digest = digestOf("old")
		img.Since = now.Add(-day)
		if edit != nil {
			edit(&img, &old)
		}
		r.images["1.2"], r.images["latest"] = img, img
		r.old[old.Digest] = old
		return r
	}
	ours := func(r *registry) *registry {
		for i := range r.tags {
			r.tags[i].Pushed = true
		}
		return r
	}
	times := func(moved, pinned, movedMade, pinnedMade int) *registry {
		ago := func(h int) time.Time {
			if h < 0 {
				return time.Time{}
			}
			return now.Add(-time.Duration(h) * time.Hour)
		}
		return func() *registry {
			r := newRegistry("1.2")
			img, old := r.images["1.2"], r.images["1.2"]
			old.Digest = digestOf("old")
			img.Since, old.Since, img.Created, old.Created = ago(moved), ago(pinned), ago(movedMade), ago(pinnedMade)
			r.images["1.2"], r.old[old.Digest] = img, old
			return r
		}()
	}
	listing := newRegistry("1.2.3 1.2.4 1.2 latest")
	for _, tag := range []string{"1.2.3", "1.2", "latest"} {
		listing.edit(tag, func(t *catalog.Tag, i *catalog.Image) { t.Digest, i.Digest = digestOf("old"), digestOf("old") })
	}
	labelled := newRegistry("v1.2.3 v1.2.4").edit("v1.2.3", func(_ *catalog.Tag, i *catalog.Image) { i.Version = "1.2.3" })
	liar := newRegistry("1.2.3 1.2.4")
	liar.old[digestOf("old")] = catalog.Image{Digest: digestOf("old"), Version: "1.2.3", Platforms: platforms("linux/amd64")}

	for name, c := range map[string]struct {
		ref  string
		p    Policy
		r    *registry
		want State
		to   string
		say  string
	}{
		"tag and digest": {"a:1.2" + at("1.2"), Policy{}, newRegistry("1.2 1.3"), Newer, "a:1.3" + at("1.3"), "1.3 is newer than 1.2"},
		"same":           {"a:1.2" + at("1.2"), Policy{}, newRegistry("1.2"), Current, "", "newest"},
		"moved":          {"a:1.2" + at("old"), Policy{}, moved(nil), Newer, "a:1.2" + at("1.2"), "1.2 names sha256:"},
		"latest":         {"a:latest" + at("old"), Policy{}, moved(nil), Newer, "a:latest" + at("1.2"), "latest names"},
		"digest only by policy": {"a:1.2" + at("old"), Policy{Versioning: "digest"}, func() *registry { r := moved(nil); r.tags = append(r.tags, newRegistry("1.3").tags...); return r }(),
			Newer, "a:1.2" + at("1.2"), ""},
		"digest policy, no digest": {"a:1.2", Policy{Versioning: "digest"}, newRegistry("1.2 1.3"), Unversioned, "", "pin: always"},
		"newer wins": {"a:1.2" + at("old"), Policy{}, func() *registry {
			r := moved(nil)
			n := newRegistry("1.3")
			r.tags = append(r.tags, n.tags...)
			r.images["1.3"] = n.images["1.3"]
			return r
		}(), Newer, "a:1.3" + at("1.3"), ""},
		"moved and held": {"a:1.2" + at("old"), Policy{Cooldown: 3 * day}, moved(nil), Held, "", "1.2 names sha256:"},
		"held but moved": {"a:1.2" + at("old"), Policy{Cooldown: 3 * day}, func() *registry {
			r := moved(func(m, _ *catalog.Image) { m.Since = now.Add(-9 * day) })
			n := newRegistry("1.3").age("1.3", day)
			r.tags = append(r.tags, n.tags...)
			r.images["1.3"] = n.images["1.3"]
			return r
		}(), Newer, "a:1.2" + at("1.2"), ""},
		"moved, a platform less":      {"a:1.2" + at("old"), Policy{}, moved(func(_, p *catalog.Image) { p.Platforms = platforms("linux/amd64 linux/arm64") }), Blocked, "", "lacks linux/arm64"},
		"moved back, ours":            {"a:1.2" + at("old"), Policy{}, ours(moved(func(m, p *catalog.Image) { p.Since = m.Since.Add(time.Minute) })), Current, "", "older than what the code has"},
		"moved on, ours":              {"a:1.2" + at("old"), Policy{}, ours(moved(func(m, p *catalog.Image) { p.Since = m.Since.Add(-time.Second) })), Newer, "a:1.2" + at("1.2"), ""},
		"seen later":                  {"a:1.2" + at("old"), Policy{}, times(10, 20, 50, 40), Newer, "a:1.2" + at("1.2"), ""},
		"seen earlier":                {"a:1.2" + at("old"), Policy{}, times(20, 10, -1, -1), Current, "", "older"},
		"seen earlier, made earlier":  {"a:1.2" + at("old"), Policy{}, times(20, 10, 50, 40), Current, "", "older"},
		"seen earlier, made later":    {"a:1.2" + at("old"), Policy{}, times(20, 10, 40, 50), Newer, "a:1.2" + at("1.2"), ""},
		"seen together":               {"a:1.2" + at("old"), Policy{}, times(10, 10, -1, -1), Newer, "a:1.2" + at("1.2"), ""},
		"seen together, made earlier": {"a:1.2" + at("old"), Policy{}, times(10, 10, 50, 40), Current, "", "older"},
		"never seen":                  {"a:1.2" + at("old"), Policy{}, times(-1, -1, 40, 50), Newer, "a:1.2" + at("1.2"), ""},
		"never seen, made earlier":    {"a:1.2" + at("old"), Policy{}, times(-1, -1, 50, 40), Current, "", "older"},
		"seen just before":            {"a:1.2" + at("old"), Policy{}, moved(func(m, p *catalog.Image) { p.Since = m.Since.Add(30 * time.Minute) }), Newer, "a:1.2" + at("1.2"), ""},
		"moved to a known one":        {"a:1.2" + at("old"), Policy{Cooldown: 3 * day}, moved(func(m, _ *catalog.Image) { m.Since = now.Add(-9 * day) }).moves("1.2", day), Held, "", "due 2026-11-25"},
		"pinned is gone":              {"a:1.2" + at("lost"), Policy{}, newRegistry("1.2"), Unknown, "", "platforms: [linux/amd64] would say it"},
		"pinned is gone, needed":      {"a:1.2" + at("lost"), Policy{Needed: platforms("linux/amd64")}, newRegistry("1.2"), Newer, "a:1.2" + at("1.2"), ""},
		"tag is gone":                 {"a:1.2" + at("old"), Policy{}, newRegistry("1.1"), Unknown, "", "the tag 1.2 is gone"},
		"pin":                         {"a:1.2", Policy{Pin: &yes}, newRegistry("1.2"), Newer, "a:1.2" + at("1.2"), "adds the digest"},
		"pin latest":                  {"a", Policy{Pin: &yes}, newRegistry("latest"), Newer, "a:latest" + at("latest"), "adds the digest"},
		"pin a newer one":             {"a:1.2", Policy{Pin: &yes}, newRegistry("1.2 1.3"), Newer, "a:1.3" + at("1.3"), ""},
		"pin the newest":              {"a:1.2" + at("1.2"), Policy{Pin: &yes}, newRegistry("1.2"), Current, "", ""},
		"unpin":                       {"a:1.2" + at("1.2"), Policy{Pin: &no}, newRegistry("1.2 1.3"), Newer, "a:1.3", ""},
		"unpin nothing":               {"a:1.2" + at("old"), Policy{Pin: &no}, moved(nil), Current, "", ""},
		"digest only":                 {"a" + at("old"), Policy{}, listing, Newer, "a" + at("1.2.4"), "1.2.4 is newer than 1.2.3"},
		"digest only, unpin":          {"a" + at("old"), Policy{Pin: &no}, listing, Newer, "a" + at("1.2.4"), ""},
		"by its label":                {"a" + at("v1.2.3"), Policy{}, labelled, Newer, "a" + at("v1.2.4"), ""},
		"a label that lies":           {"a" + at("old"), Policy{}, liar, Unversioned, "", "write the tag before the digest"},
		"digest of nothing":           {"a" + at("lost"), Policy{}, newRegistry("1.2"), Unversioned, "", "no tag is known that names"},
	} {
		got := Choose(c.ref, c.p, c.r.facts())
		if got.State != c.want || got.To != c.to || !strings.Contains(got.Reason, c.say) || got.Reason == "" {
			t.Errorf("%s: %s %q (%s), want %s %q (…%s…)", name, got.State, got.To, got.Reason, c.want, c.to, c.say)
		}
	}
}

func TestMajors(t *testing.T) {
	separate := Policy{Major: "separate"}
	for _, c := range []struct {
		tags, to, also string
		p              Policy
		major          bool
	}{
		{"1.3 2.0 2.1", "a:1.3", "a:2.1", separate, false},
		{"2.0 2.1", "a:2.1", "", separate, true},
		{"1.3", "a:1.3", "", separate, false},
		{"", "", "", separate, false},
		{"1.3 2.0", "a:1.3", "", Policy{}, false},
		{"1.3 2.0", "a:2.0", "", Policy{Major: "together"}, false},
	} {
		got := Choose("a:1.2", c.p, newRegistry("1.2 "+c.tags).facts())
		also := ""
		if got.Also != nil {
			also = got.Also.To
			if !got.Also.Major || got.Also.State != Newer || got.Also.Reason == "" {
				t.Errorf("%q: also %+v", c.tags, got.Also)
			}
		}
		if got.To != c.to || also != c.also || got.Major != c.major {
			t.Errorf("%q by %q: %+v, want %q and %q", c.tags, c.p.Major, got, c.to, c.also)
		}
	}
	// The digest of the tag moves, and there is a new major version.
	r := newRegistry("1.2 2.0")
	old := r.images["1.2"]
	old.Digest = digestOf("old")
	r.old[old.Digest] = old
	got := Choose("a:1.2@"+string(old.Digest), separate, r.facts())
	if got.To != "a:1.2@"+string(digestOf("1.2")) || got.Also == nil || got.Also.To != "a:2.0@"+string(digestOf("2.0")) {
		t.Errorf("digest and major: %+v", got)
	}
	// A major version in its cooldown is told when there is nothing else.
	got = Choose("a:1.2", Policy{Major: "separate", Cooldown: 3 * day}, newRegistry("1.2 2.0").age("2.0", day).facts())
	if got.State != Held || got.Until != now.Add(2*day) {
		t.Errorf("major in its cooldown: %+v", got)
	}
}

func TestPassed(t *testing.T) {
	r := newRegistry("1.2 1.3 1.4 1.5-rc.1 2.0")
	got := Choose("a:1.2", Policy{Ignore: []string{"1.4"}}, r.facts())
	want := "[{2.0 a new major version; major: separate would propose it} {1.5-rc.1 a prerelease; prerelease: true would allow it} {1.4 ignored by 1.4}]"
	if fmt.Sprint(got.Passed) != want || got.To != "a:1.3" {
		t.Errorf("%v, want %v", got.Passed, want)
	}
	if got.Reason != "1.3 is newer than 1.2; passed over: 2.0: a new major version; major: separate would propose it (and 2 more)" {
		t.Error(got.Reason)
	}
	if s := fmt.Sprint(r.looks); s != "[1.3 1.2]" {
		t.Errorf("looked at %v, want the choice and the current one only", s)
	}
	var many strings.Builder
	for i := range 100 {
		fmt.Fprintf(&many, "2.%d ", i)
	}
	got = Choose("a:1.2", Policy{}, newRegistry("1.2 "+many.String()).facts())
	if len(got.Passed) != maxPassed || got.Passed[0].Tag != "2.99" || got.Passed[9].Tag != "2.90" {
		t.Errorf("%v", got.Passed)
	}
	// Nobody makes us look at everything.
	r = newRegistry("1.2 " + strings.ReplaceAll(many.String(), "2.", "1.1"))
	got = Choose("a:1.2", Policy{Signed: true}, r.facts())
	if got.State != Blocked || len(r.looks) > maxPassed+1 {
		t.Errorf("%+v after %d looks", got, len(r.looks))
	}
}
