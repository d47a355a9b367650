package isolate

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Namespaces are those of one task.
type Namespaces struct {
	uids, gids []syscall.SysProcIDMap
	foreign    bool
	delegated  bool
	dir        string
}

// NewNamespaces are a user, mount, PID and IPC namespace in which everybody is
// who he is outside: root's power ends at what the container may do.
func NewNamespaces() (*Namespaces, error) {
	if os.Geteuid() != 0 {
		return &Namespaces{
			uids: []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}},
			gids: []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}},
		}, nil
	}
	uids, err := identity("/proc/self/uid_map")
	if err != nil {
		return nil, err
	}
	gids, err := identity("/proc/self/gid_map")
	if err != nil {
		return nil, err
	}
	return &Namespaces{uids: uids, gids: gids}, nil
}

// identity maps everybody who is known here to himself.
func identity(file string) ([]syscall.SysProcIDMap, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("see who is known here: %w", err)
	}
	defer f.Close()
	var ids []syscall.SysProcIDMap
	for s := bufio.NewScanner(f); s.Scan(); {
		var inside, outside, size int
		if _, err := fmt.Sscan(s.Text(), &inside, &outside, &size); err != nil {
			return nil, fmt.Errorf("see who is known here: %s: %w", file, err)
		}
		ids = append(ids, syscall.SysProcIDMap{ContainerID: inside, HostID: inside, Size: size})
	}
	return ids, nil
}

// namespaces are Namespaces on their way to another process.
type namespaces struct {
	UIDs      []syscall.SysProcIDMap `json:"uids"`
	GIDs      []syscall.SysProcIDMap `json:"gids"`
	Foreign   bool                   `json:"foreign,omitempty"`
	Delegated bool                   `json:"delegated,omitempty"`
	Dir       string                 `json:"dir,omitempty"`
}

// MarshalJSON is for who has another process start in them.
func (n *Namespaces) MarshalJSON() ([]byte, error) {
	return json.Marshal(namespaces{n.uids, n.gids, n.foreign, n.delegated, n.dir})
}

// UnmarshalJSON is for that process.
func (n *Namespaces) UnmarshalJSON(b []byte) error {
	var w namespaces
	err := json.Unmarshal(b, &w)
	*n = Namespaces{w.UIDs, w.GIDs, w.Foreign, w.Delegated, w.Dir}
	return err
}

// A Range is one of users or groups: First is who its root is outside.
type Range struct{ First, Size int }

// NewForeign are a user, mount, PID, IPC, UTS and cgroup namespace in which
// nobody is anybody else: its users are those of the ranges outside. A process
// starts in them in dir, as far as whoever started it may go there.
func NewForeign(users, groups Range, dir string) *Namespaces {
	one := func(r Range) []syscall.SysProcIDMap {
		return []syscall.SysProcIDMap{{ContainerID: 0, HostID: r.First, Size: r.Size}}
	}
	return &Namespaces{uids: one(users), gids: one(groups), foreign: true, dir: dir}
}

// NewDelegated are as NewForeign for who is not root: its root is the user
// himself, and the others are from the ranges that the machine's root gave him
// in /etc/subuid and /etc/subgid. newuidmap and newgidmap see to that.
func NewDelegated(users, groups Range, dir string) *Namespaces {
	both := func(self int, r Range) []syscall.SysProcIDMap {
		return []syscall.SysProcIDMap{{ContainerID: 0, HostID: self, Size: 1}, {ContainerID: 1, HostID: r.First, Size: r.Size}}
	}
	return &Namespaces{uids: both(os.Geteuid(), users), gids: both(os.Getegid(), groups), foreign: true, delegated: true, dir: dir}
}

// Foreign reports whether a process that was started in them has to become
// their root before it does anything else.
func (n *Namespaces) Foreign() bool { return n.foreign }

// Apply makes a process start in the namespaces.
func (n *Namespaces) Apply(c *exec.Cmd) {
	a := c.SysProcAttr
	a.Cloneflags |= unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC
	if !n.delegated {
		a.UidMappings, a.GidMappings = n.uids, n.gids
		a.GidMappingsEnableSetgroups = os.Geteuid() == 0
	}
	switch {
	case n.foreign:
		c.Dir = n.dir
		a.Cloneflags |= unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP
		// It is nobody whom the namespace knows, and would lose all that it
		// may do when it becomes the keeper.
		a.AmbientCaps = []uintptr{unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_DAC_READ_SEARCH, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_KILL,
			unix.CAP_SETGID, unix.CAP_SETUID, unix.CAP_SETPCAP, unix.CAP_SYS_CHROOT, unix.CAP_MKNOD, unix.CAP_SYS_ADMIN, unix.CAP_SYS_RESOURCE,
			unix.CAP_NET_BIND_SERVICE}
	case os.Geteuid() != 0:
		// Who is not root would lose what he may do in here when he becomes
		// the keeper.
		a.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_DAC_OVERRIDE}
	}
}

// Started is called when a process was started in them.
func (n *Namespaces) Started(pid int) error {
	if !n.delegated {
		return nil
	}
	for program, ids := range map[string][]syscall.SysProcIDMap{"newuidmap": n.uids, "newgidmap": n.gids} {
		args := []string{strconv.Itoa(pid)}
		for _, m := range ids {
			args = append(args, strconv.Itoa(m.ContainerID), strconv.Itoa(m.HostID), strconv.Itoa(m.Size))
		}
		if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %.200s", program, err, out)
		}
	}
	return nil
}
