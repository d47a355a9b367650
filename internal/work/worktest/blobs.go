package worktest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"sync"
)

// Blobs keeps blobs in memory. It is safe for concurrent use.
type Blobs struct {
	mu sync.Mutex
	m  map[string][]byte
}

// Put stores what r gives.
func (b *Blobs) Put(_ context.Context, _ string, r io.Reader) (string, int64, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return "", 0, err
	}
	sum := sha256.Sum256(data)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.m == nil {
		b.m = map[string][]byte{}
	}
	b.m[digest] = data
	return digest, int64(len(data)), nil
}

// Keep reports whether the blob is there.
func (b *Blobs) Keep(_ context.Context, _, digest string) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.m[digest]
	return ok, nil
}

// Drop removes a blob, as if its runs were gone.
func (b *Blobs) Drop(digest string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.m, digest)
}

// Open reads a blob.
func (b *Blobs) Open(_ context.Context, digest string) (io.ReadSeekCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	data, ok := b.m[digest]
	if !ok {
		return nil, fmt.Errorf("there is no blob %s", digest)
	}
	return closer{bytes.NewReader(data)}, nil
}

type closer struct{ *bytes.Reader }

func (closer) Close() error { return nil }
