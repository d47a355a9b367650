package serve

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// fileTaker is a connection that the kernel can copy files to.
type fileTaker struct {
	http.ResponseWriter
	took int64
}

func (f *fileTaker) ReadFrom(r io.Reader) (int64, error) {
	n, err := io.Copy(io.Discard, r)
	f.took += n
	return n, err
}

// CheckReaderFrom checks that what handlers write to hands a file on.
func CheckReaderFrom(t *testing.T) {
	t.Helper()
	w := &fileTaker{ResponseWriter: httptest.NewRecorder()}
	rw := &response{ResponseWriter: &response{ResponseWriter: w}}
	// As net/http's ServeContent does it.
	if _, err := io.CopyN(rw, struct{ io.Reader }{strings.NewReader("hello")}, 5); err != nil {
		t.Fatal(err)
	}
	if w.took != 5 || rw.status != http.StatusOK || rw.bytes != 5 {
		t.Errorf("the connection took %d bytes itself, the log counts %d with status %d; want 5, 5, 200", w.took, rw.bytes, rw.status)
	}
	if rw.Unwrap() == nil {
		t.Error("deadlines cannot be set through it")
	}
}
