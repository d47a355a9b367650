package load

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"math/rand/v2"
	"strings"
	"sync/atomic"
)

// Pusher uploads blobs of one size that are never the same twice, by POST and
// PUT. It is safe for concurrent use.
type Pusher struct {
	host, repo string
	common     []byte    // all of a blob but its last bytes
	state      hash.Hash // after common: each blob costs the client one block
	next       atomic.Uint64
}

// NewPusher makes blobs of size bytes (at least 64) for a repository. The seed
// tells this pusher's blobs from those of others.
func NewPusher(host, repo string, size int, seed uint64) *Pusher {
	p := &Pusher{host: host, repo: repo, common: make([]byte, size-16), state: sha256.New()}
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	_, _ = r.Read(p.common)
	binary.LittleEndian.PutUint64(p.common, seed)
	p.state.Write(p.common)
	return p
}

// Push uploads the next blob and returns its digest.
func (p *Pusher) Push(c *Conn) (digest string, err error) {
	var tail [16]byte
	binary.LittleEndian.PutUint64(tail[:], p.next.Add(1))
	cloner, ok := p.state.(hash.Cloner)
	if !ok {
		return "", fmt.Errorf("hash %T cannot be cloned", p.state)
	}
	h, err := cloner.Clone()
	if err != nil {
		return "", fmt.Errorf("clone the hash: %w", err)
	}
	h.Write(tail[:])
	digest = "sha256:" + hex.EncodeToString(h.Sum(nil))

	a, err := c.Do([]byte("POST /v2/" + p.repo + "/blobs/uploads/ HTTP/1.1\r\nHost: " + p.host + "\r\nContent-Length: 0\r\n\r\n"))
	if err != nil {
		return "", err
	}
	if a.Status != 202 || a.Location == "" {
		return "", fmt.Errorf("POST upload to %s: status %d, location %q", p.host, a.Status, a.Location)
	}
	path := a.Location
	if i := strings.Index(path, "://"); i >= 0 { // absolute
		path = path[i+3:]
		path = path[strings.IndexByte(path, '/'):]
	}
	sep := "?"
	if strings.Contains(path, "?") {
		sep = "&"
	}
	head := fmt.Sprintf("PUT %s%sdigest=%s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n", path, sep, digest, p.host, len(p.common)+len(tail))
	a, err = c.Do([]byte(head), p.common, tail[:])
	if err != nil {
		return "", err
	}
	if a.Status != 201 {
		return "", fmt.Errorf("PUT blob to %s: status %d, want 201", p.host, a.Status)
	}
	return digest, nil
}
