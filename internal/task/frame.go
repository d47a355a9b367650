package task

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// A Frame is a piece of what a task printed. A request to [PathLogs] is frames
// one after the other, in the order in which they were read; it is answered
// with [Logged] once they are durable. A worker that got no answer sends the
// same frames again: Offset tells what is there already.
type Frame struct {
	Ref
	Stream byte // Stdout or Stderr
	// Offset is how many bytes of both streams of this attempt came before.
	Offset int64
	At     time.Time // of reading, to the millisecond
	// Bytes are whole lines, unless a line is longer than MaxLine. A frame without
	// any says that what is missing before its offset will not come: it was more
	// than is kept.
	Bytes []byte
}

// The streams of a Frame.
const (
	Stdout byte = 1
	Stderr byte = 2
)

// The bounds of a Frame.
const (
	MaxLine  = 16 << 10 // a longer line comes in several frames
	MaxFrame = 64 << 10 // bytes of a frame
	maxName  = 4 << 10  // bytes of each of run, task and token
)

// Logged answers a request to [PathLogs].
type Logged struct {
	// Refused are attempts whose lease is not held any more.
	Refused []Ref `json:"refused,omitempty"`
	// Full are attempts of whose output no more is kept; what they print from
	// now on counts as truncated.
	Full []Ref `json:"full,omitempty"`
}

// ErrFrame means that bytes are not a Frame.
var ErrFrame = errors.New("not a frame of a log")

// AppendFrame appends f to b.
func AppendFrame(b []byte, f Frame) []byte {
	for _, s := range []string{f.Run, f.Task, f.Token} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	b = binary.AppendUvarint(b, uint64(f.Attempt))
	b = append(b, f.Stream)
	b = binary.AppendUvarint(b, uint64(f.Offset))
	b = binary.AppendUvarint(b, uint64(f.At.UnixMilli()))
	b = binary.AppendUvarint(b, uint64(len(f.Bytes)))
	return append(b, f.Bytes...)
}

// ReadFrame reads the next frame. It returns io.EOF where there is no further
// one, and an error that is ErrFrame for anything else that is not one.
func ReadFrame(r *bufio.Reader) (Frame, error) {
	if _, err := r.Peek(1); err == io.EOF {
		return Frame{}, io.EOF
	}
	d := frameReader{r: r}
	f := Frame{Ref: Ref{Run: string(d.bytes(maxName)), Task: string(d.bytes(maxName)), Token: string(d.bytes(maxName))}}
	f.Attempt = int(d.number(1 << 31))
	f.Stream = d.byte()
	f.Offset = int64(d.number(1 << 62))
	f.At = time.UnixMilli(int64(d.number(1 << 52))).UTC()
	f.Bytes = d.bytes(MaxFrame)
	if d.err == nil && f.Stream != Stdout && f.Stream != Stderr {
		d.err = fmt.Errorf("stream %d", f.Stream)
	}
	if d.err != nil {
		return Frame{}, fmt.Errorf("%w: %w", ErrFrame, d.err)
	}
	return f, nil
}

// frameReader reads the fields of a frame; after the first error it reads nothing.
type frameReader struct {
	r   *bufio.Reader
	err error
}

func (d *frameReader) number(limit uint64) uint64 {
	if d.err != nil {
		return 0
	}
	n, err := binary.ReadUvarint(d.r)
	switch {
	case err != nil:
		d.err = cut(err)
		return 0
	case n > limit:
		d.err = fmt.Errorf("%d where at most %d is allowed", n, limit)
		return 0
	}
	return n
}

func (d *frameReader) byte() byte {
	if d.err != nil {
		return 0
	}
	c, err := d.r.ReadByte()
	d.err = cut(err)
	return c
}

func (d *frameReader) bytes(limit uint64) []byte {
	n := d.number(limit)
	if d.err != nil {
		return nil
	}
	b := make([]byte, n)
	_, err := io.ReadFull(d.r, b)
	d.err = cut(err)
	return b
}

// cut turns the end of the bytes inside a frame into what it is.
func cut(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// HeaderLease carries the Ref for which a worker asks for bytes or brings some,
// in requests to [PathBlob] and [PathArtifact].
const HeaderLease = "Cairn-Lease"

// Header is r as the value of [HeaderLease].
func (r Ref) Header() string {
	b, err := json.Marshal(r)
	if err != nil { // strings and a number
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// ParseLease reads the value of [HeaderLease].
func ParseLease(s string) (Ref, error) {
	var r Ref
	if len(s) > 4*maxName {
		return r, fmt.Errorf("header %s: %d bytes where at most %d are allowed", HeaderLease, len(s), 4*maxName)
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err == nil && (r.Run == "" || r.Task == "" || r.Token == "") {
		err = errors.New("it names no lease")
	}
	if err != nil {
		return Ref{}, fmt.Errorf("header %s: %w", HeaderLease, err)
	}
	return r, nil
}
