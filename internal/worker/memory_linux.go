package worker

import (
	"os"
	"strconv"
	"strings"
)

// OOMKills is how many processes of this container the kernel has killed for
// want of memory; 0 where it does not say.
func OOMKills() int {
	k := openKills()
	defer k.close()
	return k.count()
}

// kills are files that tell it, held open: they are read for each task.
type kills []*os.File

func openKills() kills {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil
	}
	var k kills
	for _, name := range memoryFiles(string(b)) {
		if f, err := os.Open(name); err == nil {
			k = append(k, f)
		}
	}
	return k
}

func (k kills) count() int {
	n, text := 0, make([]byte, 4096)
	for _, f := range k {
		read, _ := f.ReadAt(text, 0) // io.EOF, mostly
		n = max(n, countKills(string(text[:read])))
	}
	return n
}

func (k kills) close() {
	for _, f := range k {
		_ = f.Close()
	}
}

// CountKills is what a file of a memory group says of that; 0 when it cannot be
// read.
func CountKills(file string) int {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	return countKills(string(text))
}

// memoryFiles are where the counter may be, given /proc/self/cgroup: under the
// path of the group, or at the top where only that is to be seen.
func memoryFiles(groups string) []string {
	var names []string
	for line := range strings.Lines(groups) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		switch {
		case f[0] == "0":
			names = append(names, "/sys/fs/cgroup"+f[2]+"/memory.events", "/sys/fs/cgroup/memory.events")
		case f[1] == "memory":
			names = append(names, "/sys/fs/cgroup/memory"+f[2]+"/memory.oom_control", "/sys/fs/cgroup/memory/memory.oom_control")
		}
	}
	return names
}

// countKills reads the line "oom_kill N".
func countKills(text string) int {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "oom_kill" {
			n, _ := strconv.Atoi(f[1])
			return n
		}
	}
	return 0
}
