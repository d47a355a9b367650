package registry

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// errStalled means that a client did not send the next bytes in time.
var errStalled = errors.New("nothing came for too long")

// writeStep is how much a client may take per Patience: large enough that
// sendfile is not slowed by the deadlines between steps, small enough that a
// slow line gets through (4 MiB a minute is 70 kB/s).
const writeStep = 4 << 20

// patientBody is the body of the request, with a deadline for every read of
// it. The deadlines are the connection's own and thus in real time. A server
// that cannot set them (a test's recorder) has none.
func (h *handler) patientBody(c *call) io.Reader {
	if !hasBody(c.r) {
		return http.NoBody
	}
	return &patientReader{r: c.r.Body, control: http.NewResponseController(c.w), patience: h.patience}
}

func hasBody(r *http.Request) bool { return r.Body != nil && r.Body != http.NoBody }

// expectBody sets the first deadline. It also is the one for bodies that
// nobody reads: the server throws such away before it answers.
func (h *handler) expectBody(w http.ResponseWriter, r *http.Request) {
	if hasBody(r) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(h.patience))
	}
}

type patientReader struct {
	r        io.Reader
	control  *http.ResponseController
	patience time.Duration
}

func (p *patientReader) Read(b []byte) (int, error) {
	_ = p.control.SetReadDeadline(time.Now().Add(p.patience))
	n, err := p.r.Read(b)
	switch {
	case errors.Is(err, io.EOF):
		// The server now listens on the connection for the client going
		// away, however long the handler takes: that must not time out.
		_ = p.control.SetReadDeadline(time.Time{})
	case errors.Is(err, os.ErrDeadlineExceeded):
		// The deadline stays, or the server would wait for the rest of the
		// body before it answers.
		err = fmt.Errorf("%w (%v)", errStalled, p.patience)
	}
	return n, err
}

// A patientWriter is a response whose client has to keep reading. It keeps
// io.ReaderFrom, so that a file still goes to the connection by sendfile, and
// answers a range that cannot be with the protocol's error.
type patientWriter struct {
	http.ResponseWriter
	h       *handler
	c       *call
	control *http.ResponseController
	refused bool
}

func (h *handler) patientWriter(c *call) *patientWriter {
	return &patientWriter{ResponseWriter: c.w, h: h, c: c, control: http.NewResponseController(c.w)}
}

func (p *patientWriter) WriteHeader(status int) {
	if status != http.StatusRequestedRangeNotSatisfiable {
		p.ResponseWriter.WriteHeader(status)
		return
	}
	p.refused = true
	p.h.fail(p.c, failf(status, codeRangeInvalid, "the range %.60q is outside of the blob: see Content-Range for its size", p.c.r.Header.Get("Range")))
}

func (p *patientWriter) Write(b []byte) (int, error) {
	if p.refused {
		return len(b), nil // http.ServeContent's own text
	}
	p.extend()
	return p.ResponseWriter.Write(b)
}

// ReadFrom hands the source on in steps, each with its deadline.
func (p *patientWriter) ReadFrom(src io.Reader) (int64, error) {
	to, ok := p.ResponseWriter.(io.ReaderFrom)
	all, limited := src.(*io.LimitedReader)
	if !ok || !limited || p.refused {
		return io.Copy(struct{ io.Writer }{p}, src)
	}
	var total int64
	for all.N > 0 {
		p.extend()
		step := &io.LimitedReader{R: all.R, N: min(all.N, writeStep)}
		want := step.N
		n, err := to.ReadFrom(step)
		total += n
		all.N -= n
		if err != nil || n < want {
			return total, err
		}
	}
	return total, nil
}

// Unwrap lets http.ResponseController see through.
func (p *patientWriter) Unwrap() http.ResponseWriter { return p.ResponseWriter }

func (p *patientWriter) extend() {
	_ = p.control.SetWriteDeadline(time.Now().Add(p.h.patience))
}

// done leaves the connection for the next request without a deadline.
func (p *patientWriter) done() { _ = p.control.SetWriteDeadline(time.Time{}) }
