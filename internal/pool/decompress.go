package pool

import (
	"bufio"
	"bytes"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// maxWindow bounds what a decompressor remembers: zstd's own limit for files
// that anybody may send.
const maxWindow = 128 << 20

// decompress reads a layer as it is stored: gzip, zstd or plain. What it is
// called does not matter; builders do not agree on that.
func decompress(r *bufio.Reader) (io.ReadCloser, error) {
	magic, err := r.Peek(4)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("read the layer: %w", err)
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, fmt.Errorf("%w: its gzip: %w", ErrNoImage, err)
		}
		return z, nil
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, fmt.Errorf("%w: its zstd: %w", ErrNoImage, err)
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(r), nil
}
