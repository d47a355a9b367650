package api

import (
	"io"
	"net/http"
	"time"
)

// patience is how long a client may take for the next bytes it sends or reads.
const patience = time.Minute

// A patientBody is a request whose client has to keep sending.
type patientBody struct {
	io.ReadCloser
	control *http.ResponseController
}

func (p *patientBody) Read(b []byte) (int, error) {
	_ = p.control.SetReadDeadline(time.Now().Add(patience))
	n, err := p.ReadCloser.Read(b)
	if err != nil {
		// From now on the server watches the connection for the client going
		// away; a deadline that passes then would end the work in progress.
		_ = p.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

// A patientWriter is an answer whose client has to keep reading.
type patientWriter struct {
	io.Writer
	control *http.ResponseController
}

func (p *patientWriter) Write(b []byte) (int, error) {
	_ = p.control.SetWriteDeadline(time.Now().Add(patience))
	return p.Writer.Write(b)
}

// done leaves the connection for the next request without a deadline.
func (p *patientWriter) done() { _ = p.control.SetWriteDeadline(time.Time{}) }
