// Package machine is one run: what it is doing, as a function of what has
// happened to it.
//
// It owns the state of a run, the events that change it and their compact
// form, and the rules of workflows: what begins after what, conditions,
// fan-outs, retries, exit handlers, hooks, deadlines, locks and memories. It
// promises to be pure: the same graph and the same events give the same state,
// so that a run goes on after a crash where its log ends; that the items of a
// fan-out cost ranges and not objects until somebody works on them; and that
// no event, however wrong, makes it fail half way: one that does not fit is
// refused before anything has changed, or is ignored. It keeps nothing, asks
// nobody and knows no workers but by their names: what it wants of the world
// it says in effects, which come back as events. A Machine is for one
// goroutine at a time; methods that only look may run side by side.
package machine

import (
	"errors"
	"fmt"
	"time"

	"cairn.dev/cairn/internal/workflow"
)

// Bounds of a run.
const (
	// MaxDepth bounds templates within templates: recursion that does not end.
	MaxDepth = 100
	// MaxNodes bounds the boxes of a run that exist at a time; items of a
	// fan-out over a leaf are none.
	MaxNodes = 200_000
	// MaxItems bounds one fan-out.
	MaxItems = 100_000_000
	// MaxCrashes is how many workers may be lost with a task before it is set
	// aside: it may be what kills them.
	MaxCrashes = 5
	// window is how many items of a fan-out over something other than a leaf
	// exist at a time.
	window = 256
	// details is of how many failed items of a fan-out more is known than
	// that they failed.
	details = 1000
	// retryFloor is how many retries a run has whatever its share.
	retryFloor = 1000
	// defaultBudget is the share of tasks, in percent, that may be retried.
	defaultBudget = 10
)

// A Phase says how far a run, a node or a task is.
type Phase uint8

// The phases. Those from Succeeded on are ends.
const (
	Waiting Phase = iota
	Running
	Succeeded
	Failed   // a program said so
	Errored  // it could not be run, or what it is made from is wrong
	Skipped  // its condition was false
	Omitted  // what it depends on did not come about
	Canceled // somebody ended it
)

var phaseNames = [...]string{"waiting", "running", "succeeded", "failed", "error", "skipped", "omitted", "canceled"}

func (p Phase) String() string {
	if int(p) < len(phaseNames) {
		return phaseNames[p]
	}
	return fmt.Sprintf("phase(%d)", uint8(p))
}

// Ended reports whether nothing comes after the phase.
func (p Phase) Ended() bool { return p >= Succeeded }

// ParsePhase reads the name of a phase.
func ParsePhase(s string) (Phase, error) {
	for i, n := range phaseNames {
		if n == s {
			return Phase(i), nil
		}
	}
	return 0, fmt.Errorf("unknown phase %q: use one of %v", s, phaseNames)
}

// MarshalText implements encoding.TextMarshaler.
func (p Phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Phase) UnmarshalText(b []byte) (err error) {
	*p, err = ParsePhase(string(b))
	return err
}

// Counts are the tasks of a run. Items that are not known yet are not in it.
type Counts struct {
	Total, Active, Succeeded, Failed, Skipped int
	Canceled                                  int // ended before their time, or never begun because of that
	Retries, Crashes                          int
	Serving                                   int // of the active ones: daemons that serve
}

// Done is how many tasks have ended.
func (c Counts) Done() int { return c.Succeeded + c.Failed + c.Skipped + c.Canceled }

// A Machine is the state of one run.
type Machine struct {
	graph *workflow.Graph
	plans map[planKey]*plan

	begun                   bool
	id, name, namespace, by string
	args                    map[string]workflow.Value
	scheduled               int64

	now            int64 // of the newest event, in milliseconds since 1970
	started, ended int64
	phase          Phase
	message        string
	paused         bool
	cause          Phase  // what the run ends as whatever its root says; Waiting: nothing
	why            string // the message of that
	skipExit       bool

	nodes      map[uint32]*node
	last       uint32 // the newest node's id
	root, exit *node
	globals    map[string]workflow.Value // outputs with a name of the whole run
	isolation  map[string]int            // how many tasks got which
	counts     Counts
	hooksFired []bool // of the graph
	openHooks  int    // of the graph, that have begun and not ended

	ready   []*node // groups that may have tasks to grant
	hooked  []*node // nodes whose hooks may still fire
	timers  timers
	effects []Effect
}

// New returns a run of g that nothing has happened to; its first event is
// [Submitted].
func New(g *workflow.Graph) *Machine {
	return &Machine{graph: g, plans: map[planKey]*plan{}, nodes: map[uint32]*node{},
		globals: map[string]workflow.Value{}, isolation: map[string]int{}, hooksFired: make([]bool, len(g.Hooks))}
}

// Errors that callers tell apart.
var (
	// ErrState means that the event does not fit the state of the run.
	ErrState = errors.New("the run is in another state")
	// ErrNode means that there is no such node.
	ErrNode = errors.New("the run has no such node")
)

