package agent

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"math/bits"
	"slices"
	"strconv"

	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
)

// Compose is what a statement says: each use once, in order, with what
// workloads want as uses of what found resolves it to. Uses without a digest
// that the server could understand are left out; of the same use, the one on
// most nodes stays. It keeps the memory of uses.
func Compose(uses []usage.Use, wanted []Wanted, found map[string][]image.Digest) []usage.Use {
	for _, w := range wanted {
		for _, d := range found[w.Reference] {
			uses = append(uses, usage.Use{Digest: d, Source: usage.Workload, Subject: w.Subject})
		}
	}
	uses = slices.DeleteFunc(uses, func(u usage.Use) bool { return u.Digest == "" })
	for i := range uses {
		uses[i] = usage.Use{Digest: uses[i].Digest, Repository: uses[i].Repository, Source: uses[i].Source, Subject: uses[i].Subject, Nodes: uses[i].Nodes}
	}
	slices.SortFunc(uses, func(a, b usage.Use) int { return cmp.Or(compare(a, b), b.Nodes-a.Nodes) })
	return slices.CompactFunc(uses, func(a, b usage.Use) bool { return compare(a, b) == 0 })
}

func compare(a, b usage.Use) int {
	return cmp.Or(cmp.Compare(a.Digest, b.Digest), cmp.Compare(a.Source, b.Source), cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Repository, b.Repository))
}

// Gone is what of before is not in now. Both are as [Compose] made them.
func Gone(before, now []usage.Use) []usage.Use {
	var out []usage.Use
	for len(before) > 0 {
		switch {
		case len(now) == 0 || compare(before[0], now[0]) < 0:
			out = append(out, before[0])
			before = before[1:]
		case compare(before[0], now[0]) == 0:
			before, now = before[1:], now[1:]
		default:
			now = now[1:]
		}
	}
	return out
}

// Name is what a statement of these uses is called. The same uses have the
// same name, so that saying them again needs no more than the name. Counts of
// nodes go into it as powers of two: a workload that grows from 40 nodes to 41
// is not worth saying everything again.
func Name(uses []usage.Use) string {
	h := sha256.New()
	var b []byte
	for _, u := range uses {
		b = append(b[:0], u.Digest...)
		b = append(b, ' ')
		b = strconv.AppendUint(b, uint64(u.Source), 10)
		b = append(b, ' ')
		b = append(b, u.Repository...)
		b = append(b, ' ')
		b = append(b, u.Subject...)
		b = append(b, ' ')
		b = strconv.AppendInt(b, int64(bits.Len(uint(max(u.Nodes, 0)))), 10)
		b = append(b, '\n')
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}

// Parts cuts a statement into pieces of at most size uses. There is always
// one, because that nothing is in use has to be said, too.
func Parts(s usage.Statement, size int) []usage.Statement {
	n := max(1, (len(s.Uses)+size-1)/size)
	out := make([]usage.Statement, 0, n)
	uses := s.Uses
	for i := range n {
		p := s
		k := min(size, len(uses))
		p.Part, p.Parts, p.Uses = i+1, n, uses[:k:k]
		uses = uses[k:]
		out = append(out, p)
	}
	return out
}
