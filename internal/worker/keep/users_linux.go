package keep

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"cairn.dev/cairn/internal/worker/files"
)

const (
	maxUsers  = 1 << 20 // bytes of a file of users
	maxGroups = 1024    // of one user
)

// self is who the keeper is.
func self() Who {
	return Who{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
}

// user reads uid[:gid], or names that the root knows. Who has no home is at
// home in the root.
func user(root *files.Root, s string, home bool) (Who, error) {
	if s == "" && !home {
		return self(), nil
	}
	who, err := named(root, s)
	if who.Home == "" {
		who.Home = "/"
	}
	if err != nil || s == "" {
		return who, err
	}
	if !known("/proc/self/uid_map", who.UID) || !known("/proc/self/gid_map", who.GID) {
		return who, fmt.Errorf("user %q: %w: %d:%d is not among the users and groups that tasks have here", s, ErrUser, who.UID, who.GID)
	}
	who.Groups = slices.DeleteFunc(who.Groups, func(g uint32) bool { return !known("/proc/self/gid_map", g) })
	return who, nil
}

// known reports whether a user or group is one of this namespace
// (user_namespaces(7)). Where that cannot be read the kernel says so later.
func known(file string, id uint32) bool {
	text, err := os.ReadFile(file)
	if err != nil {
		return true
	}
	for line := range strings.Lines(string(text)) {
		var first, outside, n uint64
		if _, err := fmt.Sscan(line, &first, &outside, &n); err == nil && uint64(id) >= first && uint64(id) < first+n {
			return true
		}
	}
	return false
}

// groupless reports whether nobody may say in this namespace which groups he is
// in.
func groupless() bool {
	b, err := os.ReadFile("/proc/self/setgroups")
	return err == nil && strings.TrimSpace(string(b)) == "deny"
}

func named(root *files.Root, s string) (Who, error) {
	who := self()
	name, group, grouped := strings.Cut(s, ":")
	if name != "" {
		uid, err := strconv.ParseUint(name, 10, 31)
		numeric := err == nil
		entry := lookupUser(root, name, numeric)
		switch {
		case entry == nil && !numeric:
			return who, fmt.Errorf("user %q: %w in /etc/passwd of the image: say a number", name, ErrUser)
		case entry == nil:
			who.UID, who.GID = uint32(uid), 0
		default:
			uid, err := strconv.ParseUint(entry[2], 10, 31)
			if err != nil {
				return who, fmt.Errorf("user %q: %w: /etc/passwd of the image gives it the number %.20q", name, ErrUser, entry[2])
			}
			gid, err := strconv.ParseUint(entry[3], 10, 31)
			if err != nil {
				return who, fmt.Errorf("user %q: %w: /etc/passwd of the image gives it the group %.20q", name, ErrUser, entry[3])
			}
			who.UID, who.GID = uint32(uid), uint32(gid)
			if len(entry) > 5 {
				who.Home = entry[5]
			}
			name = entry[0]
		}
		if !grouped {
			who.Groups = groupsOf(root, name)
		}
	} else if entry := lookupUser(root, strconv.Itoa(os.Geteuid()), true); len(entry) > 5 {
		who.Home = entry[5]
	}
	if grouped {
		gid, err := strconv.ParseUint(group, 10, 31)
		if err != nil {
			entry := lines(root, "/etc/group", 3, func(e []string) bool { return e[0] == group })
			if entry == nil {
				return who, fmt.Errorf("group %q: %w in /etc/group of the image: say a number", group, ErrUser)
			}
			if gid, err = strconv.ParseUint(entry[2], 10, 31); err != nil {
				return who, fmt.Errorf("group %q: %w: /etc/group of the image gives it the number %.20q", group, ErrUser, entry[2])
			}
		}
		who.GID = uint32(gid)
	}
	if me := os.Geteuid(); me != 0 && int(who.UID) != me {
		return who, fmt.Errorf("user %q: %w: this worker runs as %d and cannot become another user", s, ErrUser, me)
	}
	return who, nil
}

// lookupUser finds the line of a user in /etc/passwd.
func lookupUser(root *files.Root, name string, numeric bool) []string {
	return lines(root, "/etc/passwd", 4, func(e []string) bool { return e[0] == name || numeric && e[2] == name })
}

// groupsOf are those that name a user.
func groupsOf(root *files.Root, name string) []uint32 {
	var groups []uint32
	lines(root, "/etc/group", 4, func(e []string) bool {
		for member := range strings.SplitSeq(e[3], ",") {
			gid, err := strconv.ParseUint(e[2], 10, 31)
			if member == name && err == nil && len(groups) < maxGroups {
				groups = append(groups, uint32(gid))
			}
		}
		return false
	})
	return groups
}

// lines finds the first line of a file like /etc/passwd, of at least n fields,
// that is the right one.
func lines(root *files.Root, file string, n int, right func([]string) bool) []string {
	f, err := root.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	text, err := f.Text(maxUsers)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(text) {
		if entry := strings.Split(strings.TrimSpace(line), ":"); len(entry) >= n && right(entry) {
			return entry
		}
	}
	return nil
}
