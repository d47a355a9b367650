package parts

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// SmallDisk mounts a file system in memory of the given size, such as "4m", for
// tests of what happens when a disk is full, and returns its folder. It ends
// with the test. Mounting needs root.
func SmallDisk(t testing.TB, size string) string {
	t.Helper()
	dir := t.TempDir()
	if os.Geteuid() != 0 {
		Missing(t, "mounting a small file system needs root: run the tests as root")
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size, "cairn-test", dir).CombinedOutput(); err != nil {
		Missing(t, fmt.Sprintf("a small file system: mount says %s; run as root where mounting is allowed", out))
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %s", out)
		}
	})
	return dir
}
