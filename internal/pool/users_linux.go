package pool

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"cairn.dev/cairn/internal/worker/isolate"
	"cairn.dev/cairn/internal/worker/keep"
)

// users is who tasks are on this machine.
type users struct {
	namespaces *isolate.Namespaces
	nursery    *keep.Nursery
	dir        string // the pool's
	root       Users  // who is root in there, and how many there are
	one        bool   // there is only one
	delegated  bool   // only their namespace may remove what they made
	how        string // for the log
}

// findUsers chooses the users of tasks, and starts what starts their keepers:
// it ends with close.
func findUsers(cfg Config) (*users, error) {
	u, err := chooseUsers(cfg)
	if err == nil {
		u.nursery, err = keep.NewNursery()
	}
	return u, err
}

func (u *users) close() { u.nursery.Close() }

// chooseUsers finds for root a range of their own; for others the one that the
// machine gave them, or else themselves.
func chooseUsers(cfg Config) (*users, error) {
	u := &users{dir: cfg.Dir, root: cfg.Users}
	if os.Geteuid() == 0 {
		if u.root == (Users{}) {
			u.root = defaultUsers
		}
		r := isolate.Range{First: u.root.First, Size: u.root.Size}
		u.namespaces = isolate.NewForeign(r, r, cfg.Dir)
		u.how = fmt.Sprintf("users %d to %d", r.First, r.First+r.Size-1)
		return u, nil
	}
	if cfg.Users != (Users{}) {
		return nil, errors.New("only root can choose the users of tasks: leave them to /etc/subuid")
	}
	u.root = Users{First: os.Geteuid(), Size: 1}
	uids, err := delegated("/etc/subuid")
	if err == nil {
		var gids isolate.Range
		if gids, err = delegated("/etc/subgid"); err == nil {
			_, err = exec.LookPath("newuidmap")
		}
		if err == nil {
			u.namespaces, u.delegated = isolate.NewDelegated(uids, gids, cfg.Dir), true
			u.how = fmt.Sprintf("this user as root, and users from %d on", uids.First)
			return u, nil
		}
	}
	u.one = true
	u.namespaces = isolate.NewForeign(isolate.Range{First: os.Geteuid(), Size: 1}, isolate.Range{First: os.Getegid(), Size: 1}, cfg.Dir)
	u.how = fmt.Sprintf("this user as root, and no others, because %v", err)
	return u, nil
}

// keeper starts one in the namespaces of tasks.
func (u *users) keeper() (*keep.Keeper, error) { return u.nursery.New(u.namespaces) }

// delegated reads the range that a file like /etc/subuid (subuid(5)) gives this
// user.
func delegated(file string) (isolate.Range, error) {
	names := []string{strconv.Itoa(os.Geteuid())}
	if me, err := user.Current(); err == nil {
		names = append(names, me.Username)
	}
	f, err := os.Open(file)
	if err != nil {
		return isolate.Range{}, err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		part := strings.Split(s.Text(), ":")
		if len(part) != 3 || part[0] != names[0] && part[0] != names[len(names)-1] {
			continue
		}
		first, err := strconv.Atoi(part[1])
		if err != nil {
			continue
		}
		if size, err := strconv.Atoi(part[2]); err == nil && size > 0 && first > 0 {
			return isolate.Range{First: first, Size: min(size, 65535)}, nil
		}
	}
	return isolate.Range{}, fmt.Errorf("%s gives %s no users (usermod --add-subuids)", file, names[len(names)-1])
}

// makeDir makes a folder that belongs to the tasks' root, and those it lies in.
func (u *users) makeDir(path string) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	return u.own(path)
}

func (u *users) own(path string) error {
	if os.Geteuid() != 0 {
		return nil // it is ours, and we are root in there
	}
	if err := os.Chown(path, u.root.First, u.root.First); err != nil {
		return fmt.Errorf("give a folder to the tasks' root: %w", err)
	}
	return nil
}

// alike gives to the mode and the owner of from.
func (u *users) alike(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if ok && os.Geteuid() == 0 {
		if err := os.Chown(to, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	return os.Chmod(to, info.Mode()&(fs.ModePerm|fs.ModeSticky))
}

// check says whether a folder was made for these users.
func (u *users) check(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) < u.root.First || int(st.Uid) >= u.root.First+max(u.root.Size, 1) {
		return errors.New("it was unpacked for other users")
	}
	return nil
}

// remove removes a folder below the pool's. What other users made is for their
// namespace to remove.
func (u *users) remove(name string) error {
	path := filepath.Join(u.dir, name)
	err := isolate.Clear(path)
	if err == nil || !u.delegated {
		return err
	}
	k, err := u.keeper()
	if err != nil {
		return err
	}
	defer k.Close()
	return k.Remove(name)
}
