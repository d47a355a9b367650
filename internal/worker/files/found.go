package files

import (
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Found is a file or a folder that a program left.
type Found struct {
	Folder bool
	Size   int64 // of a file
	Mode   fs.FileMode
	body   io.ReadCloser // a file, or the tar of a folder that is elsewhere
	dir    *os.Root
}

// NewFound is what another process found: body is the file, or the tar of the
// folder.
func NewFound(folder bool, size int64, mode fs.FileMode, body io.ReadCloser) *Found {
	return &Found{Folder: folder, Size: size, Mode: mode, body: body}
}

// Close closes it.
func (f *Found) Close() error {
	if f.body != nil {
		return f.body.Close()
	}
	return f.dir.Close()
}

// Text is a file whole, of at most limit bytes; else the error is ErrTooLarge.
func (f *Found) Text(limit int64) (string, error) {
	if f.Folder {
		return "", fmt.Errorf("%w: it is a folder, and a text is wanted", ErrUnsafe)
	}
	b, err := io.ReadAll(io.LimitReader(f.body, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%w: more than %d bytes; make it an artifact", ErrTooLarge, limit)
	}
	return string(b), err
}

// WriteTo writes a file as it is and a folder as a tar.
func (f *Found) WriteTo(w io.Writer) (int64, error) {
	switch {
	case f.dir != nil:
		c := &counter{w: w}
		err := pack(c, f.dir)
		return c.n, err
	case f.Folder:
		return io.Copy(w, f.body)
	}
	n, err := io.Copy(w, io.LimitReader(f.body, f.Size)) // as large as it was said to be
	if err == nil && n < f.Size {
		// It may be the process that reads it which failed.
		if _, err = f.body.Read(make([]byte, 1)); err == io.EOF {
			err = nil
		}
	}
	return n, err
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
