package machine

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/workflow"
)

// An Event is something that happened to a run. The state of the run is a
// function of its events and of nothing else.
type Event interface {
	kind() byte
	write(w *writer)
}

// The kinds of events as they are stored. They are never given another meaning.
const (
	kindSubmitted byte = iota + 1
	kindGranted
	kindEnded
	kindLost
	kindBack
	kindTick
	kindListed
	kindFetched
	kindGathered
	kindLocked
	kindRemembered
	kindCanceled
	kindPaused
	kindContinued
	kindResumed
	kindRetried
	kindJudged
	kindServing
)

// Submitted is the first event of a run.
type Submitted struct {
	ID, Name, Namespace, By string
	// Args are set over those of the graph.
	Args map[string]workflow.Value
	// Scheduled is when a schedule wanted it; zero if none did.
	Scheduled time.Time
}

// A Pick is tasks of one node: Count items from Item on.
type Pick struct{ Node, Item, Count uint32 }

// Granted says that a worker got tasks. Each begins a new attempt.
type Granted struct {
	Worker string
	Picks  []Pick
}

// A Result is how one attempt ended.
type Result struct {
	Node, Item, Attempt uint32
	Phase               Phase
	Exit                int
	Message             string
	Infrastructure      bool
	Isolation           string
	Outputs             map[string]task.Produced
	// Kept: the outputs are in an [Keep] effect and not in the log.
	Kept           bool
	Started, Ended int64 // milliseconds since 1970; of what is written in full only
}

// Ended brings results of attempts that are held; others must not be in it.
type Ended struct{ Results []Result }

// A Ref is one task of a run.
type Ref struct{ Node, Item uint32 }

// Lost says that the leases of tasks ran out.
type Lost struct{ Tasks []Ref }

// Back says that a worker gave tasks back that it had not started.
type Back struct{ Tasks []Ref }

// Tick says that time has come to [Machine.Next].
type Tick struct{}

// Listed answers [List]: how many items there are, and where.
type Listed struct {
	Node uint32
	N    uint32
	// Ref is where the list is kept, in the words of who keeps it; or the
	// items themselves, when they are few.
	Ref   string
	Items []workflow.Value
	Error string
}

// Fetched answers [Fetch].
type Fetched struct {
	Node, From uint32
	Items      []workflow.Value
}

// Gathered answers [Gather]: the outputs of all items, by name.
type Gathered struct {
	Node    uint32
	Outputs map[string]workflow.Value
	Error   string
}

// Locked answers [Lock]: the node holds the lock.
type Locked struct{ Node, Lock uint32 }

// Remembered answers [Recall]; Found false: nothing is remembered.
type Remembered struct {
	Node    uint32
	Found   bool
	Outputs map[string]workflow.Value
}

// Cancel ends the run. Exit handlers run unless Now.
type Cancel struct {
	By  string
	Now bool
}

// Paused keeps new tasks from being granted, Continued ends that.
type Paused struct{}

// Continued ends [Paused].
type Continued struct{}

// Resumed ends a suspended node, with the outputs that it wanted.
type Resumed struct {
	Node    uint32
	Outputs map[string]workflow.Value
	Fail    bool
	Message string
}

// Retried begins what failed of an ended run again.
type Retried struct{}

// A Verdict is what became of tasks when they were rendered: they are skipped
// by their condition, or there is an error in what they are made from.
type Verdict struct {
	Pick
	Error string // "" : skipped
}

// Judged brings verdicts about tasks that are held.
type Judged struct{ Verdicts []Verdict }

// Serving says that the program of a daemon's task is ready, and where. It may
// come again.
type Serving struct {
	Node, Item, Attempt uint32
	Address             string
}

func (Submitted) kind() byte  { return kindSubmitted }
func (Granted) kind() byte    { return kindGranted }
func (*Ended) kind() byte     { return kindEnded }
func (Lost) kind() byte       { return kindLost }
func (Back) kind() byte       { return kindBack }
func (Tick) kind() byte       { return kindTick }
func (Listed) kind() byte     { return kindListed }
func (Fetched) kind() byte    { return kindFetched }
func (Gathered) kind() byte   { return kindGathered }
func (Locked) kind() byte     { return kindLocked }
func (Remembered) kind() byte { return kindRemembered }
func (Cancel) kind() byte     { return kindCanceled }
func (Paused) kind() byte     { return kindPaused }
func (Continued) kind() byte  { return kindContinued }
func (Resumed) kind() byte    { return kindResumed }
func (Retried) kind() byte    { return kindRetried }
func (Judged) kind() byte     { return kindJudged }
func (Serving) kind() byte    { return kindServing }

// logVersion is the first byte of every group of events.
const logVersion = 1

