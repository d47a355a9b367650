package object

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Pack holds objects whole, without deltas: they are few and small, and no
// server minds.
func Pack(f Format, objects []Object) []byte {
	var b bytes.Buffer
	b.WriteString("PACK")
	b.Write(binary.BigEndian.AppendUint32(nil, 2))
	b.Write(binary.BigEndian.AppendUint32(nil, uint32(len(objects))))
	for _, o := range objects {
		size := uint64(len(o.Body))
		c := byte(o.Kind)<<4 | byte(size&15)
		for size >>= 4; size > 0; size >>= 7 {
			b.WriteByte(c | 0x80)
			c = byte(size & 0x7f)
		}
		b.WriteByte(c)
		z := zlib.NewWriter(&b) // writing to memory does not fail
		_, _ = z.Write(o.Body)
		_ = z.Close()
	}
	b.Write(f.sum(b.Bytes()))
	return b.Bytes()
}

// Unpack reads what [Pack] writes; more than limit bytes in all are an error.
func Unpack(f Format, pack []byte, limit int64) ([]Object, error) {
	size := len(f.Zero()) / 2
	if len(pack) < 12+size || string(pack[:4]) != "PACK" || !bytes.Equal(f.sum(pack[:len(pack)-size]), pack[len(pack)-size:]) {
		return nil, errors.New("no pack, or a broken one")
	}
	n := binary.BigEndian.Uint32(pack[8:12])
	r := bytes.NewReader(pack[12 : len(pack)-size])
	var objects []Object
	for range n {
		c, err := r.ReadByte()
		if err != nil {
			return nil, errors.New("the pack ends early")
		}
		kind, want, shift := Kind(c>>4&7), uint64(c&15), uint(4)
		for c&0x80 != 0 && shift < 60 {
			if c, err = r.ReadByte(); err != nil {
				return nil, errors.New("the pack ends early")
			}
			want |= uint64(c&0x7f) << shift
			shift += 7
		}
		if kind != Commit && kind != Tree && kind != Blob {
			return nil, fmt.Errorf("%s in a pack", kind)
		}
		if limit -= int64(min(want, 1<<62)); limit < 0 {
			return nil, errors.New("the pack holds too much")
		}
		z, err := zlib.NewReader(r)
		if err != nil {
			return nil, fmt.Errorf("read a pack: %w", err)
		}
		body, err := io.ReadAll(io.LimitReader(z, int64(want)+1))
		if err != nil || uint64(len(body)) != want {
			return nil, fmt.Errorf("an object of %d bytes should have %d (%v)", len(body), want, err)
		}
		objects = append(objects, Object{kind, body})
	}
	return objects, nil
}

// A Move asks a server to move a branch: from Old (a zero hash: it must not be
// there) to New (a zero hash: it goes).
type Move struct {
	Branch   string
	Old, New string
}

// packet is one pkt-line.
func packet(s string) string { return fmt.Sprintf("%04x%s", len(s)+4, s) }

const flush = "0000"

// Push is the body of a POST to git-receive-pack that makes the move, bringing
// the objects it needs.
func Push(f Format, m Move, objects []Object) []byte {
	caps := "report-status agent=cairn"
	if f != SHA1 {
		caps += " object-format=" + string(f)
	}
	b := []byte(packet(m.Old+" "+m.New+" refs/heads/"+m.Branch+"\x00 "+caps) + flush)
	if m.New == f.Zero() {
		return b // a deletion sends no pack
	}
	return append(b, Pack(f, objects)...)
}

// ReadPush reads what [Push] writes.
func ReadPush(f Format, body []byte, limit int64) (Move, []Object, error) {
	line, rest, err := nextPacket(body)
	if err != nil {
		return Move{}, nil, err
	}
	command, _, _ := strings.Cut(line, "\x00")
	fields := strings.Fields(command)
	if len(fields) != 3 || !Valid(fields[0]) || !Valid(fields[1]) || !strings.HasPrefix(fields[2], "refs/heads/") {
		return Move{}, nil, fmt.Errorf("no command: %.100q", command)
	}
	m := Move{Old: fields[0], New: fields[1], Branch: strings.TrimPrefix(fields[2], "refs/heads/")}
	if _, rest, err = nextPacket(rest); err != nil {
		return Move{}, nil, err
	}
	if m.New == f.Zero() {
		return m, nil, nil
	}
	objects, err := Unpack(f, rest, limit)
	return m, objects, err
}

// nextPacket splits off a pkt-line; a flush is an empty one.
func nextPacket(b []byte) (line string, rest []byte, err error) {
	if len(b) < 4 {
		return "", nil, errors.New("the message ends early")
	}
	n, err := strconv.ParseUint(string(b[:4]), 16, 16)
	if err != nil || n > uint64(len(b)) || n > 0 && n < 4 {
		return "", nil, fmt.Errorf("%.20q begins no packet", b)
	}
	if n == 0 {
		return "", b[4:], nil
	}
	return string(b[4:n]), b[n:], nil
}

// Report is the body of an answer to a push: refused says why it was, "" that
// the branch was moved.
func Report(m Move, refused string) []byte {
	line := "ok refs/heads/" + m.Branch + "\n"
	if refused != "" {
		line = "ng refs/heads/" + m.Branch + " " + refused + "\n"
	}
	return []byte(packet("unpack ok\n") + packet(line) + flush)
}

// ReadReport reads the answer to a push: refused is what the server says why it
// did not move the branch, "" when it did. An answer that says neither is an error.
func ReadReport(m Move, body []byte) (refused string, err error) {
	for {
		line, rest, err := nextPacket(body)
		if err != nil {
			return "", fmt.Errorf("read the answer to a push: %w", err)
		}
		if line == "" {
			return "", errors.New("read the answer to a push: it does not say whether the branch was moved")
		}
		body, line = rest, strings.TrimSuffix(line, "\n")
		if status, ok := strings.CutPrefix(line, "unpack "); ok && status != "ok" {
			return "unpack: " + status, nil
		}
		if line == "ok refs/heads/"+m.Branch {
			return "", nil
		}
		if why, ok := strings.CutPrefix(line, "ng refs/heads/"+m.Branch+" "); ok {
			return why, nil
		}
	}
}
