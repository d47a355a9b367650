package usage

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/image"
)

// dg makes a digest of a short name.
func dg(name string) image.Digest { return image.Digest(fmt.Sprintf("sha256:%064x", name)) }

// facts are uses as a Lookup, by the definition of Better.
type facts map[image.Digest][]Use

func (f facts) lookup(d image.Digest, repository string) (anywhere, here Use) {
	for _, u := range f[d] {
		if anywhere.At.IsZero() || Better(u, anywhere) {
			anywhere = u
		}
		if (u.Repository == "" || u.Repository == repository) && (here.At.IsZero() || Better(u, here)) {
			here = u
		}
	}
	return anywhere, here
}

func (f facts) add(name, repository string, at float64, now bool) {
	d := dg(name)
	f[d] = append(f[d], Use{Digest: d, Repository: repository, Source: Container, Subject: fmt.Sprintf("%s@%v", name, at), At: h(at), Now: now})
}

type man struct {
	name, config string
	children     []string
}

func build(g *Graph, repository string, ms []man) map[string]int {
	g.Reset(repository)
	ids := map[string]int{}
	for _, m := range ms {
		var cs []image.Digest
		for _, c := range m.children {
			cs = append(cs, dg(c))
		}
		config := image.Digest("")
		if m.config != "" {
			config = dg(m.config)
		}
		ids[m.name] = g.Add(dg(m.name), config, cs)
	}
	return ids
}

func TestCredit(t *testing.T) {
	// Two indexes share a platform manifest; one of them is in another index.
	ms := []man{
		{"top", "", []string{"index", "absent"}},
		{"index", "", []string{"amd", "arm"}},
		{"index2", "", []string{"arm", "riscv"}},
		{"amd", "cfg-amd", nil},
		{"arm", "cfg-arm", nil},
		{"riscv", "cfg-riscv", nil},
		{"lone", "", nil},
	}
	type fact struct {
		name, repository string
		at               float64
		now              bool
	}
	tests := []struct {
		name  string
		facts []fact
		want  string // image=hour, "!" for now
	}{
		{"nothing", nil, ""},
		{"down from the top", []fact{{"top", "app", 1, false}}, "top=1 index=1 amd=1 arm=1"},
		{"down from the top, used in another repository", []fact{{"top", "mirror", 1, false}}, "top=1 index=1 amd=1 arm=1"},
		{"up from a platform and down again", []fact{{"amd", "app", 2, false}}, "amd=2 index=2 top=2 arm=2"},
		{"up for a use of any repository", []fact{{"amd", "", 2, false}}, "amd=2 index=2 top=2 arm=2"},
		{"not up for a use in another repository", []fact{{"amd", "mirror", 2, false}}, "amd=2"},
		{"what came down does not go up", []fact{{"index", "app", 3, false}}, "top=3 index=3 amd=3 arm=3"},
		{"up to both indexes of a shared platform", []fact{{"arm", "app", 3, false}}, "top=3 index=3 index2=3 amd=3 arm=3 riscv=3"},
		{"by config", []fact{{"cfg-amd", "app", 4, false}}, "amd=4 index=4 top=4 arm=4"},
		{"by config, in another repository", []fact{{"cfg-amd", "mirror", 4, false}}, ""},
		{"up from a child that is not here", []fact{{"absent", "", 5, false}}, "top=5 index=5 amd=5 arm=5"},
		{"newest wins on each way", []fact{{"amd", "", 1, false}, {"index", "", 2, false}, {"index2", "mirror", 3, false}}, "top=2 index=2 amd=2 arm=3 index2=3 riscv=3"},
		{"one that goes on beats a newer one", []fact{{"amd", "", 1, true}, {"index", "", 9, false}}, "top=1! index=1! amd=1! arm=1!"},
		{"newest of those that go on", []fact{{"amd", "", 1, true}, {"arm", "mirror", 2, true}}, "top=1! index=1! amd=1! arm=2!"},
		{"alone", []fact{{"lone", "app", 1, false}}, "lone=1"},
		{"a name nobody has", []fact{{"stranger", "", 1, false}}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := facts{}
			for _, u := range tt.facts {
				f.add(u.name, u.repository, u.at, u.now)
			}
			var g Graph
			ids := build(&g, "app", ms)
			g.Credit(f.lookup)
			var got []string
			for _, m := range ms {
				if u, ok := g.Last(ids[m.name]); ok {
					s := fmt.Sprintf("%s=%v", m.name, u.At.Sub(day0).Hours())
					if u.Now {
						s += "!"
					}
					got = append(got, s)
				}
			}
			want := strings.Fields(tt.want)
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("credited %v, want %v", got, want)
			}
		})
	}
}