// AppendHeader begins a group of events that happened at one time.
func AppendHeader(b []byte, at time.Time) []byte {
	w := writer{b: b}
	w.byte(logVersion)
	w.int(at.UnixMilli())
	return w.b
}

// AppendEvent adds an event to its group.
func AppendEvent(b []byte, e Event) []byte {
	w := writer{b: b}
	w.byte(e.kind())
	e.write(&w)
	return w.b
}

// Decode reads a group of events. What it reads is bounded by the bytes given.
func Decode(b []byte) (at time.Time, events []Event, err error) {
	r := reader{b: b}
	if v := r.byte(); r.err == nil && v != logVersion {
		return at, nil, fmt.Errorf("events of version %d, this Cairn knows %d: a newer one wrote them", v, logVersion)
	}
	at = time.UnixMilli(r.int()).UTC()
	for r.err == nil && len(r.b) > 0 {
		if e := r.event(); r.err == nil {
			events = append(events, e)
		}
	}
	if r.err != nil {
		return at, nil, fmt.Errorf("read event %d of %d bytes: %w", len(events)+1, len(b), r.err)
	}
	return at, events, nil
}

func (r *reader) event() Event {
	switch k := r.byte(); k {
	case kindSubmitted:
		e := Submitted{ID: r.string(), Name: r.string(), Namespace: r.string(), By: r.string(), Args: r.dict()}
		if at := r.int(); at != 0 {
			e.Scheduled = time.UnixMilli(at).UTC()
		}
		return e
	case kindGranted:
		e := Granted{Worker: r.string()}
		for range r.count() {
			e.Picks = append(e.Picks, Pick{r.num(), r.num(), r.num()})
		}
		return e
	case kindEnded:
		return &Ended{Results: r.results()}
	case kindLost:
		return Lost{Tasks: r.refs()}
	case kindBack:
		return Back{Tasks: r.refs()}
	case kindTick:
		return Tick{}
	case kindListed:
		e := Listed{Node: r.num(), N: r.num(), Ref: r.string(), Error: r.string()}
		e.Items = r.list()
		return e
	case kindFetched:
		return Fetched{Node: r.num(), From: r.num(), Items: r.list()}
	case kindGathered:
		return Gathered{Node: r.num(), Outputs: r.dict(), Error: r.string()}
	case kindLocked:
		return Locked{r.num(), r.num()}
	case kindRemembered:
		return Remembered{Node: r.num(), Found: r.bool(), Outputs: r.dict()}
	case kindCanceled:
		return Cancel{By: r.string(), Now: r.bool()}
	case kindPaused:
		return Paused{}
	case kindContinued:
		return Continued{}
	case kindResumed:
		return Resumed{Node: r.num(), Outputs: r.dict(), Fail: r.bool(), Message: r.string()}
	case kindRetried:
		return Retried{}
	case kindJudged:
		var e Judged
		for range r.count() {
			e.Verdicts = append(e.Verdicts, Verdict{Pick{r.num(), r.num(), r.num()}, r.string()})
		}
		return e
	case kindServing:
		return Serving{Node: r.num(), Item: r.num(), Attempt: r.num(), Address: r.string()}
	default:
		r.fail(fmt.Errorf("unknown kind of event %d", k))
		return nil
	}
}

func (e Submitted) write(w *writer) {
	for _, s := range []string{e.ID, e.Name, e.Namespace, e.By} {
		w.string(s)
	}
	w.dict(e.Args)
	if e.Scheduled.IsZero() {
		w.int(0)
	} else {
		w.int(e.Scheduled.UnixMilli())
	}
}

func (e Granted) write(w *writer) {
	w.string(e.Worker)
	w.uint(uint64(len(e.Picks)))
	for _, p := range e.Picks {
		w.pick(p)
	}
}

func (w *writer) pick(p Pick) {
	w.uint(uint64(p.Node))
	w.uint(uint64(p.Item))
	w.uint(uint64(p.Count))
}

func (e Lost) write(w *writer) { w.refs(e.Tasks) }
func (e Back) write(w *writer) { w.refs(e.Tasks) }
func (Tick) write(*writer)     {}

func (w *writer) refs(refs []Ref) {
	w.uint(uint64(len(refs)))
	for _, t := range refs {
		w.uint(uint64(t.Node))
		w.uint(uint64(t.Item))
	}
}

func (r *reader) refs() (out []Ref) {
	for range r.count() {
		out = append(out, Ref{r.num(), r.num()})
	}
	return out
}

func (w *writer) list(items []workflow.Value) {
	w.uint(uint64(len(items)))
	for _, v := range items {
		w.value(v)
	}
}

func (r *reader) list() (out []workflow.Value) {
	for range r.count() {
		out = append(out, r.value())
	}
	return out
}

