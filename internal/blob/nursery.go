package blob

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// nursery makes files that have no name yet, in a folder which it changes when
// making them gets slow.
//
// ext4 places a file in the block group of its folder, and does not reuse an
// inode for some minutes after its deletion: a new file looks at each of those
// anew. In a group where thousands were deleted (a collection, expired
// uploads) that was measured to take 1.5 ms of processor time for each file,
// against 0.05 ms in another. The blobs themselves are not moved by their
// final name; so it is enough to be born elsewhere.
type nursery struct {
	root string // "": files without names cannot be had here

	mu    sync.Mutex
	dir   string
	seq   int
	since time.Time
	made  int
	spent time.Duration
}

const (
	// slowFile is the mean time to make a file above which it is tried
	// elsewhere. Waiting for the processor or the journal counts, too: then
	// the change is for nothing, and costs one folder in moveEvery.
	slowFile  = 300 * time.Microsecond
	moveAfter = 32 // files, as a sample
	moveEvery = 250 * time.Millisecond
)

// init removes what an earlier process left and tries whether files without
// names can be had and be given one.
func (n *nursery) init(root string) error {
	if err := os.RemoveAll(root); err != nil {
		return err
	}
	if err := os.Mkdir(root, 0o700); err != nil {
		return err
	}
	spreadFolders(root)
	n.root = root
	if err := n.move(); err != nil {
		return err
	}
	if err := n.try(); err != nil {
		n.root = ""
	}
	return nil
}

func (n *nursery) try() error {
	f, err := createNameless(n.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	p := filepath.Join(n.dir, "try")
	if err := link(f, p); err != nil {
		return err
	}
	return os.Remove(p)
}

// move makes a new folder and removes the old one, which is empty.
func (n *nursery) move() error {
	old := n.dir
	n.seq++
	dir := filepath.Join(n.root, fmt.Sprintf("%x-%d", time.Now().UnixNano(), n.seq))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	n.dir, n.since, n.made, n.spent = dir, time.Now(), 0, 0
	if old != "" {
		_ = os.Remove(old) // the next start removes it, if this does not
	}
	return nil
}

// create makes a file without a name, or returns errors.ErrUnsupported.
func (n *nursery) create() (*os.File, error) {
	if n.root == "" {
		return nil, errors.ErrUnsupported
	}
	for again := false; ; again = true {
		n.mu.Lock()
		dir := n.dir
		n.mu.Unlock()
		start := time.Now()
		f, err := createNameless(dir)
		if errors.Is(err, fs.ErrNotExist) && !again {
			continue // it moved meanwhile
		}
		if err == nil {
			n.note(dir, time.Since(start))
		}
		return f, err
	}
}

func (n *nursery) note(dir string, took time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if dir != n.dir {
		return
	}
	n.made++
	n.spent += took
	if n.made < moveAfter {
		return
	}
	if n.spent/time.Duration(n.made) > slowFile && time.Since(n.since) > moveEvery {
		_ = n.move() // else stay: slow is better than not at all
		return
	}
	n.made, n.spent = 0, 0
}
