package retention

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
)

// Random registries under MaxBytes, against what must hold, stated naively.
func TestMaxBytesRandomly(t *testing.T) {
	rounds := 3000
	if testing.Short() {
		rounds = 300
	}
	went := 0
	for seed := range uint64(rounds) {
		rng := rand.New(rand.NewPCG(seed, 0))
		limit := int64(1 + rng.IntN(150))
		h := newHouse(t, Policy{Repositories: []string{"**"}, MaxBytes: limit, KeepLast: rng.IntN(2)})
		firm := map[string]bool{}
		repos := []string{"app", "lib"}
		type spec struct {
			repo, name, subject string
			children            []string
		}
		var specs []spec
		for i := range 3 + rng.IntN(9) {
			s := spec{repo: repos[rng.IntN(2)], name: fmt.Sprintf("m%d", i)}
			var opts []opt
			for _, o := range specs {
				if o.repo != s.repo {
					continue
				}
				switch rng.IntN(8) {
				case 0:
					s.children = append(s.children, o.name)
				case 1:
					s.subject = o.name
				}
			}
			opts = append(opts, lists(s.children...))
			if s.subject != "" {
				opts = append(opts, refersTo(s.subject))
			}
			h.registry.push(s.repo, s.name, opts...)
			specs = append(specs, s)
			blobs := map[image.Digest]int64{}
			for range rng.IntN(4) {
				b := rng.IntN(8)
				blobs[dg(fmt.Sprint("b", b))] = int64(1 + b*3)
			}
			h.registry.blobs[dg(s.name)] = blobs
			if rng.IntN(6) == 0 {
				h.registry.pins = append(h.registry.pins, content.Pin{Repository: s.repo, Digest: dg(s.name), Created: t0})
				firm[s.repo+s.name] = true
			}
			h.pass(float64(rng.IntN(3)))
			if len(specs) > 1 && rng.IntN(3) == 0 {
				o := specs[rng.IntN(len(specs))]
				h.ledger.use(usage.Use{Digest: dg(o.name), Repository: o.repo, Source: usage.Pull, At: h.clock.Now()})
			}
		}
		h.pass(1)
		gone := map[string]bool{}
		last := map[string]int64{}
		_, err := h.engine.Plan(h.ctx, h.clock.Now(), func(d Decision) error {
			k := d.Image.Repository + name(d.Image.Digest)
			gone[k] = d.Action == Expire
			last[k] = d.LastUse.At.UnixNano()
			if d.Code == KeepLast || d.Code == Pinned || d.Code == InUse {
				firm[k] = true
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		// What hangs on something firm is firm; a pin below keeps the index.
		hangs := map[string]bool{} // on a subject
		for again := true; again; {
			again = false
			set := func(k string, on bool) {
				if on && !firm[k] {
					firm[k], again = true, true
				}
			}
			for _, s := range specs {
				for _, c := range s.children {
					set(s.repo+c, firm[s.repo+s.name])
				}
				if s.subject != "" {
					hangs[s.repo+s.name] = true
					set(s.repo+s.name, firm[s.repo+s.subject])
				}
			}
		}
		// What a referrer lists waits for the referrer, and that for its subject:
		// the order is theirs.
		underReferrer := map[string]bool{}
		for range specs {
			for _, s := range specs {
				for _, c := range s.children {
					if s.subject != "" || underReferrer[s.repo+s.name] {
						underReferrer[s.repo+c] = true
					}
				}
			}
		}
		total := int64(0)
		counted := map[image.Digest]bool{}
		free := 0 // kept, and might have gone
		for _, s := range specs {
			k := s.repo + s.name
			if gone[k] {
				went++
				if firm[k] {
					t.Errorf("seed %d: %s went and must not", seed, k)
				}
				continue
			}
			for b, n := range h.registry.blobs[dg(s.name)] {
				if !counted[b] {
					counted[b] = true
					total += n
				}
			}
			if !firm[k] {
				free++
			}
			for _, c := range s.children {
				if gone[s.repo+c] {
					t.Errorf("seed %d: %s went, and %s lists it and stays", seed, s.repo+c, k)
				}
			}
			if s.subject == "" && !firm[k] && !underReferrer[k] {
				for _, o := range specs {
					if e := o.repo + o.name; gone[e] && o.subject == "" && last[e] > last[k] {
						t.Errorf("seed %d: %s went, and %s is less recently used and stays", seed, e, k)
					}
				}
			}
		}
		for _, s := range specs {
			if s.subject != "" && gone[s.repo+s.name] && !gone[s.repo+s.subject] {
				t.Errorf("seed %d: %s went without its subject", seed, s.repo+s.name)
			}
		}
		if total > limit && free > 0 {
			t.Errorf("seed %d: %d bytes stay, the limit is %d, and %d more images might have gone: %+v gone %v firm %v last %v", seed, total, limit, free, specs, gone, firm, last)
		}
		if t.Failed() {
			return
		}
	}
	if went < rounds {
		t.Errorf("only %d images went in %d rounds", went, rounds)
	}
}