func (e Listed) write(w *writer) {
	w.uint(uint64(e.Node))
	w.uint(uint64(e.N))
	w.string(e.Ref)
	w.string(e.Error)
	w.list(e.Items)
}

func (e Fetched) write(w *writer) {
	w.uint(uint64(e.Node))
	w.uint(uint64(e.From))
	w.list(e.Items)
}

func (e Gathered) write(w *writer) {
	w.uint(uint64(e.Node))
	w.dict(e.Outputs)
	w.string(e.Error)
}

func (e Locked) write(w *writer) {
	w.uint(uint64(e.Node))
	w.uint(uint64(e.Lock))
}

func (e Remembered) write(w *writer) {
	w.uint(uint64(e.Node))
	w.bool(e.Found)
	w.dict(e.Outputs)
}

func (e Cancel) write(w *writer) {
	w.string(e.By)
	w.bool(e.Now)
}

func (Paused) write(*writer)    {}
func (Continued) write(*writer) {}
func (Retried) write(*writer)   {}

func (e Resumed) write(w *writer) {
	w.uint(uint64(e.Node))
	w.dict(e.Outputs)
	w.bool(e.Fail)
	w.string(e.Message)
}

func (e Judged) write(w *writer) {
	w.uint(uint64(len(e.Verdicts)))
	for _, v := range e.Verdicts {
		w.pick(v.Pick)
		w.string(v.Error)
	}
}

func (e Serving) write(w *writer) {
	w.uint(uint64(e.Node))
	w.uint(uint64(e.Item))
	w.uint(uint64(e.Attempt))
	w.string(e.Address)
}

// plain results are those of which nothing is to be said but that they went
// well: side by side they take a few bytes together.
func (r *Result) plain() bool {
	return r.Phase == Succeeded && r.Exit == 0 && r.Message == "" && len(r.Outputs) == 0 && r.Started == 0 && r.Ended == 0 && !r.Infrastructure
}

func (e *Ended) write(w *writer) {
	w.uint(uint64(len(e.Results)))
	for i := 0; i < len(e.Results); {
		r := &e.Results[i]
		n := 1
		if r.plain() {
			for i+n < len(e.Results) {
				if o := &e.Results[i+n]; !o.plain() || o.Node != r.Node || o.Item != r.Item+uint32(n) || o.Attempt != r.Attempt || o.Kept != r.Kept || o.Isolation != r.Isolation {
					break
				}
				n++
			}
			w.uint(uint64(n))
		} else {
			w.uint(0)
		}
		w.uint(uint64(r.Node))
		w.uint(uint64(r.Item))
		w.uint(uint64(r.Attempt))
		w.bool(r.Kept)
		w.string(r.Isolation)
		if !r.plain() {
			w.byte(byte(r.Phase))
			w.int(int64(r.Exit))
			w.string(r.Message)
			w.bool(r.Infrastructure)
			w.int(r.Started)
			w.int(r.Ended)
			w.produced(r.Outputs)
		}
		i += n
	}
}

func (r *reader) results() (out []Result) {
	const most = 1 << 16 // of one group; a group is what one call brought
	total := r.uint()
	if total > most {
		r.fail(fmt.Errorf("%d results in one event, at most %d", total, most))
		return nil
	}
	for r.err == nil && uint64(len(out)) < total {
		n := r.uint()
		x := Result{Node: r.num(), Item: r.num(), Attempt: r.num(), Kept: r.bool(), Isolation: r.string(), Phase: Succeeded}
		if n == 0 {
			x.Phase = Phase(r.byte())
			x.Exit = int(int32(r.int()))
			x.Message = r.string()
			x.Infrastructure = r.bool()
			x.Started, x.Ended = r.int(), r.int()
			x.Outputs = r.produced()
			n = 1
		}
		if n > total-uint64(len(out)) || uint64(x.Item)+n > 1<<32 {
			r.fail(errors.New("more results than were announced"))
		}
		if r.err != nil {
			return nil
		}
		for i := range uint32(n) {
			y := x
			y.Item += i
			out = append(out, y)
		}
	}
	return out
}

func (w *writer) produced(m map[string]task.Produced) {
	w.uint(uint64(len(m)))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		p := m[k]
		w.string(k)
		w.bool(p.Text != nil)
		if p.Text != nil {
			w.string(*p.Text)
		}
		w.string(p.Digest)
		w.int(p.Size)
		w.bool(p.Folder)
	}
}

func (r *reader) produced() map[string]task.Produced {
	n := r.count()
	if n == 0 {
		return nil
	}
	m := map[string]task.Produced{}
	for range n {
		k := r.string()
		var p task.Produced
		if r.bool() {
			s := r.string()
			p.Text = &s
		}
		p.Digest, p.Size, p.Folder = r.string(), r.int(), r.bool()
		m[k] = p
	}
	return m
}
