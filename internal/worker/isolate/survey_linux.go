package isolate

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// What is copied once instead of being seen through an overlay of its own:
// small folders, because each overlay costs each task some tenths of a
// millisecond, and what lies beside mount points, because the kernel lays no
// overlay over those.
const (
	smallEntries = 200
	smallBytes   = 4 << 20
	copyBytes    = 256 << 20
)

// A Survey is how a container looks: what of it a fresh root sees through
// overlays, what is copied, and what is shared.
type Survey struct {
	place  Place
	base   string // the copies
	mounts []mountPoint
	// hidden and fresh are paths, clean.
	hidden, fresh, keep map[string]bool

	layers []string // folders seen through overlays
	rooms  []string // empty folders that are overlays, so that they are replaced alone
	binds  []Bind
	copied int64
}

// NewSurvey looks at the container and copies what has to be. It must not run
// while tasks do.
func NewSurvey(p Place) (*Survey, error) {
	s := &Survey{place: p, base: filepath.Join(p.Scratch, "base"), hidden: set(p.Hide), fresh: set(p.Fresh), keep: set(p.Keep)}
	s.hidden[filepath.Clean(p.Scratch)] = true
	for _, f := range []string{"/tmp", "/var/tmp"} {
		s.fresh[f] = true
	}
	mounts, err := readMounts()
	if err != nil {
		return nil, err
	}
	s.mounts = mounts
	if err := os.RemoveAll(s.base); err != nil {
		return nil, fmt.Errorf("clear the worker's scratch folder: %w", err)
	}
	if err := os.MkdirAll(s.base, 0o755); err != nil {
		return nil, fmt.Errorf("make the worker's scratch folder: %w", err)
	}
	if err := s.folder("/"); err != nil {
		return nil, fmt.Errorf("look at the container's files: %w", err)
	}
	return s, s.furnish()
}

func set(paths []string) map[string]bool {
	m := map[string]bool{}
	for _, p := range paths {
		m[filepath.Clean(p)] = true
	}
	return m
}

// furnish makes what every program may expect.
func (s *Survey) furnish() error {
	for dir, mode := range map[string]fs.FileMode{"proc": 0o555, "sys": 0o555, "dev": 0o755, "tmp": 0o777 | fs.ModeSticky, "dev/shm": 0o777 | fs.ModeSticky, "dev/pts": 0o755} {
		at := filepath.Join(s.base, dir)
		if err := os.MkdirAll(at, 0o755); err != nil {
			return err
		}
		if err := os.Chmod(at, mode); err != nil {
			return err
		}
	}
	for _, d := range devices() {
		if err := os.WriteFile(filepath.Join(s.base, "dev", d), nil, 0o666); err != nil {
			return err
		}
	}
	for name, to := range links() {
		if err := os.Symlink(to, filepath.Join(s.base, "dev", name)); err != nil {
			return err
		}
	}
	return nil
}

// folder takes the entries of a folder one by one.
func (s *Survey) folder(dir string) error {
	if err := s.like(dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrPermission) {
		return nil // nobody who runs as the worker's user can see into it either
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := s.entry(filepath.Join(dir, e.Name()), e.Type()); err != nil {
			return err
		}
	}
	return nil
}

func (s *Survey) entry(path string, kind fs.FileMode) error {
	switch {
	case path == "/proc" || path == "/sys" || path == "/dev":
		return nil
	case s.hidden[path]:
		return s.empty(path, kind.IsDir())
	case s.fresh[path] && kind.IsDir():
		if err := s.like(path); err != nil {
			return err
		}
		s.rooms = append(s.rooms, path)
		return s.keepBelow(path)
	case s.mounted(path) || s.keep[path] && kind.IsDir():
		// What nobody said is shared must not carry anything from one task to
		// the next.
		s.binds = append(s.binds, Bind{Path: path, ReadOnly: !s.keep[path]})
		return s.empty(path, kind.IsDir())
	case kind&fs.ModeSymlink != 0:
		to, err := os.Readlink(path)
		if err != nil {
			return err
		}
		return os.Symlink(to, s.base+path)
	case kind.IsDir() && s.special(path):
		return s.folder(path)
	case kind.IsDir():
		if s.small(path) {
			return s.folder(path)
		}
		s.layers = append(s.layers, path)
		return s.like(path)
	case kind.IsRegular():
		return s.file(path)
	}
	return nil // pipes, sockets, devices
}

// keepBelow shows the shared folders that lie in one that is new for each task.
func (s *Survey) keepBelow(fresh string) error {
	for _, dir := range slices.Sorted(maps.Keys(s.keep)) {
		if !strings.HasPrefix(dir, fresh+"/") {
			continue
		}
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			continue
		}
		s.binds = append(s.binds, Bind{Path: dir})
		if err := s.empty(dir, true); err != nil {
			return err
		}
	}
	return nil
}

// special reports whether something below a folder is not to be seen as it is.
func (s *Survey) special(dir string) bool {
	below := func(p string) bool { return strings.HasPrefix(p, dir+"/") }
	for p := range s.hidden {
		if below(p) {
			return true
		}
	}
	for p := range s.fresh {
		if below(p) {
			return true
		}
	}
	for p := range s.keep {
		if below(p) {
			return true
		}
	}
	return slices.ContainsFunc(s.mounts, func(m mountPoint) bool { return below(m.path) })
}

func (s *Survey) mounted(path string) bool {
	return slices.ContainsFunc(s.mounts, func(m mountPoint) bool { return m.path == path })
}

