package retention

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
)

const day = 24 * time.Hour

var t0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// dg makes a digest of a short name.
func dg(name string) image.Digest { return image.Digest("sha256:" + fmt.Sprintf("%064x", name)) }

func name(d image.Digest) string {
	var b strings.Builder
	hex := strings.TrimLeft(strings.TrimPrefix(string(d), "sha256:"), "0")
	for i := 0; i+1 < len(hex); i += 2 {
		var c byte
		fmt.Sscanf(hex[i:i+2], "%02x", &c)
		b.WriteByte(c)
	}
	return b.String()
}

// scene builds facts in few words. Times are days from t0.
type scene struct {
	images  []content.Image
	uses    map[image.Digest][]usage.Use
	owned   map[image.Digest][]usage.Use
	doubt   []usage.Interval
	badTime bool
	now     float64
}

func at(days float64) time.Time { return t0.Add(time.Duration(days * float64(day))) }

type opt func(*content.Image)

func tags(names ...string) opt {
	return func(im *content.Image) {
		for _, n := range names {
			im.Tags = append(im.Tags, content.Tag{Name: n, Pushed: im.Pushed})
		}
	}
}
func lists(names ...string) opt {
	return func(im *content.Image) {
		for _, n := range names {
			im.Children = append(im.Children, dg(n))
		}
	}
}
func refersTo(n string) opt { return func(im *content.Image) { im.Subject = dg(n) } }
func config(n string) opt   { return func(im *content.Image) { im.Config = dg(n) } }
func expired(days float64) opt {
	return func(im *content.Image) { im.State, im.HiddenAt = content.Expired, at(days) }
}
func deleted(days float64) opt {
	return func(im *content.Image) { im.State, im.HiddenAt = content.Deleted, at(days) }
}

func (s *scene) image(n string, pushed float64, opts ...opt) *scene {
	im := content.Image{Repository: "app", Digest: dg(n), Pushed: at(pushed), Size: 100}
	for _, o := range opts {
		o(&im)
	}
	s.images = append(s.images, im)
	return s
}

func (s *scene) use(n string, days float64) *scene {
	return s.fact(usage.Use{Digest: dg(n), Repository: "app", Source: usage.Pull, Subject: "ci", At: at(days)})
}

func (s *scene) running(n string) *scene {
	return s.fact(usage.Use{Digest: dg(n), Source: usage.Container, Subject: "host-a/web", At: at(s.now), Now: true})
}

func (s *scene) fact(u usage.Use) *scene {
	if s.uses == nil {
		s.uses = map[image.Digest][]usage.Use{}
	}
	s.uses[u.Digest] = append(s.uses[u.Digest], u)
	return s
}

func (s *scene) pin(n string) *scene {
	if s.owned == nil {
		s.owned = map[image.Digest][]usage.Use{}
	}
	s.owned[dg(n)] = append(s.owned[dg(n)], usage.Use{Source: usage.Pin, Subject: "me", At: at(0), Now: true})
	return s
}

func (s *scene) uncovered(scope string, from, to float64) *scene {
	iv := usage.Interval{Scope: []string{scope}, From: at(from), Why: "silent", Reporter: "host-a", Cure: "forget host-a"}
	if to > 0 {
		iv.To = at(to)
	}
	s.doubt = append(s.doubt, iv)
	return s
}

func lookup(uses map[image.Digest][]usage.Use) usage.Lookup {
	return func(d image.Digest, repo string) (anywhere, here usage.Use) {
		for _, u := range uses[d] {
			if usage.Better(u, anywhere) {
				anywhere = u
			}
			if (u.Repository == "" || u.Repository == repo) && usage.Better(u, here) {
				here = u
			}
		}
		return anywhere, here
	}
}

func (s *scene) decide(p *Policy) []Decision {
	return Decide(p, Facts{
		Repository: "app", Images: s.images, Last: lookup(s.uses), Owned: s.owned,
		Coverage: usage.NewCoverage(s.doubt, "app"), ClockOK: !s.badTime, Now: at(s.now), Keep: 7 * day,
	})
}

