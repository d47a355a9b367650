package program

import "bytes"

// longest is how many bytes of a line are waited for: some logs hold lists.
const longest = 1 << 20

// A log cuts what is written to it into lines. os/exec writes to it from one
// goroutine.
type log struct {
	line func(string)
	part []byte // of a line that has no end yet
}

// Write implements io.Writer.
func (l *log) Write(b []byte) (int, error) {
	n := len(b)
	for {
		line, rest, ended := bytes.Cut(b, []byte{'\n'})
		l.part = append(l.part, line...)
		if ended || len(l.part) >= longest {
			l.flush()
		}
		if !ended {
			return n, nil
		}
		b = rest
	}
}

// flush hands on what has no end yet.
func (l *log) flush() {
	if len(l.part) > 0 {
		l.line(string(l.part))
		l.part = l.part[:0]
	}
}
