package machine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/workflow"
)

// Bounds of what is read back: whatever the bytes say, reading them costs no
// more memory than a few times their length.
const maxDepth = 64

// errShort is what reading ends with when bytes are missing.
var errShort = errors.New("the data end too early")

// writer appends the compact form of things. Numbers are varints.
type writer struct{ b []byte }

func (w *writer) byte(b byte)     { w.b = append(w.b, b) }
func (w *writer) uint(v uint64)   { w.b = binary.AppendUvarint(w.b, v) }
func (w *writer) int(v int64)     { w.b = binary.AppendVarint(w.b, v) }
func (w *writer) string(s string) { w.uint(uint64(len(s))); w.b = append(w.b, s...) }
func (w *writer) bool(v bool) {
	if v {
		w.byte(1)
	} else {
		w.byte(0)
	}
}

// reader reads what a writer wrote. The first thing wrong stays in err, and
// everything read after it is zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail(errShort)
		return 0
	}
	b := r.b[0]
	r.b = r.b[1:]
	return b
}

func (r *reader) bool() bool { return r.byte() != 0 }

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail(errShort)
		return 0
	}
	r.b = r.b[n:]
	return v
}

// num is a number that fits an item, a node, or an attempt.
func (r *reader) num() uint32 {
	v := r.uint()
	if v > math.MaxUint32 {
		r.fail(fmt.Errorf("a number is too large: %d", v))
		return 0
	}
	return uint32(v)
}

func (r *reader) int() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail(errShort)
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) string() string {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.fail(errShort)
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

// count is how many things follow, each of at least one byte.
func (r *reader) count() int {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.fail(errShort)
		return 0
	}
	return int(n)
}

// The kinds of values.
const (
	valueNil byte = iota
	valueFalse
	valueTrue
	valueNumber
	valueString
	valueList
	valueMap
	valueFile
)

// value writes what a workflow's expressions make. What JSON does not know
// becomes its text: an expression of a front end gave it, and a run must not
// fail for it in the middle of a commit.
func (w *writer) value(v workflow.Value) { w.nested(v, 0) }

func (w *writer) nested(v workflow.Value, depth int) {
	if depth > maxDepth {
		v = fmt.Sprint(v)
	}
	switch v := v.(type) {
	case nil:
		w.byte(valueNil)
	case bool:
		if v {
			w.byte(valueTrue)
		} else {
			w.byte(valueFalse)
		}
	case float64:
		w.byte(valueNumber)
		w.b = binary.LittleEndian.AppendUint64(w.b, math.Float64bits(v))
	case int:
		w.nested(float64(v), depth)
	case int64:
		w.nested(float64(v), depth)
	case string:
		w.byte(valueString)
		w.string(v)
	case []any:
		w.byte(valueList)
		w.uint(uint64(len(v)))
		for _, e := range v {
			w.nested(e, depth+1)
		}
	case []string:
		w.byte(valueList)
		w.uint(uint64(len(v)))
		for _, e := range v {
			w.nested(e, depth+1)
		}
	case map[string]any:
		w.byte(valueMap)
		w.uint(uint64(len(v)))
		for _, k := range slices.Sorted(maps.Keys(v)) {
			w.string(k)
			w.nested(v[k], depth+1)
		}
	case *workflow.File:
		if v == nil {
			w.byte(valueNil)
			return
		}
		w.byte(valueFile)
		w.string(v.Name)
		w.string(v.Digest)
		w.int(v.Size)
		w.bool(v.Folder)
		w.source(v.Source)
	default:
		w.nested(fmt.Sprint(v), depth)
	}
}

// The forms of a source: none, one without the fields that came later, whole.
const (
	sourceNone = iota
	sourceOld
	sourceWhole
)

func (w *writer) source(s *task.Source) {
	if s == nil {
		w.byte(sourceNone)
		return
	}
	form := byte(sourceOld)
	if s.Endpoint+s.Region+s.Archive != "" {
		form = sourceWhole
	}
	w.byte(form)
	for _, t := range []string{s.Kind, s.URL, s.Revision, s.Key, s.Secret, s.Raw} {
		w.string(t)
	}
	w.uint(uint64(len(s.Headers)))
	for _, k := range slices.Sorted(maps.Keys(s.Headers)) {
		w.string(k)
		w.string(s.Headers[k])
	}
	if form == sourceWhole {
		w.string(s.Endpoint)
		w.string(s.Region)
		w.string(s.Archive)
	}
}

func (r *reader) value() workflow.Value { return r.nested(0) }

func (r *reader) nested(depth int) workflow.Value {
	if depth > maxDepth {
		r.fail(fmt.Errorf("a value is nested more than %d deep", maxDepth))
		return nil
	}
	switch k := r.byte(); k {
	case valueNil:
		return nil
	case valueFalse:
		return false
	case valueTrue:
		return true
	case valueNumber:
		if len(r.b) < 8 {
			r.fail(errShort)
			return nil
		}
		f := math.Float64frombits(binary.LittleEndian.Uint64(r.b))
		r.b = r.b[8:]
		return f
	case valueString:
		return r.string()
	case valueList:
		list := make([]any, 0, min(r.peekCount(), 1024))
		for range r.count() {
			list = append(list, r.nested(depth+1))
			if r.err != nil {
				return nil
			}
		}
		return list
	case valueMap:
		m := map[string]any{}
		for range r.count() {
			k := r.string()
			m[k] = r.nested(depth + 1)
			if r.err != nil {
				return nil
			}
		}
		return m
	case valueFile:
		return &workflow.File{Name: r.string(), Digest: r.string(), Size: r.int(), Folder: r.bool(), Source: r.source()}
	default:
		r.fail(fmt.Errorf("unknown kind of value %d", k))
		return nil
	}
}

func (r *reader) peekCount() int {
	n, _ := binary.Uvarint(r.b)
	return int(min(n, uint64(len(r.b))))
}

func (r *reader) source() *task.Source {
	form := r.byte()
	if form == sourceNone {
		return nil
	}
	if form > sourceWhole {
		r.fail(fmt.Errorf("unknown form of a source %d", form))
		return nil
	}
	s := &task.Source{Kind: r.string(), URL: r.string(), Revision: r.string(), Key: r.string(), Secret: r.string(), Raw: r.string()}
	if n := r.count(); n > 0 {
		s.Headers = map[string]string{}
		for range n {
			k := r.string()
			s.Headers[k] = r.string()
		}
	}
	if form == sourceWhole {
		s.Endpoint, s.Region, s.Archive = r.string(), r.string(), r.string()
	}
	return s
}

// dict writes a map that may be nil, which is not the same as empty.
func (w *writer) dict(m map[string]any) {
	w.bool(m != nil)
	if m != nil {
		w.value(m)
	}
}

func (r *reader) dict() map[string]any {
	if !r.bool() {
		return nil
	}
	m, ok := r.value().(map[string]any)
	if !ok && r.err == nil {
		r.fail(errors.New("a map is expected"))
	}
	return m
}

// EncodeValue is the compact form of a value, for whoever keeps them.
func EncodeValue(v workflow.Value) []byte {
	var w writer
	w.value(v)
	return w.b
}

// DecodeValue reads it back.
func DecodeValue(b []byte) (workflow.Value, error) {
	r := reader{b: b}
	v := r.value()
	if r.err == nil && len(r.b) > 0 {
		r.err = errors.New("there are bytes after the value")
	}
	if r.err != nil {
		return nil, fmt.Errorf("read a value of %d bytes: %w", len(b), r.err)
	}
	return v, nil
}