func TestCreditFactsOfTheCaller(t *testing.T) {
	var g Graph
	ids := build(&g, "app", []man{{"index", "", []string{"amd"}}, {"amd", "", nil}, {"other", "", nil}})
	pushed := Use{Digest: dg("amd"), Repository: "app", Source: Push, Subject: "ci", At: h(3)}
	g.Use(ids["amd"], pushed)
	g.Use(ids["amd"], Use{Source: Push, At: h(2)})
	pin := Use{Digest: dg("other"), Source: Pin, Subject: "alice", Now: true} // since when is not known
	g.Use(ids["other"], pin)
	g.Credit(facts{}.lookup)
	for name, want := range map[string]Use{"amd": pushed, "index": pushed, "other": pin} {
		if got, ok := g.Last(ids[name]); !ok || got != want {
			t.Errorf("Last(%s) = %v, %v, want %v", name, got, ok, want)
		}
	}
}

func TestCreditEndsOnCycles(t *testing.T) {
	ms := []man{{"self", "", []string{"self"}}, {"a", "", []string{"b"}}, {"b", "", []string{"c", "leaf"}}, {"c", "", []string{"a"}}, {"leaf", "", nil}, {"above", "", []string{"a"}}}
	for _, used := range []string{"self", "a", "c", "leaf", "above"} {
		f := facts{}
		f.add(used, "", 1, false)
		var g Graph
		ids := build(&g, "app", ms)
		g.Credit(f.lookup)
		for name, i := range ids {
			_, got := g.Last(i)
			// Everything but self hangs together in both directions.
			if want := (name == "self") == (used == "self"); got != want {
				t.Errorf("use of %s credited to %s: %v, want %v", used, name, got, want)
			}
		}
	}
}

func TestGraphAddTwiceAndReuse(t *testing.T) {
	var g Graph
	build(&g, "first", []man{{"x", "", []string{"y"}}, {"y", "", nil}})
	ids := build(&g, "app", []man{{"index", "", []string{"amd"}}, {"index", "", []string{"arm"}}, {"amd", "", nil}, {"y", "", nil}})
	f := facts{}
	f.add("amd", "", 1, false)
	f.add("x", "", 2, false) // of the repository before
	g.Credit(f.lookup)
	if u, ok := g.Last(ids["index"]); !ok || !u.At.Equal(h(1)) {
		t.Errorf("index: %v, %v", u, ok)
	}
	if u, ok := g.Last(ids["y"]); ok {
		t.Errorf("y was credited %v by an edge of the repository before", u)
	}
}

// naiveCredit follows the rules by their words, for one node and one use.
func naiveCredit(ms []man, f facts, repository, name string) (best Use, ok bool) {
	reach := func(from string) map[string]bool { // everything that from needs
		seen := map[string]bool{}
		var walk func(string)
		walk = func(n string) {
			if seen[n] {
				return
			}
			seen[n] = true
			for _, m := range ms {
				if m.name == n {
					for _, c := range m.children {
						walk(c)
					}
				}
			}
		}
		walk(from)
		return seen
	}
	consider := func(u Use) {
		if !ok || Better(u, best) {
			best, ok = u, true
		}
	}
	names := []string{}
	for _, m := range ms {
		names = append(names, m.name)
		names = append(names, m.children...)
	}
	for _, p := range names { // whatever needs name
		if !reach(p)[name] {
			continue
		}
		for _, u := range f[dg(p)] {
			consider(u)
		}
		for c := range reach(p) { // what goes up to p
			ds := []image.Digest{dg(c)}
			for _, m := range ms {
				if m.name == c && m.config != "" {
					ds = append(ds, dg(m.config))
				}
			}
			for _, d := range ds {
				for _, u := range f[d] {
					if u.Repository == "" || u.Repository == repository {
						consider(u)
					}
				}
			}
		}
	}
	return best, ok
}

