// Package load makes HTTP load on a server of this machine.
//
// It owns a client that does as little as HTTP/1.1 over one kept-alive
// connection allows, so that on two cores most of the time goes to the server
// that is measured, and the closed loop that drives many of them. It promises
// that every answer was read whole and its status looked at, and that a
// connection which the server closed is opened again. It does not follow
// redirects, speak TLS or verify what it reads: correctness is for tests.
package load

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// Conn is one client with one connection. One goroutine at a time.
type Conn struct {
	addr string
	c    net.Conn
	r    *bufio.Reader
	sink []byte
}

// Answer is the head of a response whose body was read and thrown away.
type Answer struct {
	Status   int
	Location string
	Body     int64 // bytes of the body
}

// NewConn makes a client of addr (host:port). It connects when first used.
func NewConn(addr string) *Conn {
	return &Conn{addr: addr, sink: make([]byte, 256<<10)}
}

// Close ends the connection.
func (c *Conn) Close() {
	if c.c != nil {
		c.c.Close()
		c.c = nil
	}
}

// timeout bounds one request: a server that hangs must not hang the benchmark.
const timeout = 30 * time.Second

// Do sends the pieces of a request as they are and reads the answer. A body
// follows its head in head's Content-Length; there is none for HEAD requests.
func (c *Conn) Do(pieces ...[]byte) (Answer, error) {
	if c.c == nil {
		nc, err := net.DialTimeout("tcp", c.addr, timeout)
		if err != nil {
			return Answer{}, fmt.Errorf("connect to %s: %w", c.addr, err)
		}
		c.c = nc
		if c.r == nil {
			c.r = bufio.NewReaderSize(nc, 4<<10)
		}
		c.r.Reset(nc)
	}
	a, keep, err := c.exchange(pieces)
	if err != nil || !keep {
		c.Close()
	}
	return a, err
}

func (c *Conn) exchange(pieces [][]byte) (a Answer, keep bool, err error) {
	if err := c.c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return a, false, err
	}
	out := net.Buffers(append([][]byte(nil), pieces...))
	if _, err := out.WriteTo(c.c); err != nil {
		return a, false, fmt.Errorf("send to %s: %w", c.addr, err)
	}
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return a, false, fmt.Errorf("read from %s: %w", c.addr, err)
	}
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return a, false, fmt.Errorf("answer of %s begins with %q", c.addr, line)
	}
	if a.Status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return a, false, fmt.Errorf("answer of %s begins with %q", c.addr, line)
	}
	length, chunked := int64(-1), false
	keep = true
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return a, false, fmt.Errorf("read the head from %s: %w", c.addr, err)
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case is(name, "content-length"):
			if length, err = strconv.ParseInt(string(value), 10, 64); err != nil {
				return a, false, fmt.Errorf("content length %q of %s: %w", value, c.addr, err)
			}
		case is(name, "transfer-encoding"):
			chunked = is(value, "chunked")
		case is(name, "connection"):
			keep = !is(value, "close")
		case is(name, "location"):
			a.Location = string(value)
		}
	}
	switch {
	case chunked:
		a.Body, err = c.chunks()
	case length >= 0:
		a.Body, err = length, c.discard(length)
	case a.Status == 204 || a.Status == 304:
	default:
		err = errors.New("answer without a length")
	}
	if err != nil {
		return a, false, fmt.Errorf("read the body from %s: %w", c.addr, err)
	}
	return a, keep, nil
}

// discard reads n bytes, big ones past the buffer of the reader.
func (c *Conn) discard(n int64) error {
	if b := int64(c.r.Buffered()); b > 0 {
		b = min(b, n)
		if _, err := c.r.Discard(int(b)); err != nil {
			return err
		}
		n -= b
	}
	for n > 0 {
		m, err := c.c.Read(c.sink[:min(n, int64(len(c.sink)))])
		n -= int64(m)
		if err != nil && n > 0 {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// chunks reads a body in chunks, without trailers.
func (c *Conn) chunks() (total int64, err error) {
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return total, err
		}
		n, err := strconv.ParseInt(string(bytes.TrimRight(line, "\r\n")), 16, 64)
		if err != nil {
			return total, fmt.Errorf("chunk length %q: %w", line, err)
		}
		if err := c.discard(n + 2); err != nil { // and its line end
			return total, err
		}
		if n == 0 {
			return total, nil
		}
		total += n
	}
}

// is compares ASCII without regard to case; lower is lower case.
func is(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i := range b {
		x := b[i]
		if 'A' <= x && x <= 'Z' {
			x += 'a' - 'A'
		}
		if x != lower[i] {
			return false
		}
	}
	return true
}
