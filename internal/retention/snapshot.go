package retention

import (
	"hash/maphash"
	"sync"

	"cairn.dev/cairn/internal/content"
	"cairn.dev/cairn/internal/image"
)

// seed is that of key. A million images within their last days take 16 bytes
// each this way; that two of them share a key in 64 bits is not to be expected,
// and would cost a needless warning.
var seed = maphash.MakeSeed()

func key(repository string, d image.Digest) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	h.WriteString(repository)
	h.WriteByte('@')
	h.WriteString(string(d))
	return h.Sum64()
}

// hiddenIndex finds the repositories in which the use of a digest may concern
// an image that retention has hidden: by its own digest, its config or a child.
type hiddenIndex struct {
	mu   sync.RWMutex
	repo map[uint64][]string
}

func newHiddenIndex() *hiddenIndex { return &hiddenIndex{repo: map[uint64][]string{}} }

func (x *hiddenIndex) add(im *content.Image, repo string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.one(im.Digest, repo)
	if im.Config != "" {
		x.one(im.Config, repo)
	}
	for _, c := range im.Children {
		x.one(c, repo)
	}
}

func (x *hiddenIndex) one(d image.Digest, repo string) {
	k := key("", d)
	if rs := x.repo[k]; len(rs) == 0 || rs[len(rs)-1] != repo {
		x.repo[k] = append(rs, repo)
	}
}

func (x *hiddenIndex) repositories(d image.Digest) []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if len(x.repo) == 0 {
		return nil
	}
	return x.repo[key("", d)]
}

// all adds every repository that has a hidden image.
func (x *hiddenIndex) all(to map[string]bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, rs := range x.repo {
		for _, r := range rs {
			to[r] = true
		}
	}
}