// Apply changes the state by an event that happened at the time, and returns
// what is wanted of the world. Time that goes back is taken to stand still. An
// error means that nothing was changed. Apply takes e and leaves in it what
// has to be in the log.
func (m *Machine) Apply(at time.Time, e Event) ([]Effect, error) {
	if err := m.check(e); err != nil {
		return nil, err
	}
	m.now = max(m.now, at.UnixMilli())
	m.effects = nil
	switch e := e.(type) {
	case Submitted:
		m.begin(e)
	case Granted:
		for _, p := range e.Picks {
			m.take(m.nodes[p.Node], p, e.Worker)
		}
	case *Ended:
		for i := range e.Results {
			m.result(&e.Results[i])
		}
	case Lost:
		for _, t := range e.Tasks {
			m.lost(t)
		}
	case Back:
		for _, t := range e.Tasks {
			m.back(t)
		}
	case Tick:
		m.tick()
	case Listed:
		m.listed(e)
	case Fetched:
		m.fetched(e)
	case Gathered:
		m.gathered(e)
	case Locked:
		m.locked(e)
	case Remembered:
		m.remembered(e)
	case Cancel:
		m.cancel(Canceled, "canceled by "+e.By, e.Now)
	case Paused:
		m.paused = true
	case Continued:
		m.paused = false
	case Resumed:
		m.resumed(e)
	case Retried:
		m.retryFailed()
	case Judged:
		for _, v := range e.Verdicts {
			m.judged(v)
		}
	case Serving:
		m.serves(e)
	}
	m.fireHooks()
	effects := m.effects
	m.effects = nil
	return effects, nil
}

// check refuses events that do not fit, before anything is changed.
func (m *Machine) check(e Event) error {
	if _, first := e.(Submitted); first == m.begun {
		return fmt.Errorf("%w: it begins with one submission, and has no other", ErrState)
	}
	switch e := e.(type) {
	case Granted:
		for _, p := range e.Picks {
			n := m.nodes[p.Node]
			if n == nil || n.group == nil {
				return fmt.Errorf("%w: grant tasks of node %d", ErrNode, p.Node)
			}
			if !n.group.grantable(p) {
				return fmt.Errorf("%w: items %d to %d of node %d are not to be granted", ErrState, p.Item, p.Item+p.Count, p.Node)
			}
		}
	case Resumed:
		n := m.nodes[e.Node]
		if n == nil {
			return fmt.Errorf("%w: resume node %d", ErrNode, e.Node)
		}
		if n.kind != kindSuspend || n.stage != stageRunning {
			return fmt.Errorf("%w: node %d does not wait to be resumed", ErrState, e.Node)
		}
		for _, name := range n.tmpl.Suspend.Supplied {
			if _, ok := e.Outputs[name]; !ok && !e.Fail {
				return fmt.Errorf("%w: node %d waits for a value of %q: give one", ErrState, e.Node, name)
			}
		}
	case Retried:
		if m.ended == 0 {
			return fmt.Errorf("%w: it has not ended; what failed can be retried then", ErrState)
		}
		if m.phase == Succeeded {
			return fmt.Errorf("%w: nothing of it failed", ErrState)
		}
	case Cancel, Paused, Continued:
		if m.ended != 0 {
			return fmt.Errorf("%w: it has ended", ErrState)
		}
	}
	return nil
}

// begin is the start of the run.
func (m *Machine) begin(e Submitted) {
	m.begun = true
	m.id, m.name, m.namespace, m.by, m.args = e.ID, e.Name, e.Namespace, e.By, e.Args
	if !e.Scheduled.IsZero() {
		m.scheduled = e.Scheduled.UnixMilli()
	}
	m.started, m.phase = m.now, Running
	m.paused = m.graph.Suspended
	if m.graph.Deadline > 0 {
		m.timers.add(timer{at: m.now + m.graph.Deadline.Milliseconds(), what: timerRun})
	}
	m.root = m.add(nil, roleRoot, -1, -1, m.graph.Entry)
	m.open(m.root)
}

// rootEnded goes on after the entry has ended: with the exit handler.
func (m *Machine) rootEnded() {
	if m.exit == nil && m.graph.OnExit != "" && !m.skipExit {
		m.phase = m.outcome() // what the handler sees
		m.exit = m.add(nil, roleExit, -1, -1, m.graph.OnExit)
		m.open(m.exit)
		return
	}
	m.close()
}

// outcome is what the run ends as, as far as its root says.
func (m *Machine) outcome() Phase {
	switch {
	case m.cause != Waiting:
		return m.cause
	case m.root.phase == Skipped || m.root.phase == Omitted:
		return Succeeded
	}
	return m.root.phase
}

// close ends the run, when nothing of it goes on.
func (m *Machine) close() {
	if m.ended != 0 || m.root.stage != stageEnded || m.exit != nil && m.exit.stage != stageEnded {
		return
	}
	p, why := m.outcome(), m.root.message
	if m.cause != Waiting {
		why = m.why
	}
	if p == Succeeded && m.exit != nil && m.exit.phase != Succeeded && m.exit.phase != Skipped {
		p, why = m.exit.phase, "exit handler: "+m.exit.message
	}
	m.phase, m.message = p, why
	m.fireRunHooks()
	if m.openHooks > 0 {
		return
	}
	m.ended = m.now
	m.timers = nil
	m.ready = nil
	m.effects = append(m.effects, Finished{Phase: p})
}

// cancel ends the run as soon as what goes on has stopped.
func (m *Machine) cancel(as Phase, why string, skipExit bool) {
	if m.ended != 0 {
		return
	}
	if m.cause == Waiting {
		m.cause, m.why = as, why
	}
	m.skipExit = m.skipExit || skipExit
	m.paused = false
	if m.root.stage != stageEnded {
		m.stop(m.root, why)
	}
	if m.skipExit && m.exit != nil && m.exit.stage != stageEnded {
		m.stop(m.exit, why)
	}
	for _, n := range m.sorted() {
		if n.role == roleHook && n.parent == nil && n.stage != stageEnded {
			m.stop(n, why)
		}
	}
}
