package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"cairn.dev/cairn/internal/access"
)

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	if !s.ready.Load() {
		plain(w, http.StatusServiceUnavailable, "stopping\n")
		return
	}
	plain(w, http.StatusOK, "ready\n")
}

// front says what this is to a person who opens the address in a browser.
func (s *Server) front(w http.ResponseWriter, r *http.Request) {
	host := r.Host
	plain(w, http.StatusOK, fmt.Sprintf(`Cairn %s: a container registry that deletes images thirty days after their last use.

  push       docker push %s/app/web:1.0
  ask        cairn --server %s why app/web:1.0
  API        /api/v1/, described by /api/openapi.json
  metrics    /metrics
  ready      /readyz
`, s.deps.Version.Version, host, "http://"+host))
}

// A response notes what was answered. It keeps io.ReaderFrom, so that a file
// still goes to the connection by sendfile, and Unwrap for everything else.
type response struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (r *response) WriteHeader(status int) {
	if r.status == 0 && status >= 200 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *response) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

// ReadFrom implements io.ReaderFrom.
func (r *response) ReadFrom(src io.Reader) (n int64, err error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	if rf, ok := r.ResponseWriter.(io.ReaderFrom); ok {
		n, err = rf.ReadFrom(src)
	} else {
		n, err = io.Copy(struct{ io.Writer }{r.ResponseWriter}, src)
	}
	r.bytes += n
	return n, err
}

// Unwrap is for http.ResponseController.
func (r *response) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// accessLog writes a line for each request at level debug, and costs nothing
// otherwise.
func (s *Server) accessLog(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.log.Enabled(r.Context(), slog.LevelDebug) {
			next.ServeHTTP(w, r)
			return
		}
		start := s.deps.Clock.Mono()
		rw := &response{ResponseWriter: w}
		next.ServeHTTP(rw, r)
		s.log.Debug("request", "method", r.Method, "path", r.URL.RequestURI(), "status", rw.status, "bytes", rw.bytes, "took", s.deps.Clock.Mono()-start, "from", r.RemoteAddr, "agent", r.UserAgent())
	})
}

// runPprof serves profiles, on loopback only: they show memory.
func (s *Server) runPprof(ctx context.Context) error {
	if err := access.CheckOpen(s.cfg.Pprof); err != nil {
		return fmt.Errorf("profiles show secrets in memory and are served on loopback only: name an address such as 127.0.0.1:6060 with --pprof, not %s", s.cfg.Pprof)
	}
	l, err := net.Listen("tcp", s.cfg.Pprof)
	if err != nil {
		return listenError(s.cfg.Pprof, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	s.log.Info("profiles", "address", "http://"+l.Addr().String()+"/debug/pprof/")
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