// small reports whether a folder is quickly copied.
func (s *Survey) small(dir string) bool {
	entries, bytes := 0, int64(0)
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		entries++
		if info.Mode().IsRegular() {
			bytes += info.Size()
		}
		if entries > smallEntries || bytes > smallBytes {
			return fs.SkipAll
		}
		return nil
	})
	return err == nil && entries <= smallEntries && bytes <= smallBytes
}

// like makes a folder among the copies with mode and owner of the real one.
func (s *Survey) like(dir string) error {
	at := s.base + dir
	if err := os.Mkdir(at, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return alike(dir, at)
}

// alike gives to the mode and owner of from, as far as we may.
func alike(from, to string) error {
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return err
	}
	if err := os.Lchown(to, int(st.Uid), int(st.Gid)); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return unix.Chmod(to, st.Mode&0o7777)
}

// empty makes what something is mounted on.
func (s *Survey) empty(path string, dir bool) error {
	if dir {
		return os.MkdirAll(s.base+path, 0o755)
	}
	return os.WriteFile(s.base+path, nil, 0o644)
}

func (s *Survey) file(path string) error {
	in, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if s.copied += info.Size(); s.copied > copyBytes {
		return fmt.Errorf("more than %d MiB lie beside mount points, too much to be copied: mount volumes in folders that hold nothing else", copyBytes>>20)
	}
	out, err := os.OpenFile(s.base+path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if closed := out.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = alike(path, s.base+path)
	}
	return err
}

// Root makes the folders of a fresh root, which lie in dir, a folder that does
// not exist yet. volumes are paths that are new and empty folders in it.
func (s *Survey) Root(dir string, volumes []string) (*Root, error) {
	r := &Root{At: filepath.Join(dir, "root"), Binds: slices.Clone(s.binds), Again: true}
	r.Layers = append(r.Layers, Layer{Path: "/", Lower: []string{s.base}})
	for _, l := range s.layers {
		r.Layers = append(r.Layers, Layer{Path: l, Lower: []string{l}})
	}
	for _, room := range s.rooms {
		r.Layers = append(r.Layers, Layer{Path: room, Lower: []string{s.base + room}, Room: true})
	}
	for _, d := range []string{dir, r.At} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return nil, err
		}
	}
	for i := range r.Layers {
		l := &r.Layers[i]
		if err := l.blank(dir, strconv.Itoa(i)); err != nil {
			return nil, err
		}
	}
	for i, v := range volumes {
		at := filepath.Join(dir, "v"+strconv.Itoa(i))
		if err := os.Mkdir(at, 0o777); err != nil {
			return nil, err
		}
		if err := os.Chmod(at, 0o777); err != nil {
			return nil, err
		}
		r.Binds = append(r.Binds, Bind{Path: v, Source: at})
	}
	return r, nil
}

// blank makes the folders of a layer that nobody has written to yet.
func (l *Layer) blank(dir, name string) error {
	l.Upper, l.Work = filepath.Join(dir, "u"+name), filepath.Join(dir, "w"+name)
	for _, d := range []string{l.Work, l.Upper} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return err
		}
	}
	// An overlay shows the mode and owner of its upper folder.
	return alike(l.Lower[0], l.Upper)
}

// mountPoint is a line of /proc/self/mountinfo.
type mountPoint struct {
	path, kind string
	readOnly   bool
}

func readMounts() ([]mountPoint, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("see what is mounted: %w", err)
	}
	defer f.Close()
	return parseMounts(f)
}

// parseMounts reads proc_pid_mountinfo(5). Where several are mounted on one
// path the last is seen.
func parseMounts(r io.Reader) ([]mountPoint, error) {
	var mounts []mountPoint
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		before, after, ok := strings.Cut(s.Text(), " - ")
		fields, rest := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 6 || len(rest) < 1 {
			return nil, fmt.Errorf("see what is mounted: cannot read %q", s.Text())
		}
		m := mountPoint{path: unescape(fields[4]), kind: rest[0]}
		options := strings.Split(fields[5], ",")
		if len(rest) > 2 {
			options = append(options, strings.Split(rest[2], ",")...)
		}
		m.readOnly = slices.Contains(options, "ro")
		mounts = slices.DeleteFunc(mounts, func(o mountPoint) bool { return o.path == m.path })
		mounts = append(mounts, m)
	}
	return mounts, s.Err()
}

// unescape reads the octal escapes of blanks and backslashes.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// writable are the mounts on which a task could leave something behind, but
// for those that are new for each task or shared on purpose.
func (p Place) writable(mounts []mountPoint) []string {
	fresh, keep := set(p.Fresh), set(p.Keep)
	fresh["/dev/shm"] = true
	var found []string
	for _, m := range mounts {
		switch {
		case m.readOnly, fresh[m.path], keep[m.path], m.path == filepath.Clean(p.Scratch):
		case slices.Contains([]string{"proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2", "devtmpfs"}, m.kind):
		case m.kind == "tmpfs" && m.path == "/dev": // no user of a pod may make files in it but root
		default:
			found = append(found, m.path)
		}
	}
	return found
}

// Wipe empties the folders and files that are new for each task, for Readonly.
func (p Place) Wipe() error {
	for _, dir := range append(slices.Clone(p.Fresh), "/dev/shm") {
		if info, err := os.Lstat(dir); err == nil && info.Mode().IsRegular() {
			if err := os.Truncate(dir, 0); err != nil {
				return fmt.Errorf("empty: %w", err)
			}
			continue
		}
		root, err := os.OpenRoot(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = wipe(root)
			_ = root.Close()
		}
		if err != nil {
			return fmt.Errorf("empty %s: %w", dir, err)
		}
	}
	return nil
}

func wipe(root *os.Root) error {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := root.RemoveAll(e.Name()); err != nil && !errors.Is(err, syscall.EBUSY) {
			return err
		}
	}
	return nil
}