func TestCreditRandom(t *testing.T) {
	var g Graph
	for seed := range uint64(3000) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		n := 1 + rnd.IntN(9)
		var ms []man
		for i := range n {
			m := man{name: fmt.Sprint("m", i)}
			if rnd.IntN(2) == 0 {
				m.config = fmt.Sprint("c", rnd.IntN(4))
			}
			for range rnd.IntN(4) {
				c := rnd.IntN(n + 2) // also some that are not here
				if seed%4 != 0 && c <= i {
					continue // mostly without cycles
				}
				m.children = append(m.children, fmt.Sprint("m", c))
			}
			ms = append(ms, m)
		}
		rnd.Shuffle(n, func(i, j int) { ms[i], ms[j] = ms[j], ms[i] })
		f := facts{}
		for k := range rnd.IntN(6) {
			name := fmt.Sprint("m", rnd.IntN(n+2))
			if rnd.IntN(3) == 0 {
				name = fmt.Sprint("c", rnd.IntN(4))
			}
			f.add(name, []string{"", "app", "mirror"}[rnd.IntN(3)], float64(rnd.IntN(50)*10+k), rnd.IntN(5) == 0)
		}
		ids := build(&g, "app", ms)
		g.Credit(f.lookup)
		for _, m := range ms {
			want, wantOK := naiveCredit(ms, f, "app", m.name)
			got, ok := g.Last(ids[m.name])
			if ok != wantOK || ok && (got.Now != want.Now || !got.At.Equal(want.At)) {
				t.Fatalf("seed %d: %s is credited %v (%v), want %v (%v); manifests %v, uses %v", seed, m.name, got, ok, want, wantOK, ms, f)
			}
			all := g.Uses(ids[m.name], func(d image.Digest) []Use { return f[d] })
			if ok != (len(all) > 0) || ok && (all[0].Now != want.Now || !all[0].At.Equal(want.At)) {
				t.Fatalf("seed %d: Uses(%s) begins with %v, want %v", seed, m.name, all, want)
			}
		}
	}
}

// BenchmarkCredit credits 1,000,000 images in 100,000 repositories per
// operation: in each two indexes of four platforms.
func BenchmarkCredit(b *testing.B) {
	const repos = 100_000
	type repo struct {
		name     string
		digests  [10]image.Digest
		configs  [10]image.Digest
		children [2][]image.Digest
	}
	all := make([]repo, repos)
	for r := range all {
		all[r].name = fmt.Sprintf("team-%d/app-%d", r%100, r)
		for i := range 10 {
			all[r].digests[i] = dg(fmt.Sprint("d", r, "-", i))
			if i > 1 {
				all[r].configs[i] = dg(fmt.Sprint("c", r, "-", i))
			}
		}
		all[r].children = [2][]image.Digest{all[r].digests[2:6], all[r].digests[6:10]}
	}
	u := Use{Digest: dg("x"), Source: Container, At: h(1)}
	lookup := func(d image.Digest, repository string) (Use, Use) {
		if d[len(d)-1] < '4' {
			return u, u
		}
		return Use{}, Use{}
	}
	var g Graph
	b.ReportAllocs()
	for b.Loop() {
		start, n := time.Now(), 0
		for r := range all {
			g.Reset(all[r].name)
			for i, d := range all[r].digests {
				var cs []image.Digest
				if i < 2 {
					cs = all[r].children[i]
				}
				g.Use(g.Add(d, all[r].configs[i], cs), Use{Source: Push, At: h(0)})
			}
			g.Credit(lookup)
			for i := range 10 {
				if _, ok := g.Last(i); ok {
					n++
				}
			}
		}
		if n != 10*repos {
			b.Fatalf("%d images credited", n)
		}
		b.ReportMetric(time.Since(start).Seconds(), "s/million")
	}
}
