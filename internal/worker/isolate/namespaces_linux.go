package isolate

import (
	"bufio"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Namespaces are those of one task.
type Namespaces struct{ uids, gids []syscall.SysProcIDMap }

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

// Apply makes a process start in the namespaces.
func (n *Namespaces) Apply(a *syscall.SysProcAttr) {
	a.Cloneflags |= unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC
	a.UidMappings, a.GidMappings = n.uids, n.gids
	a.GidMappingsEnableSetgroups = os.Geteuid() == 0
	if os.Geteuid() != 0 {
		// Who is not root would lose what he may do in here when he becomes
		// the keeper.
		a.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_DAC_OVERRIDE}
	}
}
