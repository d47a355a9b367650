package content

import (
	"hash"
	"io"
	"sync"

	"cairn.dev/cairn/internal/blob"
)

var buffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// A writeError is an error of the side that is written to, to tell it from the
// client's.
type writeError struct{ error }

func (e writeError) Unwrap() error { return e.error }

// copyBuffered copies until r ends, never hiding which side failed.
func copyBuffered(w io.Writer, r io.Reader) (n int64, err error) {
	if r == nil {
		return 0, nil
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		// Few large writes cost less than many, as the network brings them.
		var k int
		var rerr error
		for k < len(*buf) && rerr == nil {
			var m int
			m, rerr = r.Read((*buf)[k:])
			k += m
		}
		if k > 0 {
			if _, err := w.Write((*buf)[:k]); err != nil {
				return n, writeError{err}
			}
			n += int64(k)
		}
		if rerr == io.EOF {
			return n, nil
		}
		if rerr != nil {
			return n, rerr
		}
	}
}

// tee writes to the file first: only what is there counts as hashed.
type tee struct {
	st blob.Staged
	h  hash.Hash
}

func (t tee) Write(p []byte) (int, error) {
	n, err := t.st.Write(p)
	t.h.Write(p[:n])
	return n, err
}
