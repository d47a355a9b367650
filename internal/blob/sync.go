package blob

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"cairn.dev/cairn/internal/image"
)

// SyncMode says how a [Disk] makes commits durable.
type SyncMode int

const (
	// SyncAuto syncs the files by themselves while few are pending and the
	// file system as a whole when many are: one syncfs costs less than many
	// fsyncs, but it also writes what others have dirtied.
	SyncAuto SyncMode = iota
	// SyncFiles always syncs each file and its folder.
	SyncFiles
	// SyncFileSystem always syncs the file system, where the system can.
	SyncFileSystem
)

const (
	// fewFiles is up to how many pending files are synced by themselves.
	fewFiles = 2
	// maxOpen bounds the files that are kept open until their sync.
	maxOpen = 256
)

// syncer lets callers that wait at the same time share one sync. A sync in
// progress may have passed over what a newcomer committed, so the newcomer
// waits for the next one.
type syncer struct {
	mode  SyncMode
	fault func(Point) error
	root  *os.File // any file on the file system, for syncfs
	// What the system is asked; others in tests.
	syncAll, syncLog func(*os.File) error
	// inherited says that what an earlier process wrote may not be durable
	// yet. One round at a time looks at it.
	inherited bool

	mu      sync.Mutex
	running bool
	next    *round
	pending []commit
	open    int             // files held open in pending
	folders map[string]bool // got a new folder and must be synced
	// failed holds the digests whose sync failed, until they are committed
	// anew or deleted: the one who committed may ask only now.
	failed map[image.Digest]failure
}

type failure struct {
	commit
	err error
}

// A commit is a file that was renamed into place and may not be durable.
type commit struct {
	digest image.Digest
	path   string
	f      *os.File // nil when too many are open
}

type round struct {
	done chan struct{}
	logs []*os.File // of others, to be made durable as well
	err  error      // for everybody
	// waiting counts those who joined; the syncer's lock guards it.
	waiting int
	some    error // what one of the commits met, for those who named none
}

func (s *syncer) init(dir string, mode SyncMode, fault func(Point) error) (err error) {
	s.mode, s.fault, s.inherited = mode, fault, true
	s.syncAll, s.syncLog = syncFileSystem, syncData
	s.failed, s.folders = map[image.Digest]failure{}, map[string]bool{}
	s.root, err = os.Open(dir)
	return err
}

func (s *syncer) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.pending {
		if c.f != nil {
			c.f.Close()
		}
	}
	s.pending, s.open = nil, 0
	return s.root.Close()
}

// lose does to what no sync has covered what a loss of power may do.
func (s *syncer) lose(left Loss) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, c := range s.pending {
		if c.f != nil {
			c.f.Close()
		}
		errs = append(errs, left.apply(c.path))
	}
	for _, f := range s.failed {
		errs = append(errs, left.apply(f.path))
	}
	s.pending, s.open = nil, 0
	clear(s.failed)
	return errors.Join(errs...)
}

// add takes over f, which was renamed to path.
func (s *syncer) add(g image.Digest, f *os.File, path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.failed, g)
	if s.open == maxOpen { // nobody asks for a sync, it seems
		f.Close()
		f = nil
	} else {
		s.open++
	}
	s.pending = append(s.pending, commit{g, path, f})
}

// addFolder is told of a folder in which another was made.
func (s *syncer) addFolder(p string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.folders[p] = true
}

// forget is told that g was deleted.
func (s *syncer) forget(g image.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.failed, g)
}

// join takes part in the next round, and begins it when none is running. A log
// is made durable by it as well.
func (s *syncer) join(log *os.File) *round {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == nil {
		s.next = &round{done: make(chan struct{})}
	}
	r := s.next
	r.waiting++
	if log != nil {
		r.logs = append(r.logs, log)
	}
	if !s.running {
		s.running = true
		go s.run()
	}
	return r
}

