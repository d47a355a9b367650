package usage

import (
	"math/rand/v2"
	"testing"
)

func TestTableRandom(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		var tab table
		want := map[uint32]bool{}
		bits := rnd.IntN(6) // few bits: everything collides
		hash := func(i uint32) uint32 { return (i * 2654435761 >> 7) & (1<<bits - 1) * 0x01010101 }
		for step := range 2000 {
			i := uint32(rnd.IntN(120))
			got, ok := tab.find(hash(i), func(j uint32) bool { return j == i })
			if ok != want[i] || ok && got != i {
				t.Fatalf("seed %d, step %d: find(%d) = %d, %v, want %v", seed, step, i, got, ok, want[i])
			}
			if ok {
				tab.drop(hash(i), i)
				delete(want, i)
			} else {
				tab.put(hash(i), i)
				want[i] = true
			}
			if tab.used != len(want) {
				t.Fatalf("seed %d, step %d: %d are used, want %d", seed, step, tab.used, len(want))
			}
		}
		tab.drop(7, 12345) // not there
	}
}
