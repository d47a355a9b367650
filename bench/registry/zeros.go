package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
)

// zeros reads as zero bytes without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// pushZeros pushes one blob of n zeros and returns its digest.
func pushZeros(ctx context.Context, addr, repo string, n int64) (string, error) {
	h := sha256.New()
	if _, err := io.CopyN(h, zeros{}, n); err != nil {
		return "", err
	}
	d := fmt.Sprintf("sha256:%x", h.Sum(nil))
	return d, pushBlob(ctx, addr, repo, d, io.LimitReader(zeros{}, n), n)
}
