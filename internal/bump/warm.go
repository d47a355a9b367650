package bump

import (
	"container/list"
	"sync"

	"cairn.dev/cairn/internal/code"
)

// A reading is a repository's code at one commit, read.
type reading struct {
	head   string
	tree   *code.Tree
	result *code.Result
	rules  *Rules
	bytes  int64

	mu    sync.Mutex
	edits map[string]*drafted // by what was wanted
}

// drafted is a change that was worked out, or why there is none.
type drafted struct {
	edit    *Edit
	change  code.Change
	refused map[string]string // image -> reason
}

// A treeCache keeps readings ready, so that a push needs no archive. It bounds
// their bytes: what was not needed for longest goes first.
type treeCache struct {
	mu    sync.Mutex
	limit int64
	bytes int64
	order *list.List // of *kept, newest first
	by    map[*repository]*list.Element
}

type kept struct {
	repo *repository
	*reading
}

func newTreeCache(limit int64) *treeCache {
	return &treeCache{limit: limit, order: list.New(), by: map[*repository]*list.Element{}}
}

// get returns the reading of a commit, or nil.
func (c *treeCache) get(r *repository, head string) *reading {
	c.mu.Lock()
	defer c.mu.Unlock()
	el := c.by[r]
	if el == nil || el.Value.(*kept).head != head {
		return nil
	}
	c.order.MoveToFront(el)
	return el.Value.(*kept).reading
}

// put keeps a reading in place of the repository's older one.
func (c *treeCache) put(r *repository, x *reading) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(c.by[r])
	c.by[r] = c.order.PushFront(&kept{r, x})
	c.bytes += x.bytes
	// The newest stays even if it is too large alone: it is in use now.
	for c.bytes > c.limit && c.order.Len() > 1 {
		c.remove(c.order.Back())
	}
}

func (c *treeCache) drop(r *repository) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(c.by[r])
}

func (c *treeCache) remove(el *list.Element) {
	if el == nil {
		return
	}
	k := c.order.Remove(el).(*kept)
	delete(c.by, k.repo)
	c.bytes -= k.bytes
}

// sizeOf adds up the bytes of a tree.
func sizeOf(t *code.Tree) (n int64) {
	for _, p := range t.Paths() {
		if f, err := t.Read(p); err == nil {
			n += int64(len(f.Data) + len(p))
		}
	}
	return n
}
