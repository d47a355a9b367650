package keep

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"cairn.dev/cairn/internal/worker/files"
	"cairn.dev/cairn/internal/worker/isolate"
)

// An order is what a worker tells its keeper: one of the fields is set.
type order struct {
	Start  *Program      `json:"start,omitempty"` // with its standard output and error as files
	Signal int           `json:"signal,omitempty"`
	Become bool          `json:"become,omitempty"` // root of its user namespace
	Root   *isolate.Root `json:"root,omitempty"`   // becomes the keeper's root
	Setup  *Setup        `json:"setup,omitempty"`
	Put    *put          `json:"put,omitempty"` // with a file to read from
	Take   string        `json:"take,omitempty"`
	Remove string        `json:"remove,omitempty"`
	Renew  bool          `json:"renew,omitempty"` // the root is for another task
	// Spawn is for a nursery, with the connection of the keeper to be.
	Spawn *isolate.Namespaces `json:"spawn,omitempty"`
}

// put is something that a keeper writes to its root.
type put struct {
	Kind     string       `json:"kind"`
	Path     string       `json:"path,omitempty"`
	Mode     fs.FileMode  `json:"mode,omitempty"`
	Limits   files.Limits `json:"limits"`
	OneOwner bool         `json:"one_owner,omitempty"`
}

// The kinds of a put.
const (
	putFile   = "file"
	putFolder = "folder" // from a tar
	putLayer  = "layer"  // of an image, on the root itself
)

// A report is what a keeper tells its worker.
type report struct {
	Who     *Who           `json:"who,omitempty"`
	Pid     int            `json:"pid,omitempty"`   // of what was spawned; its pidfd comes as a file
	Found   *found         `json:"found,omitempty"` // the bytes come through a pipe
	Applied *files.Applied `json:"applied,omitempty"`
	End     *End           `json:"end,omitempty"`  // nothing of the program is left
	Left    []string       `json:"left,omitempty"` // folders that are of no use any more
	// Err says why an order was not carried out, and Kind which of the errors
	// that callers tell apart it is.
	Err  string `json:"err,omitempty"`
	Kind string `json:"kind,omitempty"`
}

// found is what lies at a path.
type found struct {
	Folder bool        `json:"folder,omitempty"`
	Size   int64       `json:"size,omitempty"`
	Mode   fs.FileMode `json:"mode,omitempty"`
}

// kinds are the errors that callers tell apart.
func kinds() map[string]error {
	return map[string]error{"absent": files.ErrNotThere, "unsafe": files.ErrUnsafe, "large": files.ErrTooLarge, "user": ErrUser, "anew": isolate.ErrAnew}
}

// failure is a report of an error.
func failure(err error) report {
	r := report{Err: err.Error()}
	for kind, e := range kinds() {
		if errors.Is(err, e) {
			r.Kind = kind
		}
	}
	return r
}

// told is an error that a keeper reported.
type told struct {
	text string
	kind error
}

func (e *told) Error() string { return e.text }
func (e *told) Unwrap() error { return e.kind }

// failed is the error of a report; nil for none.
func (r report) failed() error {
	if r.Err == "" {
		return nil
	}
	return &told{text: r.Err, kind: kinds()[r.Kind]}
}

// maxMessage bounds a message: the arguments and the environment of a program,
// which the kernel bounds by far less.
const maxMessage = 16 << 20

// send writes a message and hands over files with its first byte.
func send(c *net.UnixConn, v any, files ...*os.File) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(body) > maxMessage {
		return fmt.Errorf("%d bytes of arguments and environment, at most %d are possible", len(body), maxMessage)
	}
	msg := append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		oob = unix.UnixRights(fds...)
	}
	n, _, err := c.WriteMsgUnix(msg, oob, nil)
	if err == nil && n < len(msg) {
		_, err = c.Write(msg[n:])
	}
	return err
}

// receive reads a message into v, and returns the files that came with it.
func receive(c *net.UnixConn, v any) ([]*os.File, error) {
	var head [4]byte
	oob := make([]byte, unix.CmsgSpace(4*4))
	n, oobn, _, _, err := c.ReadMsgUnix(head[:], oob) // sets close-on-exec
	if err != nil {
		return nil, err
	}
	files, err := filesOf(oob[:oobn])
	if err != nil {
		return nil, err
	}
	if err := readFull(c, head[n:]); err != nil {
		return files, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxMessage {
		return files, fmt.Errorf("a message of %d bytes", size)
	}
	body := make([]byte, size)
	if err := readFull(c, body); err != nil {
		return files, err
	}
	return files, json.Unmarshal(body, v)
}

func filesOf(oob []byte) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return files, err
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "handed over"))
		}
	}
	return files, nil
}

func readFull(c *net.UnixConn, b []byte) error {
	for len(b) > 0 {
		n, err := c.Read(b)
		if err != nil {
			return err
		}
		if n == 0 {
			return net.ErrClosed
		}
		b = b[n:]
	}
	return nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}
