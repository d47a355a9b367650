package serve

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"cairn.dev/cairn/internal/content"
)

// metrics are what /metrics shows, in a registry of its own. docs/metrics.md
// lists them.
type metrics struct {
	s        *Server
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	revived  prometheus.Counter

	// Counting images reads tables: at most once in statsEvery.
	mu    sync.Mutex
	stats content.Stats
	at    time.Duration // monotonic; 0: never
}

const statsEvery = 30 * time.Second

func newMetrics(s *Server) *metrics {
	m := &metrics{
		s:        s,
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "cairn_http_requests_total", Help: "Requests by part and class of status."}, []string{"part", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "cairn_http_request_seconds", Help: "Time to answer a request, blobs included.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 60}}, []string{"part"}),
		revived: prometheus.NewCounter(prometheus.CounterOpts{Name: "cairn_images_revived_total", Help: "Expired images that came back because somebody used them. Alert on it: a policy is too short, or uses go unreported."}),
	}
	m.registry.MustRegister(m.requests, m.seconds, m.revived,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), (*state)(m))
	return m
}

func (m *metrics) onRevive(i content.Image, why string) {
	m.revived.Inc()
	m.s.log.Warn("an expired image came back: it was still needed", "repository", i.Repository, "digest", i.Digest, "why", why)
}

// count counts what next answers. Label values are resolved here, once: there
// are only these.
func (m *metrics) count(part string, next http.Handler) http.Handler {
	var classes [6]prometheus.Counter
	for i, name := range []string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"} {
		classes[i] = m.requests.WithLabelValues(part, name)
	}
	seconds := m.seconds.WithLabelValues(part)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := m.s.deps.Clock.Mono()
		rw, ok := w.(*response) // the access log's
		if !ok {
			rw = &response{ResponseWriter: w}
		}
		defer func() { // also of an answer that is broken off by a panic
			class := rw.status / 100
			if class < 0 || class >= len(classes) {
				class = 0
			}
			classes[class].Inc()
			seconds.Observe((m.s.deps.Clock.Mono() - start).Seconds())
		}()
		next.ServeHTTP(rw, r)
	})
}

func (m *metrics) handler(log *slog.Logger) http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn), MaxRequestsInFlight: 4})
}

