package retention

import (
	"time"

	"cairn.dev/cairn/internal/usage"
)

// A Status says what the engine does, and what stops it.
type Status struct {
	// PlanningOnly: nothing is deleted until the configuration holds a policy
	// or a reporter is enrolled.
	PlanningOnly bool `json:"planning_only"`
	// Held: the last run of the loop would have expired every live image after
	// the policies changed, and waits for a person.
	Held *Held `json:"held,omitempty"`
	// Clock says why the clock is not trusted; "" when it is.
	Clock string `json:"clock,omitempty"`
	// Uncovered are the intervals open now: by whom, since when, and the cure.
	Uncovered []usage.Interval `json:"uncovered"`
	// Cure is what a person can do about what stops deletion; "" if nothing
	// does.
	Cure    string    `json:"cure,omitempty"`
	Running bool      `json:"running"`
	LastRun *Report   `json:"last_run,omitempty"`
	NextRun time.Time `json:"next_run,omitzero"`
	// LastError is that of the last run as a whole; Errors are those of single
	// repositories and images since the last run began.
	LastError string   `json:"last_error,omitempty"`
	Errors    []string `json:"errors,omitempty"`

	problems []string
}

// Held says how much a run would have expired.
type Held struct {
	Expire int `json:"expire"`
	Live   int `json:"live"`
}

// Counters add up over the life of the process, for metrics.
type Counters struct {
	Runs, RunErrors                          int64
	Expired, Revived, Swept, Changed, Failed int64
	ExpiredBytes                             int64
	// Last run: seconds it took, images that it saw.
	LastSeconds          float64
	LastImages, LastLive int
	Soon                 int // images that go within Config.WarnWithin
	Uncovered            int // open intervals
	PlanningOnly, Held   bool
}

// Status says how the engine is doing.
func (e *Engine) Status() Status {
	e.mu.Lock()
	s := e.status
	s.Errors = append([]string(nil), s.problems...)
	e.mu.Unlock()
	s.problems = nil
	s.PlanningOnly = e.planningOnly()
	if ok, why := e.deps.Ledger.ClockOK(); !ok {
		s.Clock = why
		if s.Clock == "" {
			s.Clock = "it went back"
		}
	}
	s.Uncovered = e.openIntervals()
	switch {
	case s.PlanningOnly:
		s.Cure = "write retention.policies into the configuration, or enroll a reporter (a POST to /api/v1/uses that names a period)"
	case s.Held != nil:
		s.Cure = "look at `cairn retention plan`; then correct the policies, or confirm with `cairn retention run --yes`"
	case s.Clock != "":
		s.Cure = "set the clock of this machine right"
	case len(s.Uncovered) > 0:
		s.Cure = s.Uncovered[0].Cure
	}
	return s
}

// Counters returns the numbers for metrics.
func (e *Engine) Counters() Counters {
	e.mu.Lock()
	c := e.totals
	c.Held = e.status.Held != nil
	e.mu.Unlock()
	c.PlanningOnly = e.planningOnly()
	c.Uncovered = len(e.openIntervals())
	c.Soon = len(*e.soon.Load())
	return c
}

func (e *Engine) finish(r *Report, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s, t := &e.status, &e.totals
	s.Running = false
	s.LastRun = r
	s.LastError = ""
	t.Runs++
	if err != nil {
		s.LastError = err.Error()
		t.RunErrors++
	}
	t.Expired += int64(r.Expired)
	t.Revived += int64(r.Revived)
	t.Swept += int64(r.Swept)
	t.Changed += int64(r.Changed)
	t.Failed += int64(r.Failed)
	t.ExpiredBytes += r.Bytes
	t.LastSeconds = r.Finished.Sub(r.Started).Seconds()
	t.LastImages, t.LastLive = r.Plan.Images, r.Plan.Live
}

// problem remembers and logs what went wrong with one repository.
func (e *Engine) problem(repo string, err error) {
	e.deps.Log.Error("retention leaves a repository or image as it is", "repository", repo, "err", err)
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.status.problems) < 20 {
		e.status.problems = append(e.status.problems, err.Error())
	}
}
