package pool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"cairn.dev/cairn/internal/worker"
)

const (
	groupsPrefix = "cairn-pool-"
	serverGroup  = "cairn-server"
	// keeperMemory is what the process beside a program may need of the
	// task's memory.
	keeperMemory = 16 << 20
	hierarchies  = "/sys/fs/cgroup"
)

// groups are control groups of tasks that say what they need: memory is a
// limit, processors are a share when there are not enough for all. Both
// versions of the kernel's interface are known (cgroups(7)).
type groups struct {
	unified bool
	dirs    map[string]string // the pool's group, by controller

	mu sync.Mutex
	n  int
}

// openGroups makes the pool's own group. With an error there are no groups, and
// tasks are not limited.
func openGroups() (*groups, error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(hierarchies, &fs); err != nil {
		return nil, fmt.Errorf("no control groups: %w", err)
	}
	g := &groups{unified: fs.Type == unix.CGROUP2_SUPER_MAGIC, dirs: map[string]string{}}
	var failures []error
	for controller, own := range ownGroups(string(b), g.unified) {
		dir, err := g.open(controller, own)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		g.dirs[controller] = dir
	}
	if g.dirs["memory"] == "" {
		g.close()
		return nil, fmt.Errorf("no control group for memory can be made: %w", errors.Join(failures...))
	}
	return g, nil
}

// ownGroups are the folders of this process's groups, by controller, given
// /proc/self/cgroup.
func ownGroups(text string, unified bool) map[string]string {
	own := map[string]string{}
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		if unified && f[0] == "0" {
			own["memory"] = filepath.Join(hierarchies, f[2])
			own["cpu"] = own["memory"]
		}
		for c := range strings.SplitSeq(f[1], ",") {
			if !unified && (c == "memory" || c == "cpu") {
				own[c] = filepath.Join(hierarchies, f[1], f[2])
			}
		}
	}
	return own
}

// open makes the pool's group below our own.
func (g *groups) open(controller, own string) (string, error) {
	sweep(own)
	dir := filepath.Join(own, groupsPrefix+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	if !g.unified {
		return dir, nil
	}
	err := enable(own, controller)
	if errors.Is(err, unix.EBUSY) && alone(own) {
		// A group with processes of its own hands nothing on.
		if err = join(filepath.Join(own, serverGroup), os.Getpid()); err == nil {
			err = enable(own, controller)
		}
	}
	if err == nil {
		err = enable(dir, controller)
	}
	if err != nil {
		_ = os.Remove(dir)
		return "", fmt.Errorf("hand %s on to tasks (systemd: Delegate=yes): %w", controller, err)
	}
	return dir, nil
}

func enable(dir, controller string) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0)
}

// alone reports whether nobody else is in a group.
func alone(dir string) bool {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	return err == nil && strings.TrimSpace(string(b)) == strconv.Itoa(os.Getpid())
}

func join(dir string, pid int) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
}

// sweep removes empty groups of processes that have ended; that of one that
// lives is empty between its tasks.
func sweep(own string) {
	old, err := filepath.Glob(filepath.Join(own, groupsPrefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range old {
		pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(dir), groupsPrefix))
		if err == nil && unix.Kill(pid, 0) != unix.ESRCH {
			continue
		}
		below, _ := filepath.Glob(filepath.Join(dir, "*"))
		for _, d := range below {
			_ = os.Remove(d) // only empty groups go, and files not at all
		}
		_ = os.Remove(dir)
	}
}

// group is that of one task; nil for none.
type group struct{ dirs map[string]string }

// join puts a keeper, and so all that it will start, into a group of its own if
// the task says what it needs.
func (g *groups) join(pid int, want amount) (*group, error) {
	if g == nil || want == (amount{}) {
		return nil, nil
	}
	g.mu.Lock()
	g.n++
	name := strconv.Itoa(g.n)
	g.mu.Unlock()
	t := &group{dirs: map[string]string{}}
	for controller, dir := range g.dirs {
		t.dirs[controller] = filepath.Join(dir, name)
	}
	for _, dir := range t.folders() {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.leave()
			return nil, err
		}
	}
	for file, value := range g.limits(t, want) {
		if err := os.WriteFile(file, []byte(value), 0); err != nil {
			t.leave()
			return nil, err
		}
	}
	for _, dir := range t.folders() {
		if err := join(dir, pid); err != nil {
			t.leave()
			return nil, err
		}
	}
	return t, nil
}

// limits are what is written where.
func (g *groups) limits(t *group, want amount) map[string]string {
	out := map[string]string{}
	cpu, memory := t.dirs["cpu"], t.dirs["memory"]
	if want.memory > 0 {
		file, swap := "memory.max", "memory.swap.max"
		bytes, none := strconv.FormatInt(want.memory+keeperMemory, 10), "0"
		if !g.unified {
			file, swap, none = "memory.limit_in_bytes", "memory.swappiness", "0"
		}
		out[filepath.Join(memory, file)] = bytes
		if _, err := os.Stat(filepath.Join(memory, swap)); err == nil {
			out[filepath.Join(memory, swap)] = none
		}
	}
	if want.cpu > 0 && cpu != "" {
		if g.unified { // from 1 to 10000; 100 is what a group has that says nothing
			out[filepath.Join(cpu, "cpu.weight")] = strconv.FormatInt(min(max(want.cpu/10, 1), 10000), 10)
		} else {
			out[filepath.Join(cpu, "cpu.shares")] = strconv.FormatInt(min(max(want.cpu*1024/1000, 2), 262144), 10)
		}
	}
	return out
}

// close removes the pool's group.
func (g *groups) close() {
	if g == nil {
		return
	}
	for _, dir := range g.dirs {
		_ = os.Remove(dir) // it is empty, or else a later pool's sweep removes it
	}
}

// folders of a group, each once.
func (t *group) folders() []string {
	var all []string
	for _, d := range t.dirs {
		if !slices.Contains(all, d) {
			all = append(all, d)
		}
	}
	return all
}

// leave removes a group in which nobody is any more.
func (t *group) leave() {
	if t == nil {
		return
	}
	for _, d := range t.folders() {
		_ = os.Remove(d) // else a later pool's sweep
	}
}

// killed is how many of its processes the kernel killed for want of memory; of
// a task without a group, how many of ours.
func (t *group) killed() int {
	if t == nil {
		return worker.OOMKills()
	}
	n := 0
	for _, file := range []string{"memory.events", "memory.oom_control"} {
		n += worker.CountKills(filepath.Join(t.dirs["memory"], file))
	}
	return n
}
