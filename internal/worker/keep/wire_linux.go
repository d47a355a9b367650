package keep

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"cairn.dev/cairn/internal/worker/isolate"
)

// An order is what a worker tells its keeper: one of the fields is set.
type order struct {
	Start  *Program      `json:"start,omitempty"` // with its standard output and error as files
	Signal int           `json:"signal,omitempty"`
	Root   *isolate.Root `json:"root,omitempty"` // becomes the keeper's root
}

// A report is what a keeper tells its worker.
type report struct {
	// Ready: the root is assembled; the root itself comes as a file.
	Ready bool   `json:"ready,omitempty"`
	End   *End   `json:"end,omitempty"` // nothing of the program is left
	Err   string `json:"err,omitempty"`
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