func TestDecide(t *testing.T) {
	month := &Policy{Repositories: []string{"**"}, After: 30 * day}
	with := func(f func(*Policy)) *Policy { p := *month; f(&p); return &p }
	now := func(d float64) *scene { return &scene{now: d} }
	fallback := func(n, suffix string) string {
		return strings.Replace(string(dg(n)), ":", "-", 1) + suffix
	}
	tests := []struct {
		name   string
		policy *Policy
		scene  *scene
		want   string // name: action code, in order of the images
	}{
		{"no policy", nil, now(1000).image("a", 0, tags("v1")), "a:keep/no_policy"},
		{"at the limit", month, now(30).image("a", 0), "a:keep/recent"},
		{"beyond the limit", month, now(30.01).image("a", 0), "a:expire/unused"},
		{"push counts as use", month, now(100).image("a", 80), "a:keep/recent"},
		{"a pull counts", month, now(100).image("a", 0).use("a", 80), "a:keep/recent"},
		{"a use in the future", month, now(100).image("a", 0).use("a", 400), "a:keep/recent"},
		{"running", month, now(100).image("a", 0).running("a"), "a:keep/in_use"},
		{"pinned", month, now(100).image("a", 0).pin("a"), "a:keep/pinned"},
		{"use of the config", month, now(100).image("a", 0, config("cfg")).use("cfg", 90), "a:keep/recent"},
		{"use elsewhere", month, now(100).image("a", 0).
			fact(usage.Use{Digest: dg("a"), Repository: "other", Source: usage.Container, At: at(90)}), "a:keep/recent"},
		{"use of a child elsewhere", month, now(100).image("i", 0, lists("c")).image("c", 0).
			fact(usage.Use{Digest: dg("c"), Repository: "other", Source: usage.Container, At: at(90)}), "i:expire/unused c:keep/recent"},
		{"use of a child keeps its index and siblings", month, now(100).image("i", 0, lists("c", "e")).image("c", 0).image("e", 0).use("c", 90),
			"i:keep/recent c:keep/recent e:keep/recent"},
		{"two indexes share a child", month, now(100).image("i", 0, lists("c")).image("j", 0, lists("c")).image("c", 0).use("i", 90),
			"i:keep/recent j:expire/unused c:keep/recent"},
		{"children of a protected index", with(func(p *Policy) { p.Protect = []string{"v*"} }),
			now(100).image("i", 0, lists("c"), tags("v1")).image("c", 0).image("x", 0, tags("w1")), "i:keep/protected c:keep/needed x:expire/unused"},
		{"sparse index", month, now(100).image("i", 0, lists("gone")).use("gone", 90), "i:keep/recent"},

		{"doubt keeps", month, now(40).image("a", 0).uncovered("**", 5, 20), "a:keep/doubt"},
		{"doubt elsewhere does not", month, now(40).image("a", 0).uncovered("other/**", 5, 20), "a:expire/unused"},
		{"doubt runs out", month, now(46).image("a", 0).uncovered("**", 5, 20), "a:expire/unused"},
		{"overlapping doubts count once", month, now(46).image("a", 0).uncovered("**", 5, 20).uncovered("app", 10, 15), "a:expire/unused"},
		{"open doubt", month, now(1000).image("a", 0).uncovered("**", 10, 0), "a:keep/doubt"},
		{"open doubt came too late", month, now(40).image("a", 0).uncovered("**", 35, 0), "a:expire/unused"},
		{"the clock", month, (&scene{now: 100, badTime: true}).image("a", 0).image("b", 0, expired(10)), "a:keep/clock_doubt b:hidden/clock_doubt"},

		{"young", with(func(p *Policy) { p.After, p.MinAge = day, 10*day }), now(9).image("a", 0), "a:keep/young"},
		{"no more young", with(func(p *Policy) { p.After, p.MinAge = day, 10*day }), now(10).image("a", 0), "a:expire/unused"},
		{"untagged", with(func(p *Policy) { p.UntaggedAfter = 2 * day }), now(10).image("a", 0).image("b", 0, tags("v1")), "a:expire/unused b:keep/recent"},
		{"untagged child of a kept index", with(func(p *Policy) { p.UntaggedAfter = 2 * day }), now(10).image("i", 0, tags("v1"), lists("c")).image("c", 0),
			"i:keep/recent c:keep/needed"},
		{"keep last", with(func(p *Policy) { p.KeepLast = 2 }),
			now(100).image("a", 1, tags("v1")).image("b", 2, tags("v2")).image("c", 3, tags("v3")).image("d", 4), "a:expire/unused b:keep/keep_last c:keep/keep_last d:expire/unused"},
		{"keep last counts no signatures", with(func(p *Policy) { p.KeepLast = 1 }),
			now(100).image("a", 1, tags("v1")).image("s", 2, tags(fallback("a", ".sig")), refersTo("a")), "a:keep/keep_last s:keep/referrer"},
		{"keep last counts no hidden ones", with(func(p *Policy) { p.KeepLast = 1 }),
			now(100).image("a", 1, tags("v1")).image("b", 2, tags("v2"), expired(99)), "a:keep/keep_last b:hidden/waiting"},
		{"no limit of age", with(func(p *Policy) { p.After = 0 }), now(10000).image("a", 0), "a:keep/no_age_limit"},

		{"referrer stays with its subject", month, now(100).image("a", 0).image("s", 0, refersTo("a")).use("a", 90), "a:keep/recent s:keep/referrer"},
		{"referrer goes with its subject", month, now(100).image("a", 0).image("s", 99, refersTo("a")), "a:expire/unused s:expire/subject_goes"},
		{"referrer in use stays", month, now(100).image("a", 0).image("s", 0, refersTo("a")).running("s"), "a:expire/unused s:keep/in_use"},
		{"referrer pinned stays", month, now(100).image("a", 0).image("s", 0, refersTo("a")).pin("s"), "a:expire/unused s:keep/pinned"},
		{"referrer of a referrer", month, now(100).image("a", 0).image("s", 0, refersTo("a")).image("t", 0, refersTo("s")).use("a", 90),
			"a:keep/recent s:keep/referrer t:keep/referrer"},
		{"referrer without subject", month, now(100).image("s", 90, refersTo("gone")).image("t", 0, refersTo("gone")), "s:keep/recent t:expire/unused"},
		{"referrer of a hidden subject", month, now(100).image("a", 0, deleted(99)).image("s", 90, refersTo("a")), "a:hidden/waiting s:keep/recent"},
		{"referrer that an index lists", month, now(100).image("a", 0).image("i", 95, lists("s")).image("s", 0, refersTo("a")),
			"a:expire/unused i:keep/recent s:keep/needed"},
		{"protected fallback tag follows its subject", with(func(p *Policy) { p.Protect = []string{"sha256-*"} }),
			now(100).image("a", 0).image("s", 0, tags(fallback("a", ".sig")), refersTo("a")), "a:expire/unused s:expire/subject_goes"},
		{"each other's subject", month, now(100).image("a", 95, refersTo("b")).image("b", 0, refersTo("a")).image("c", 0, refersTo("c")),
			"a:keep/recent b:keep/referrer c:expire/unused"},

		{"hidden, waiting", month, now(100).image("a", 0, expired(95)), "a:hidden/waiting"},
		{"hidden, long enough", month, now(100).image("a", 0, expired(93)), "a:sweep/kept_long"},
		{"hidden, not all covered", month, now(100).image("a", 0, expired(93)).uncovered("**", 94, 95), "a:hidden/waiting"},
		{"deleted, long enough", month, now(100).image("a", 0, deleted(93)), "a:sweep/kept_long"},
		{"deleted, but running", month, (&scene{now: 100}).image("a", 0, deleted(80)).running("a"), "a:hidden/in_use"},
		{"used again", month, now(100).image("a", 0, expired(95)).use("a", 96), "a:revive/used_again"},
		{"used before", month, now(100).image("a", 0, expired(95)).use("a", 94), "a:hidden/waiting"},
		{"runs again", month, now(100).image("a", 0, expired(95)).running("a"), "a:revive/in_use"},
		{"deleted by a person, used again", month, now(100).image("a", 0, deleted(95)).use("a", 96), "a:hidden/waiting"},
		{"index used again brings its children and referrers", month,
			now(100).image("i", 0, expired(95), lists("c")).image("c", 0, expired(95)).image("s", 0, expired(95), refersTo("i")).use("i", 96),
			"i:revive/used_again c:revive/used_again s:revive/referrer"},
		{"hidden child of a new index", month, now(100).image("c", 0, expired(95)).image("i", 94, lists("c")), "c:revive/needed i:keep/recent"},
		{"deleted child of an index", month, now(100).image("c", 0, deleted(95)).image("i", 94, lists("c")), "c:hidden/waiting i:keep/recent"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, d := range tt.scene.decide(tt.policy) {
				got = append(got, fmt.Sprintf("%s:%s/%s", name(d.Image.Digest), d.Action, d.Code))
				if d.Reason() == "" {
					t.Errorf("%s has no reason", name(d.Image.Digest))
				}
			}
			if g := strings.Join(got, " "); g != tt.want {
				t.Errorf("got  %s\nwant %s", g, tt.want)
			}
		})
	}
}

