package agent

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"cairn.dev/cairn/internal/usage"
)

// Status is how an agent is doing.
type Status struct {
	Reporter   string    `json:"reporter"`
	Started    time.Time `json:"started"`
	LastReport time.Time `json:"last_report,omitzero"` // that the server took
	Uses       int       `json:"uses"`                 // in it
	Unresolved bool      `json:"unresolved,omitempty"` // some tags could not be looked up, so that nothing was taken out of force
	Reports    int64     `json:"reports"`
	Delivered  int64     `json:"delivered"` // dated uses
	Failures   int64     `json:"failures"`
	Waiting    int       `json:"waiting"`           // dated uses that wait for the server
	Dropped    int64     `json:"dropped"`           // of them, for want of room
	Error      string    `json:"error,omitempty"`   // of the server, since the last success
	Silence    string    `json:"silence,omitempty"` // why nothing is stated
}

// Status is how the agent is doing now.
func (a *Agent) Status() Status {
	a.mu.Lock()
	s := a.status
	a.mu.Unlock()
	s.Reporter, s.Waiting, s.Dropped = a.cfg.Reporter, a.spool.len(), a.spool.lost()
	return s
}

func (a *Agent) delivered(_ usage.Receipt, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status.Delivered += int64(n)
	a.status.Error = ""
}

func (a *Agent) spoke(uses int, sure bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.status.LastReport.IsZero() || a.status.Error != "" || a.status.Silence != "" {
		a.log.Info("reported", "uses", uses, "reporter", a.cfg.Reporter)
	}
	a.status.LastReport, a.status.Uses, a.status.Unresolved = a.clock.Now(), uses, !sure
	a.status.Error, a.status.Silence = "", ""
	a.status.Reports++
}

func (a *Agent) silent(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.status.Silence == "" && !a.status.LastReport.IsZero() {
		a.log.Warn("not sure what is in use: saying nothing, so that nothing is deleted", "err", err)
	}
	a.status.Silence = err.Error()
}

// Healthy says what is wrong when the server has not taken a report for three
// periods, which is when it begins to count the agent as silent.
func (a *Agent) Healthy() error {
	s := a.Status()
	last := s.LastReport
	if last.IsZero() {
		last = s.Started
	}
	if gone := a.clock.Now().Sub(last); gone > 3*a.cfg.Period {
		why := s.Error
		if why == "" {
			why = s.Silence
		}
		return fmt.Errorf("no report for %s: %s", gone.Round(time.Second), why)
	}
	return nil
}

// Handler answers /healthz (the process lives), /readyz (the server takes the
// reports), /status (JSON) and /metrics.
//
// A server that is away must not make the kubelet restart the agent, which
// would lose what waits for it: that is why /healthz does not ask for it.
func (a *Agent) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := a.Healthy(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		if a.Status().LastReport.IsZero() {
			http.Error(w, "nothing was reported yet", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(a.Status())
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		s := a.Status()
		last := 0.0
		if !s.LastReport.IsZero() {
			last = float64(s.LastReport.UnixMilli()) / 1000
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		for _, m := range []struct {
			name, kind, help string
			value            float64
		}{
			{"cairn_agent_reports_total", "counter", "Statements that the server took.", float64(s.Reports)},
			{"cairn_agent_delivered_uses_total", "counter", "Dated uses that the server took.", float64(s.Delivered)},
			{"cairn_agent_failures_total", "counter", "Reports that the server did not take.", float64(s.Failures)},
			{"cairn_agent_dropped_uses_total", "counter", "Dated uses dropped for want of room.", float64(s.Dropped)},
			{"cairn_agent_waiting_uses", "gauge", "Dated uses that wait for the server.", float64(s.Waiting)},
			{"cairn_agent_uses", "gauge", "Uses in the last statement.", float64(s.Uses)},
			{"cairn_agent_last_report_timestamp_seconds", "gauge", "When the server took the last statement.", last},
		} {
			fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n%s %v\n", m.name, m.help, m.name, m.kind, m.name, m.value)
		}
	})
	return mux
}