// imageStats is content's counts, at most statsEvery old.
func (m *metrics) imageStats() (content.Stats, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.s.deps.Clock.Mono()
	if m.at > 0 && now-m.at < statsEvery {
		return m.stats, true
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	st, err := m.s.content.Stats(ctx)
	if err != nil {
		m.s.log.Warn("cannot count images for /metrics", "err", err)
		return st, false
	}
	m.stats, m.at = st, now
	return st, true
}

// state turns what the rooms know into metrics when somebody asks.
type state metrics

// Descriptions of what is read when somebody asks.
var (
	descImages         = desc("cairn_images", "Images by state.", "state")
	descRepos          = desc("cairn_repositories", "Repositories with a live image.")
	descBlobs          = desc("cairn_blobs", "Stored blobs.")
	descBytes          = desc("cairn_blob_bytes", "Bytes in stored blobs, each once.")
	descCorrupt        = desc("cairn_blobs_corrupt", "Blobs known to be corrupt. Alert on it.")
	descUploads        = desc("cairn_uploads", "Pushes in progress.")
	descUses           = desc("cairn_uses", "Uses in the ledger.")
	descFailing        = desc("cairn_ledger_failing", "1 while the ledger cannot be written. Alert on it.")
	descReporters      = desc("cairn_reporters", "Reporters of uses.", "state")
	descClock          = desc("cairn_clock_ok", "0 while the clock is in doubt and nothing is deleted.")
	descUncovered      = desc("cairn_retention_uncovered_intervals", "Open intervals of doubt: nothing is deleted in their scope. Alert on it.")
	descMirrorAsked    = desc("cairn_mirror_asked", "0 while an upstream is left alone because it failed, asked for it, or is offline.", "host")
	descMirrorRequests = desc("cairn_mirror_requests_total", "Requests to upstreams of mirrors by result.", "host", "result")
	descMirrorBytes    = desc("cairn_mirror_fetched_bytes_total", "Bytes of blobs fetched from upstreams.", "host")
	descMirrorWaiting  = desc("cairn_mirror_waiting", "Images of an upstream that are not here in whole yet.", "host")
	descPlanning       = desc("cairn_retention_planning_only", "1 while retention only plans.")
	descHeld           = desc("cairn_retention_held", "1 while a run that would expire everything waits for a person. Alert on it.")
	descSoon           = desc("cairn_retention_expiring_soon", "Images that go within the time of warning.")
	descSeconds        = desc("cairn_retention_last_run_seconds", "How long the last run took.")
	descRuns           = desc("cairn_retention_runs_total", "Runs of retention by result.", "result")
	descActions        = desc("cairn_retention_images_total", "Images by what retention did to them.", "action")
	descBumpCode       = desc("cairn_bump_repositories", "Repositories of code that are watched, by state.", "state")
	descBumpImages     = desc("cairn_bump_images", "Images that code names.")
	descBumpAge        = desc("cairn_bump_oldest_scan_seconds", "Age of the oldest scan of code. Alert on it: beyond three intervals nothing expires.")
	descBumpPulls      = desc("cairn_bump_pulls_total", "Pull requests by what was done.", "action")
	descBumpPasses     = desc("cairn_bump_passes_total", "Looks at repositories of code by result.", "result")
	descBumpSeconds    = desc("cairn_bump_pass_seconds_total", "Time that looks at repositories of code took.")
	descBumpEvents     = desc("cairn_bump_events_total", "Events that were heard of.", "kind")
	descWorkRuns       = desc("cairn_work_runs", "Runs that have not ended; ready: with tasks that no worker has.", "state")
	descWorkTasks      = desc("cairn_work_tasks_active", "Tasks that workers have.")
	descWorkWorkers    = desc("cairn_work_workers", "Workers that were heard of lately; waiting: for tasks.", "state")
	descWorkEnded      = desc("cairn_work_runs_ended_total", "Runs by how they ended.", "phase")
	descWorkOutcomes   = desc("cairn_work_attempts_total", "Attempts at tasks by how they ended; lost: with their worker; refused: told too late.", "phase")
	descExpired        = desc("cairn_retention_expired_bytes_total", "Bytes of expired images, shared blobs counted each time.")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// Describe implements prometheus.Collector.
func (c *state) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descImages, descRepos, descBlobs, descBytes, descCorrupt, descUploads, descUses, descFailing, descReporters, descClock,
		descMirrorAsked, descMirrorRequests, descMirrorBytes, descMirrorWaiting, descUncovered, descPlanning, descHeld, descSoon, descSeconds, descRuns, descActions, descExpired,
		descBumpCode, descBumpImages, descBumpAge, descBumpPulls, descBumpPasses, descBumpSeconds, descBumpEvents,
		descWorkRuns, descWorkTasks, descWorkWorkers, descWorkEnded, descWorkOutcomes} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *state) Collect(ch chan<- prometheus.Metric) {
	m := (*metrics)(c)
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	if st, ok := m.imageStats(); ok {
		gauge(descImages, float64(st.Live), "live")
		gauge(descImages, float64(st.Expired), "expired")
		gauge(descImages, float64(st.Deleted), "deleted")
		gauge(descRepos, float64(st.Repositories))
		gauge(descBlobs, float64(st.Blobs))
		gauge(descBytes, float64(st.BlobBytes))
		gauge(descCorrupt, float64(st.Corrupt))
		gauge(descUploads, float64(st.Uploads))
	}
	if m.s.mirror != nil {
		for _, h := range m.s.mirror.Stats() {
			gauge(descMirrorAsked, number(h.Asked), h.Host)
			gauge(descMirrorWaiting, float64(h.Waiting), h.Host)
			for result, n := range map[string]int64{"ok": h.Requests - h.Failed, "error": h.Failed} {
				ch <- prometheus.MustNewConstMetric(descMirrorRequests, prometheus.CounterValue, float64(n), h.Host, result)
			}
			ch <- prometheus.MustNewConstMetric(descMirrorBytes, prometheus.CounterValue, float64(h.Bytes), h.Host)
		}
	}
	c.bump(ch)
	w := m.s.work.server.Stats()
	gauge(descWorkRuns, float64(w.Runs-w.Ready), "running")
	gauge(descWorkRuns, float64(w.Ready), "ready")
	gauge(descWorkTasks, float64(w.Active))
	gauge(descWorkWorkers, float64(w.Workers-min(w.Workers, w.Waiting)), "working")
	gauge(descWorkWorkers, float64(w.Waiting), "waiting")
	for phase, n := range w.Ended {
		counter(descWorkEnded, n, phase.String())
	}
	for phase, n := range w.Outcomes {
		counter(descWorkOutcomes, n, phase.String())
	}
	counter(descWorkOutcomes, w.Lost, "lost")
	counter(descWorkOutcomes, w.Refused, "refused")
	u := m.s.ledger.Stats()
	gauge(descUses, float64(u.Uses))
	gauge(descFailing, number(u.Failing))
	silent := 0
	for _, r := range m.s.ledger.Reporters() {
		if r.Silent {
			silent++
		}
	}
	gauge(descReporters, float64(u.Reporters-silent), "heard")
	gauge(descReporters, float64(silent), "silent")
	ok, _ := m.s.ledger.ClockOK()
	gauge(descClock, number(ok))
	r := m.s.retention.Counters()
	gauge(descUncovered, float64(r.Uncovered))
	gauge(descPlanning, number(r.PlanningOnly))
	gauge(descHeld, number(r.Held))
	gauge(descSoon, float64(r.Soon))
	gauge(descSeconds, r.LastSeconds)
	counter(descRuns, r.Runs-r.RunErrors, "ok")
	counter(descRuns, r.RunErrors, "error")
	counter(descActions, r.Expired, "expired")
	counter(descActions, r.Revived, "revived")
	counter(descActions, r.Swept, "swept")
	counter(descActions, r.Failed, "failed")
	counter(descExpired, r.ExpiredBytes)
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