func TestDecideForesees(t *testing.T) {
	p := &Policy{After: 30 * day, MinAge: 40 * day, UntaggedAfter: 5 * day}
	tests := []struct {
		name  string
		p     *Policy
		scene *scene
		want  []string
	}{
		{"by age", &Policy{After: 30 * day}, (&scene{now: 10}).image("a", 2), []string{"at 32"}},
		{"doubt puts it off", &Policy{After: 30 * day}, (&scene{now: 10}).image("a", 0).uncovered("**", 3, 8), []string{"at 35"}},
		{"open doubt", &Policy{After: 30 * day}, (&scene{now: 10}).image("a", 0).uncovered("**", 3, 0), []string{"unknown"}},
		{"pinned", &Policy{After: 30 * day}, (&scene{now: 10}).image("a", 0).pin("a"), []string{"never"}},
		{"min age", p, (&scene{now: 10}).image("a", 0, tags("v1")), []string{"at 40"}},
		{"part of two indexes", &Policy{After: 30 * day}, (&scene{now: 20}).image("c", 0).image("i", 1, lists("c")).image("j", 2, lists("c")),
			[]string{"at 32", "at 31", "at 32"}},
		{"part of a pinned index", &Policy{After: 30 * day}, (&scene{now: 20}).image("c", 0).image("i", 1, lists("c")).pin("i"), []string{"never", "never"}},
		{"hidden", &Policy{After: 30 * day}, (&scene{now: 100}).image("a", 0, expired(97)), []string{"at 104"}},
		{"goes now", &Policy{After: 30 * day}, (&scene{now: 100}).image("a", 0), []string{"at 100"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, d := range tt.scene.decide(tt.p) {
				s := d.Horizon.String()
				if d.Horizon == At {
					s = fmt.Sprintf("at %g", d.ExpiresAt.Sub(t0).Hours()/24)
				}
				got = append(got, s)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestLevels(t *testing.T) {
	s := (&scene{now: 100}).image("c", 0).image("s", 0, refersTo("i")).image("i", 0, lists("c", "m")).image("m", 0, lists("c")).
		image("a", 0, refersTo("b")).image("b", 0, refersTo("a")).image("k", 90, lists("x"))
	var got []string
	for _, l := range Levels(s.decide(&Policy{After: 30 * day})) {
		var names []string
		for _, d := range l {
			names = append(names, name(d.Image.Digest))
		}
		got = append(got, strings.Join(names, ""))
	}
	// a and b refer to each other: one of them is first.
	if g := strings.Join(got, " "); g != "ib sma c" && g != "ia smb c" {
		t.Errorf("levels are %s", g)
	}
}

// A long chain of referrers must not cost a quadratic walk or a deep stack.
func TestDecideLongChain(t *testing.T) {
	const n = 50_000
	s := &scene{now: 100}
	s.image("0", 95)
	for i := 1; i < n; i++ {
		s.image(fmt.Sprint(i), 0, refersTo(fmt.Sprint(i-1)))
	}
	start := time.Now()
	for _, d := range s.decide(&Policy{After: 30 * day}) {
		if d.Action != Keep {
			t.Fatalf("%s: %s", name(d.Image.Digest), d.Reason())
		}
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestPolicyCheck(t *testing.T) {
	good := Policy{Repositories: []string{"**"}, After: day}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for want, p := range map[string]Policy{
		"no repositories":   {After: day},
		"empty glob":        {Repositories: []string{""}},
		"protect":           {Repositories: []string{"a"}, Protect: []string{""}},
		"after":             {Repositories: []string{"a"}, After: -1},
		"untagged_after is": {Repositories: []string{"a"}, UntaggedAfter: -1},
		"min_age":           {Repositories: []string{"a"}, MinAge: -1},
		"keep_last":         {Repositories: []string{"a"}, KeepLast: -1},
		"max_bytes":         {Repositories: []string{"a"}, MaxBytes: -1},
	} {
		if err := p.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error about %q, got %v", want, err)
		}
	}
}

func TestMatch(t *testing.T) {
	ps := []Policy{{Name: "a", Repositories: []string{"app/*", "x"}}, {Name: "b", Repositories: []string{"app/**"}}}
	for repo, want := range map[string]string{"app/web": "a", "x": "a", "app/web/dev": "b", "y": ""} {
		got := ""
		if p := Match(ps, repo); p != nil {
			got = p.Name
		}
		if got != want {
			t.Errorf("%s: policy %q, want %q", repo, got, want)
		}
	}
	if Fingerprint(ps) == Fingerprint(ps[:1]) {
		t.Error("different policies have the same fingerprint")
	}
	renamed := slices.Clone(ps)
	renamed[0].Name = "z"
	if Fingerprint(ps) != Fingerprint(renamed) {
		t.Error("a name is no change of policy")
	}
}

func TestDuration(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"30d": 30 * day, "1d12h": 36 * time.Hour, "2h": 2*time.Hour + 3*time.Second, "5m10s": 310 * time.Second, "0s": 0, "500ms": 500 * time.Millisecond,
	} {
		if got := Duration(d); got != want {
			t.Errorf("%v prints as %s, want %s", d, got, want)
		}
	}
}
