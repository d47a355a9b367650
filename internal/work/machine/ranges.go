package machine

import (
	"errors"
	"slices"
	"sort"
)

// span is the items from From up to and without To.
type span struct{ from, to uint32 }

// ranges is a set of items that mostly lie side by side: sorted spans that
// neither overlap nor touch.
type ranges struct {
	spans []span
	n     int
}

// find is the index of the first span that ends behind i.
func (r *ranges) find(i uint32) int {
	return sort.Search(len(r.spans), func(k int) bool { return r.spans[k].to > i })
}

func (r *ranges) has(i uint32) bool {
	k := r.find(i)
	return k < len(r.spans) && r.spans[k].from <= i
}

func (r *ranges) add(i uint32) { r.addSpan(i, i+1) }

// addSpan adds items of which none is in the set yet.
func (r *ranges) addSpan(from, to uint32) {
	if from >= to {
		return
	}
	k := r.find(from)
	left := k > 0 && r.spans[k-1].to == from
	right := k < len(r.spans) && r.spans[k].from == to
	switch {
	case left && right:
		r.spans[k-1].to = r.spans[k].to
		r.spans = slices.Delete(r.spans, k, k+1)
	case left:
		r.spans[k-1].to = to
	case right:
		r.spans[k].from = from
	default:
		r.spans = slices.Insert(r.spans, k, span{from, to})
	}
	r.n += int(to - from)
}

// remove takes an item out, if it is in.
func (r *ranges) remove(i uint32) {
	k := r.find(i)
	if k == len(r.spans) || r.spans[k].from > i {
		return
	}
	s := r.spans[k]
	r.n--
	switch {
	case s.from == i && s.to == i+1:
		r.spans = slices.Delete(r.spans, k, k+1)
	case s.from == i:
		r.spans[k].from++
	case s.to == i+1:
		r.spans[k].to--
	default:
		r.spans[k].to = i
		r.spans = slices.Insert(r.spans, k+1, span{i + 1, s.to})
	}
}

func (w *writer) ranges(r *ranges) {
	w.uint(uint64(len(r.spans)))
	at := uint32(0)
	for _, s := range r.spans {
		w.uint(uint64(s.from - at))
		w.uint(uint64(s.to - s.from))
		at = s.to
	}
}

func (r *reader) ranges() (out ranges) {
	at := uint64(0)
	for range r.count() {
		from := at + r.uint()
		to := from + r.uint()
		if from < at || to <= from || to > 1<<32-1 {
			r.fail(errors.New("ranges of items are not in order"))
			return ranges{}
		}
		out.spans = append(out.spans, span{uint32(from), uint32(to)})
		out.n += int(to - from)
		at = to
	}
	return out
}
