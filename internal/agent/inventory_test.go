package agent

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
)

// dg is a digest that begins with the hex digits of s.
func dg(s string) image.Digest {
	return image.Digest("sha256:" + fmt.Sprintf("%x", s) + strings.Repeat("0", 64-2*len(s)))
}

func running(digest, subject string) usage.Use {
	return usage.Use{Digest: dg(digest), Source: usage.Container, Subject: subject}
}

func wants(digest, subject string) usage.Use {
	return usage.Use{Digest: dg(digest), Source: usage.Workload, Subject: subject}
}

func on(nodes int, u usage.Use) usage.Use {
	u.Nodes = nodes
	return u
}

func TestCompose(t *testing.T) {
	noisy := running("a", "x")
	noisy.At, noisy.Now = time.Unix(5, 0), true
	found := map[string][]image.Digest{"busybox:1": {dg("c"), dg("d")}, "gone:1": nil}
	tests := []struct {
		name   string
		uses   []usage.Use
		wanted []Wanted
		want   []usage.Use
	}{
		{"nothing", nil, nil, nil},
		{"once each", []usage.Use{running("b", "x"), running("a", "x"), noisy}, nil, []usage.Use{running("a", "x"), running("b", "x")}},
		{"the same image of two workloads", []usage.Use{running("a", "y"), running("a", "x")}, nil, []usage.Use{running("a", "x"), running("a", "y")}},
		{"runs and is wanted", []usage.Use{wants("a", "x"), running("a", "x")}, nil, []usage.Use{running("a", "x"), wants("a", "x")}},
		{"tags", nil, []Wanted{{"busybox:1", "x"}}, []usage.Use{wants("c", "x"), wants("d", "x")}},
		{"a tag that names nothing", nil, []Wanted{{"gone:1", "x"}, {"never:1", "x"}}, nil},
		{"on most nodes", []usage.Use{on(2, running("a", "x")), running("b", "x"), on(5, running("a", "x"))}, nil, []usage.Use{on(5, running("a", "x")), running("b", "x")}},
		{"without a digest", []usage.Use{{Source: usage.Container, Subject: "x"}}, nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Compose(tt.uses, tt.wanted, found)
			if !slices.Equal(got, tt.want) {
				t.Errorf("got  %v\nwant %v", got, tt.want)
			}
		})
	}
}

func TestGone(t *testing.T) {
	set := func(names string) []usage.Use {
		var out []usage.Use
		for _, n := range strings.Fields(names) {
			out = append(out, running(n, "x"))
		}
		return Compose(out, nil, nil)
	}
	for _, tt := range []struct{ before, now, want string }{
		{"", "", ""}, {"a", "", "a"}, {"", "a", ""}, {"a b c", "b", "a c"}, {"b", "a b c", ""}, {"a c e", "b d f", "a c e"}, {"a b", "b c", "a"},
	} {
		if got, want := Gone(set(tt.before), set(tt.now)), set(tt.want); !slices.Equal(got, want) {
			t.Errorf("Gone(%q, %q) = %v, want %v", tt.before, tt.now, got, want)
		}
	}
}

func TestParts(t *testing.T) {
	for n := range 8 {
		s := usage.Statement{Statement: "s", Complete: true, Period: time.Minute}
		for i := range n {
			s.Uses = append(s.Uses, running(fmt.Sprint(i), "x"))
		}
		var all []usage.Use
		parts := Parts(s, 3)
		if want := max(1, (n+2)/3); len(parts) != want {
			t.Errorf("%d uses in %d parts, want %d", n, len(parts), want)
		}
		for i, p := range parts {
			if p.Part != i+1 || p.Parts != len(parts) || !p.Complete || p.Statement != "s" || len(p.Uses) > 3 {
				t.Errorf("part %d: %+v", i, p)
			}
			all = append(all, p.Uses...)
		}
		if !slices.Equal(all, s.Uses) {
			t.Errorf("%d uses: the parts together are not the whole", n)
		}
	}
}

func TestName(t *testing.T) {
	a, b := []usage.Use{running("a", "x")}, []usage.Use{running("a", "y")}
	if Name(a) == Name(b) || Name(a) != Name(slices.Clone(a)) || Name(nil) == Name(a) || Name([]usage.Use{wants("a", "x")}) == Name(a) {
		t.Error("names do not tell statements apart")
	}
}

func TestSpool(t *testing.T) {
	at := func(u usage.Use, s int64) usage.Use { u.At = time.Unix(s, 0); return u }
	s := newSpool(3)
	s.add(at(running("a", "x"), 5), at(running("b", "x"), 3), at(running("a", "x"), 4), at(running("b", "x"), 7), usage.Use{})
	if got, want := s.take(1), []usage.Use{at(running("a", "x"), 5)}; !slices.Equal(got, want) {
		t.Errorf("took %v, want the oldest with its newest time: %v", got, want)
	}
	s.add(at(running("c", "x"), 1), at(running("d", "x"), 9), at(running("e", "x"), 8), at(running("f", "x"), 2))
	if s.len() != 3 || s.lost() != 2 {
		t.Errorf("%d uses, %d lost, want 3 and 2: c made room, f had none", s.len(), s.lost())
	}
	var got []string
	for _, u := range s.take(10) {
		got = append(got, fmt.Sprint(u.At.Unix()))
	}
	if strings.Join(got, " ") != "7 8 9" {
		t.Errorf("took %v", got)
	}
	if s.len() != 0 || len(s.take(1)) != 0 {
		t.Error("not empty")
	}
}
