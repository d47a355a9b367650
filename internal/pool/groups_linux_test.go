package pool

import (
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/task"
)

func TestOwnGroups(t *testing.T) {
	v1 := "4:memory:/a/b\n2:cpu,cpuacct:/c\n1:name=systemd:/x\n0::/u\n"
	if got, want := ownGroups(v1, false), map[string]string{"memory": "/sys/fs/cgroup/memory/a/b", "cpu": "/sys/fs/cgroup/cpu,cpuacct/c"}; !maps.Equal(got, want) {
		t.Errorf("version 1: %v", got)
	}
	if got, want := ownGroups("0::/system.slice/cairn.service\n", true), map[string]string{"memory": "/sys/fs/cgroup/system.slice/cairn.service", "cpu": "/sys/fs/cgroup/system.slice/cairn.service"}; !maps.Equal(got, want) {
		t.Errorf("version 2: %v", got)
	}
	if got := ownGroups("nonsense", true); len(got) != 0 {
		t.Errorf("nonsense: %v", got)
	}
}

func TestLimits(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "memory.swap.max"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		unified bool
		want    amount
		files   map[string]string
	}{
		{"version 2", true, amount{cpu: 2500, memory: 100 << 20}, map[string]string{"memory.max": strconv.Itoa(116 << 20), "memory.swap.max": "0", "cpu.weight": "250"}},
		{"version 1", false, amount{cpu: 2500, memory: 100 << 20}, map[string]string{"memory.limit_in_bytes": strconv.Itoa(116 << 20), "cpu.shares": "2560"}},
		{"least", true, amount{cpu: 1}, map[string]string{"cpu.weight": "1"}},
		{"most", true, amount{cpu: 1 << 40}, map[string]string{"cpu.weight": "10000"}},
	} {
		g := &groups{unified: c.unified}
		got := map[string]string{}
		for file, value := range g.limits(&group{dirs: map[string]string{"memory": dir, "cpu": dir}}, c.want) {
			got[filepath.Base(file)] = value
		}
		if !maps.Equal(got, c.files) {
			t.Errorf("%s: %v, want %v", c.name, got, c.files)
		}
	}
}

// Groups go with their tasks, and tasks without numbers have none.
func TestGroupsGo(t *testing.T) {
	w := newWorld(t, nil)
	if w.groups == nil {
		if !strings.Contains(w.log.String(), "not limited") {
			t.Error("nobody is told that nothing is limited")
		}
		return
	}
	w.busybox()
	dir := w.groups.dirs["memory"]
	below := func() []string {
		t.Helper()
		all, err := filepath.Glob(filepath.Join(dir, "[0-9]*"))
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	if e := w.do(t.Context(), with(sh("true"), func(t *task.Task) { t.Memory, t.CPU = 32<<20, 100 })); e.Phase != task.Succeeded {
		t.Fatalf("%+v", e.Outcome)
	}
	w.roots.work.Wait()
	if left := below(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	w.Close()
	if _, err := os.Stat(dir); err == nil {
		t.Error("the pool's group is left")
	}
}
