package usage

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

var day0 = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)

// h is n hours after the beginning of the story.
func h(n float64) time.Time { return day0.Add(time.Duration(n * float64(time.Hour))) }

func iv(from, to float64, scope ...string) Interval {
	i := Interval{From: h(from), Scope: scope}
	if to >= 0 {
		i.To = h(to)
	}
	if len(scope) == 0 {
		i.Scope = []string{"**"}
	}
	return i
}

func TestCovered(t *testing.T) {
	const open = -1
	tests := []struct {
		name      string
		last, now float64
		in        []Interval
		want      float64
	}{
		{"nothing uncovered", 0, 10, nil, 10},
		{"last in the future", 11, 10, nil, 0},
		{"last now", 10, 10, []Interval{iv(0, 5)}, 0},
		{"one inside", 0, 10, []Interval{iv(2, 5)}, 7},
		{"one before", 6, 10, []Interval{iv(2, 5)}, 4},
		{"one around last", 3, 10, []Interval{iv(2, 5)}, 5},
		{"one around now", 0, 10, []Interval{iv(8, 12)}, 8},
		{"one after now", 0, 10, []Interval{iv(11, 12)}, 10},
		{"one around all", 3, 4, []Interval{iv(2, 5)}, 0},
		{"open", 0, 10, []Interval{iv(7, open)}, 7},
		{"open before last", 5, 10, []Interval{iv(3, open)}, 0},
		{"open in the future", 0, 10, []Interval{iv(12, open)}, 10},
		{"two that overlap count once", 0, 10, []Interval{iv(2, 5), iv(4, 6)}, 6},
		{"two that touch", 0, 10, []Interval{iv(4, 6), iv(2, 4)}, 6},
		{"one in the other", 0, 10, []Interval{iv(2, 8), iv(4, 6)}, 4},
		{"equal ones", 0, 10, []Interval{iv(2, 8), iv(2, 8)}, 4},
		{"closed under open", 0, 10, []Interval{iv(2, 8), iv(4, open)}, 2},
		{"two open", 0, 10, []Interval{iv(6, open), iv(4, open)}, 4},
		{"other scope", 0, 10, []Interval{iv(2, 8, "lib/**")}, 10},
		{"one of its scopes", 0, 10, []Interval{iv(2, 8, "lib/**", "app/*")}, 4},
		{"backwards", 0, 10, []Interval{iv(8, 2)}, 10},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := time.Duration(tt.want * float64(time.Hour))
			if got := Covered(h(tt.last), h(tt.now), "app/web", tt.in); got != want {
				t.Errorf("Covered = %v, want %v", got, want)
			}
		})
	}
}

func TestCoveredAbsurdTimes(t *testing.T) {
	far := time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, in := range [][]Interval{nil, {iv(1, 2)}, {{Scope: everything, From: time.Time{}, To: far}}, {{Scope: everything, From: far}}} {
		for _, last := range []time.Time{{}, h(0), far} {
			for _, now := range []time.Time{{}, h(5), far} {
				if d := Covered(last, now, "a", in); d < 0 {
					t.Errorf("Covered(%v, %v, %v) = %v is negative", last, now, in, d)
				}
				NewCoverage(in, "a").At(last, 1<<62) // must not panic or hang
			}
		}
	}
	if d := Covered(time.Time{}, h(0), "a", nil); d < 200*365*24*time.Hour {
		t.Errorf("something never used has the age %v", d)
	}
}

// naiveAge counts the hours of [last, now) that no interval holds.
func naiveAge(last, now int, in []Interval) (age int) {
	for t := last; t < now; t++ {
		covered := true
		for _, i := range in {
			to := i.To
			if to.IsZero() {
				to = h(float64(now) + 1000)
			}
			if !h(float64(t)).Before(i.From) && h(float64(t)).Before(to) {
				covered = false
			}
		}
		if covered {
			age++
		}
	}
	return age
}

func TestCoverageRandom(t *testing.T) {
	for seed := range uint64(3000) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var in []Interval
		for range rnd.IntN(6) {
			from := float64(rnd.IntN(40))
			to := from + float64(rnd.IntN(12))
			if rnd.IntN(8) == 0 {
				to = -1
			}
			in = append(in, iv(from, to))
		}
		c := NewCoverage(in, "a")
		last, now := rnd.IntN(40), rnd.IntN(50)
		want := time.Duration(naiveAge(last, now, in)) * time.Hour
		if got := c.Age(h(float64(last)), h(float64(now))); got != want {
			t.Fatalf("seed %d: Age(%d, %d) = %v, want %v, in %v", seed, last, now, got, want, in)
		}
		after := rnd.IntN(20)
		limit := time.Duration(after) * time.Hour
		at, ok := c.At(h(float64(last)), limit)
		if !ok {
			if len(c.Open()) == 0 {
				t.Fatalf("seed %d: At knows no time although no interval is open", seed)
			}
			if age := c.Age(h(float64(last)), h(10000)); age > limit {
				t.Fatalf("seed %d: At knows no time, but the age gets to %v > %v", seed, age, limit)
			}
			continue
		}
		if age := c.Age(h(float64(last)), at); age != limit {
			t.Fatalf("seed %d: at %v the age is %v, want just %v", seed, at, age, limit)
		}
		if age := c.Age(h(float64(last)), at.Add(1)); age <= limit {
			t.Fatalf("seed %d: after %v the age is still %v, in %v", seed, at, age, in)
		}
	}
}

func TestCoverages(t *testing.T) {
	in := []Interval{iv(0, 1), iv(2, 3, "app/**"), iv(4, 5, "lib/*"), iv(6, 7, "app/**"), iv(8, -1, "app/web", "other")}
	cs := NewCoverages(in)
	for _, repo := range []string{"app/web", "app/api", "lib/a", "lib/a/b", "none", "other", "app/api2"} {
		for range 2 { // made, then found
			got, want := cs.For(repo).Age(h(0), h(20)), Covered(h(0), h(20), repo, in)
			if got != want {
				t.Errorf("For(%s).Age = %v, want %v", repo, got, want)
			}
		}
	}
	if len(cs.made) != 5 {
		t.Errorf("%d coverages were made, want 5: repositories of the same scopes share one", len(cs.made))
	}
	open := cs.For("app/web").Open()
	if len(open) != 1 || !open[0].From.Equal(h(8)) {
		t.Errorf("Open = %v", open)
	}
}

func BenchmarkCoverageAge(b *testing.B) {
	for _, n := range []int{0, 10, 10000} {
		var in []Interval
		for i := range n {
			in = append(in, iv(float64(3*i), float64(3*i+1)))
		}
		c := NewCoverage(in, "a")
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				c.Age(h(float64(i%30000)), h(40000))
			}
		})
	}
}
