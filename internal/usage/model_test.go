package usage

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// model is what statements mean, in the plainest words: for every reporter the
// uses in force by source, and for every use when it was last heard of.
type model struct {
	force   map[string]map[fact]bool
	by      map[string]map[Source]string // reporter: statement in force for a source
	covers  map[string]map[string][]Source
	pending map[string]*modelPending
	dropped map[string]string
	last    map[fact]time.Time
}

type fact struct {
	name    string
	source  Source
	subject string
}

type modelPending struct {
	id      string
	parts   int
	have    map[int]bool
	facts   []fact
	sources map[Source]bool
}

func newModel() *model {
	return &model{map[string]map[fact]bool{}, map[string]map[Source]string{}, map[string]map[string][]Source{}, map[string]*modelPending{}, map[string]string{}, map[fact]time.Time{}}
}

func (m *model) forget(r string) {
	delete(m.force, r)
	delete(m.by, r)
	delete(m.covers, r)
	delete(m.pending, r)
	delete(m.dropped, r)
}

// abandon drops what is unfinished; its late parts are refused, unless the
// statement is also the one in force.
func (m *model) abandon(r string) {
	if p := m.pending[r]; p != nil {
		m.dropped[r] = p.id
		for _, id := range m.by[r] {
			if id == p.id {
				m.dropped[r] = ""
			}
		}
		delete(m.pending, r)
	}
}

// report says whether the statement is known.
func (m *model) report(r string, s Statement, now time.Time) bool {
	if m.force[r] == nil {
		if s.SameAs != "" {
			return false
		}
		m.force[r], m.by[r], m.covers[r] = map[fact]bool{}, map[Source]string{}, map[string][]Source{}
	}
	if s.SameAs != "" {
		sources := m.covers[r][s.SameAs]
		for _, src := range sources {
			if m.by[r][src] != s.SameAs {
				return false
			}
		}
		for f := range m.force[r] {
			if slices.Contains(sources, f.source) {
				m.last[f] = now
			}
		}
		return len(sources) > 0
	}
	parts, part := max(s.Parts, 1), max(s.Part, 1)
	p := m.pending[r]
	if p == nil || p.id != s.Statement || p.parts != parts || parts == 1 {
		if part > 1 && m.dropped[r] == s.Statement {
			return false
		}
		m.abandon(r)
		p = &modelPending{s.Statement, parts, map[int]bool{}, nil, map[Source]bool{}}
		m.pending[r] = p
	}
	again := p.have[part]
	p.have[part] = true
	for _, u := range s.Uses {
		f := fact{string(u.Digest), u.Source, u.Subject}
		m.last[f] = now
		if !again {
			p.facts = append(p.facts, f)
			p.sources[u.Source] = true
		}
	}
	if !again {
		for _, src := range s.Sources {
			p.sources[src] = true
		}
	}
	if len(p.have) < parts {
		return true
	}
	delete(m.pending, r)
	delete(m.dropped, r)
	maps.DeleteFunc(m.by[r], func(_ Source, id string) bool { return id == p.id })
	if len(p.sources) == 0 {
		p.sources[Container], p.sources[Workload] = true, true
	}
	maps.DeleteFunc(m.force[r], func(f fact, _ bool) bool { return p.sources[f.source] })
	for _, f := range p.facts {
		m.force[r][f] = true
	}
	m.covers[r][p.id] = slices.Collect(maps.Keys(p.sources))
	for src := range p.sources {
		m.by[r][src] = p.id
	}
	return true
}

// TestModel reports at random and compares with the model after each step.
func TestModel(t *testing.T) {
	for seed := range uint64(12) {
		w := newWorld(t)
		m := newModel()
		rnd := rand.New(rand.NewPCG(seed, 5))
		sources := []Source{Container, Workload, Run}
		var history []string
		for range 400 {
			w.clock.Advance(time.Second)
			now := w.clock.Now()
			r := fmt.Sprint("r", rnd.IntN(3))
			s := Statement{Reporter: r, Period: time.Minute}
			switch k := rnd.IntN(20); {
			case k == 0:
				history = append(history, "forget "+r)
				err := w.l.Forget(w.ctx, r)
				if known := m.force[r] != nil; known != (err == nil) {
					t.Fatalf("seed %d: %v: %v", seed, history, err)
				}
				m.forget(r)
			case k < 5:
				s.SameAs = fmt.Sprint("s", rnd.IntN(4))
			default:
				s.Complete, s.Statement = true, fmt.Sprint("s", rnd.IntN(4))
				if rnd.IntN(3) > 0 {
					s.Parts = 1 + rnd.IntN(3)
					s.Part = 1 + rnd.IntN(s.Parts)
				}
				in := sources[:1+rnd.IntN(3)]
				if rnd.IntN(2) == 0 {
					s.Sources = in
				}
				for range rnd.IntN(4) {
					s.Uses = append(s.Uses, use(fmt.Sprint("d", rnd.IntN(5)), in[rnd.IntN(len(in))], fmt.Sprint("x", rnd.IntN(2))))
				}
			}
			if s.Complete || s.SameAs != "" {
				history = append(history, fmt.Sprintf("%+v", s))
				_, err := w.l.Report(w.ctx, Identity{}, s)
				if ok := m.report(r, s, now); ok != (err == nil) || !ok && !errors.Is(err, ErrUnknownStatement) {
					t.Fatalf("seed %d: the model says %v, the ledger %v, after\n%v", seed, ok, err, history[max(0, len(history)-8):])
				}
			}
			want := map[fact]string{}
			for f, at := range m.last {
				held := false
				for _, force := range m.force {
					held = held || force[f]
				}
				want[f] = fmt.Sprint(at, held)
			}
			got := map[fact]string{}
			for i := range 5 {
				for _, u := range w.l.Uses(dg(fmt.Sprint("d", i))) {
					got[fact{string(u.Digest), u.Source, u.Subject}] = fmt.Sprint(u.At, u.Now)
				}
			}
			if !maps.Equal(got, want) {
				t.Fatalf("seed %d: uses are\n%v\nwant\n%v\nafter\n%v", seed, got, want, history[max(0, len(history)-8):])
			}
		}
	}
}