// wait returns when a round that begins now or later has covered ds.
func (s *syncer) wait(ctx context.Context, ds []image.Digest) error {
	r := s.join(nil)
	select {
	case <-r.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if r.err != nil {
		return r.err
	}
	if len(ds) == 0 {
		return r.some
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range ds {
		if f, ok := s.failed[g]; ok {
			return f.err
		}
	}
	return nil
}

// waitAll returns when a round has covered everything, and log.
func (s *syncer) waitAll(log *os.File) error {
	r := s.join(log)
	<-r.done
	if r.err != nil {
		return r.err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.failed { // in this round or in one before
		return f.err
	}
	return nil
}

// run makes rounds while somebody waits.
func (s *syncer) run() {
	for {
		s.mu.Lock()
		r, pending, folders := s.next, s.pending, s.folders
		if r == nil {
			s.running = false
			s.mu.Unlock()
			return
		}
		s.next, s.pending, s.open = nil, nil, 0
		if len(pending) > 0 { // else folders wait for the commit they are for
			s.folders = map[string]bool{}
		}
		s.mu.Unlock()
		if len(pending) > 0 || len(r.logs) > 0 {
			s.flush(r, pending, folders)
		}
		close(r.done)
	}
}

// flush makes the commits and the round's logs durable, and files what failed.
func (s *syncer) flush(r *round, pending []commit, folders map[string]bool) {
	defer func() {
		for _, c := range pending {
			if c.f != nil {
				c.f.Close()
			}
		}
	}()
	if err := s.fault(PointSync); err != nil {
		errs := make([]error, len(pending))
		for i := range errs {
			errs[i] = err
		}
		s.file(r, pending, folders, errs)
		if len(r.logs) > 0 {
			r.err = err
		}
		return
	}
	files, logs := pending, r.logs
	inherited := s.inherited && len(logs) > 0
	if s.mode == SyncFileSystem || s.mode == SyncAuto && (len(pending) > fewFiles || inherited) {
		err := s.syncAll(s.root)
		switch {
		case err == nil:
			files, s.inherited = nil, false
			logs = slices.DeleteFunc(slices.Clone(logs), func(f *os.File) bool { return sameFileSystem(s.root, f) })
		case inherited:
			// Which files it is about is not known.
			r.err = fmt.Errorf("sync the file system of %s: %w", s.root.Name(), mapError(err))
		}
		// Else it is not possible here, or it failed: that may be the fault
		// of somebody else's file, so look at ours.
	}
	var wg sync.WaitGroup
	for _, f := range logs {
		wg.Go(func() {
			if err := s.syncLog(f); err != nil {
				s.mu.Lock()
				defer s.mu.Unlock()
				r.err = fmt.Errorf("sync %s: %w", f.Name(), mapError(err))
			}
		})
	}
	if len(files) > 0 {
		errs := make([]error, len(files))
		syncFiles(files, folders, errs)
		s.file(r, files, folders, errs)
	}
	wg.Wait()
	if err := s.fault(PointSynced); r.err == nil {
		r.err = err
	}
}

// file notes which of the commits failed.
func (s *syncer) file(r *round, cs []commit, folders map[string]bool, errs []error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, c := range cs {
		if errs[i] == nil {
			continue
		}
		err := fmt.Errorf("sync blob %s: %w", c.digest, mapError(errs[i]))
		s.failed[c.digest] = failure{c, err}
		if r.some == nil {
			r.some = err
		}
	}
	if r.some != nil {
		for p := range folders { // they may not be durable yet
			s.folders[p] = true
		}
	}
}

// syncFiles syncs each file and its folder, and the other folders, several at
// a time because the file system's journal shares the work between them, too.
// It sets the errs of those that failed.
func syncFiles(pending []commit, folders map[string]bool, errs []error) {
	each(len(pending), func(i int) {
		c := pending[i]
		if c.f != nil {
			errs[i] = c.f.Sync()
			return
		}
		f, err := os.Open(c.path)
		if errors.Is(err, os.ErrNotExist) {
			return // deleted since
		}
		if err == nil {
			err = f.Sync()
			f.Close()
		}
		errs[i] = err
	})
	of := map[string][]int{} // folder -> the commits that need it
	for i, c := range pending {
		p := filepath.Dir(c.path)
		of[p] = append(of[p], i)
		for p := range folders {
			of[p] = append(of[p], i)
		}
	}
	names := slices.Collect(maps.Keys(of))
	failed := make([]error, len(names))
	each(len(names), func(i int) { failed[i] = syncDir(names[i]) })
	for i, err := range failed {
		for _, j := range of[names[i]] {
			errs[j] = cmp.Or(errs[j], err)
		}
	}
}

// each calls f(0) to f(n-1), up to 16 at a time.
func each(n int, f func(i int)) {
	if n == 1 {
		f(0)
		return
	}
	var wg sync.WaitGroup
	for k := range min(n, 16) {
		wg.Go(func() {
			for i := k; i < n; i += 16 {
				f(i)
			}
		})
	}
	wg.Wait()
}

func syncDir(p string) error {
	f, err := os.Open(p)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
