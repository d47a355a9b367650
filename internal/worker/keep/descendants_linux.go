package keep

import (
	"bytes"
	"os"
	"strconv"
)

// descendants are the processes below this one, as /proc tells. Some may be
// gone, and some may be missing, when it returns: it is asked again until there
// is nobody to wait for.
func descendants() []int {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil
	}
	children := map[int][]int{}
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err != nil {
			continue
		}
		if parent, ok := parentOf(pid); ok {
			children[parent] = append(children[parent], pid)
		}
	}
	var found []int
	// Our own PID as /proc counts it, which is not that of our namespace where
	// no /proc of its own could be mounted.
	self, err := os.Readlink("/proc/self")
	if err != nil {
		return nil
	}
	pid, err := strconv.Atoi(self)
	if err != nil || pid != os.Getpid() {
		return everybody()
	}
	for next := children[pid]; len(next) > 0; {
		found = append(found, next...)
		var below []int
		for _, p := range next {
			below = append(below, children[p]...)
		}
		next = below
	}
	return found
}

// everybody stands for all processes of a PID namespace, where /proc shows
// another one: kill knows -1 as that.
func everybody() []int {
	if os.Getpid() == 1 {
		return []int{-1}
	}
	return nil
}

// parentOf reads the fourth field of /proc/PID/stat; the second may hold
// anything, parentheses too.
func parentOf(pid int) (int, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false
	}
	i := bytes.LastIndexByte(b, ')')
	fields := bytes.Fields(b[i+1:])
	if i < 0 || len(fields) < 2 || fields[0][0] == 'Z' { // the dead have no children
		return 0, false
	}
	parent, err := strconv.Atoi(string(fields[1]))
	return parent, err == nil
}
