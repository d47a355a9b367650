package usage

import "hash/maphash"

// A table finds numbers by the hash of what they stand for. It takes half the
// memory of a map, because the keys stay where they are anyhow: in names,
// entries and rows. Slots hold the hash above the number + 1; a slot that is
// taken sends to the next one. At most three quarters are taken.
type table struct {
	slots []uint64
	used  int
}

// find returns the number with this hash for which is says yes.
func (t *table) find(hash uint32, is func(i uint32) bool) (uint32, bool) {
	if t.used == 0 {
		return 0, false
	}
	mask := uint32(len(t.slots) - 1)
	for p := hash & mask; t.slots[p] != 0; p = (p + 1) & mask {
		if s := t.slots[p]; uint32(s>>32) == hash && is(uint32(s)-1) {
			return uint32(s) - 1, true
		}
	}
	return 0, false
}

// put adds a number that is not there yet.
func (t *table) put(hash, i uint32) {
	if (t.used+1)*4 > len(t.slots)*3 {
		old := t.slots
		t.slots = make([]uint64, max(8, 2*len(old)))
		for _, s := range old {
			if s != 0 {
				t.place(s)
			}
		}
	}
	t.used++
	t.place(uint64(hash)<<32 | uint64(i+1))
}

func (t *table) place(s uint64) {
	mask := uint32(len(t.slots) - 1)
	p := uint32(s>>32) & mask
	for t.slots[p] != 0 {
		p = (p + 1) & mask
	}
	t.slots[p] = s
}

// drop removes a number that is there.
func (t *table) drop(hash, i uint32) {
	mask := uint32(len(t.slots) - 1)
	p := hash & mask
	for t.slots[p] != uint64(hash)<<32|uint64(i+1) {
		if t.slots[p] == 0 {
			return
		}
		p = (p + 1) & mask
	}
	t.used--
	// Those behind it move up, unless that would take them before the place
	// their hash sends to.
	for q := (p + 1) & mask; t.slots[q] != 0; q = (q + 1) & mask {
		home := uint32(t.slots[q]>>32) & mask
		if (q-home)&mask >= (q-p)&mask {
			t.slots[p] = t.slots[q]
			p = q
		}
	}
	t.slots[p] = 0
}

// hashes are made with a seed of the ledger's own, so that nobody who chooses
// names and digests can choose where they go.
func hashOf(seed maphash.Seed, s string) uint32 { return uint32(maphash.String(seed, s)) }

func (k key) hash(seed uint64) uint32 {
	h := seed
	for _, x := range [...]uint64{uint64(k.entry)<<32 | uint64(k.repository), uint64(k.subject)<<32 | uint64(k.source)} {
		h = (h ^ x) * 0x9e3779b97f4a7c15
		h ^= h >> 32
	}
	return uint32(h)
}
