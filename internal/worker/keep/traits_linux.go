package keep

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// traits are what programs inherit from a keeper and others of the same user
// may change, with no power but that: it has to be the same before each program.
// That a program reads or writes the keeper's memory, its files or namespaces is
// refused by the kernel: it is not dumpable (see harden), and has powers that
// programs have not.
type traits struct {
	limits   [resources]unix.Rlimit // prlimit(2)
	schedule unix.SchedAttr         // sched_setattr(2), setpriority(2): policy, niceness
	where    unix.CPUSet            // sched_setaffinity(2)
	io       uintptr                // ioprio_set(2)
	slack    int                    // /proc/PID/timerslack_ns
	files    [3]string              // those of traitFiles
}

// resources is how many limits there are (getrlimit(2)).
const resources = 16

// traitFiles are those of /proc/PID that the user may write.
func traitFiles() [3]string { return [3]string{"oom_score_adj", "coredump_filter", "projid_map"} }

// A mirror shows a keeper its traits, whatever its root is.
type mirror struct {
	files [3]*os.File
	born  traits
}

// harden keeps other processes away from this one, and notes what it is like.
// The thread that calls it has to be the one that starts programs.
func harden() (*mirror, error) {
	m := &mirror{}
	for i, name := range traitFiles() {
		f, err := os.Open("/proc/self/" + name)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // some kernels dump no core
			return nil, err
		}
		m.files[i] = f
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return nil, err
	}
	var err error
	m.born, err = m.look()
	return m, err
}

// same reports whether nobody has changed this process.
func (m *mirror) same() bool {
	now, err := m.look()
	return err == nil && now == m.born
}

func (m *mirror) look() (t traits, err error) {
	for i := range t.limits {
		if err := unix.Prlimit(0, i, nil, &t.limits[i]); err != nil {
			return t, err
		}
	}
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return t, err
	}
	t.schedule = *attr
	if err := unix.SchedGetaffinity(0, &t.where); err != nil {
		return t, err
	}
	const process = 1 // IOPRIO_WHO_PROCESS
	var errno unix.Errno
	if t.io, _, errno = unix.Syscall(unix.SYS_IOPRIO_GET, process, 0, 0); errno != 0 {
		return t, errno
	}
	if t.slack, err = unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); err != nil {
		return t, err
	}
	var text [256]byte
	for i, f := range m.files {
		if f == nil {
			continue
		}
		n, err := unix.Pread(int(f.Fd()), text[:], 0)
		if err != nil {
			return t, err
		}
		t.files[i] = string(text[:n])
	}
	return t, nil
}
