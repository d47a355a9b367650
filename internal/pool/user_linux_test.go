package pool

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/test/parts"
)

// someone is a user of nobody else's.
const someone = 2_100_000_001

// TestAsUser runs tests of this file as a user that may do nothing but make
// user namespaces.
func TestAsUser(t *testing.T) {
	if os.Geteuid() != 0 {
		parts.Missing(t, "only root becomes another user")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "pool.test")
	copyTo(t, "/proc/self/exe", program)
	// What images are made of, where that user may read it.
	from := parts.Unpacked(t, "busybox-static")
	cache := filepath.Join(dir, "parts")
	if err := os.CopyFS(filepath.Join(cache, filepath.Base(from)), os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	parts.Apt(t, "uidmap", "util-linux")
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	given := "cairntest:1900000000:65536\n"
	for name, text := range map[string]string{"subuid": given, "subgid": given, "passwd": string(passwd) + "cairntest:x:" + strconv.Itoa(someone) + ":" + strconv.Itoa(someone) + "::/:/bin/sh\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	err = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err == nil {
			err = os.Lchown(path, someone, someone)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, up := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(up, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for test, command := range map[string][]string{
		"TestUnprivileged": {program},
		// One whom the machine gave users, in files that only this process sees.
		"TestDelegated": {"unshare", "--mount", "sh", "-ec", `for f in subuid subgid passwd; do mount --bind "$0/$f" /etc/$f; done; exec setpriv --reuid ` + strconv.Itoa(someone) +
			` --regid ` + strconv.Itoa(someone) + ` --clear-groups "$@"`, dir, program},
	} {
		t.Run(test, func(t *testing.T) {
			c := exec.Command(command[0], append(command[1:], "-test.run", "^"+test+"$", "-test.v", "-test.timeout", "60s")...)
			c.Dir = dir
			c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir, "CAIRN_PARTS=" + cache, "CAIRN_TEST_USER=1", "CAIRN_E2E=" + os.Getenv("CAIRN_E2E")}
			if len(command) == 1 {
				c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: someone, Gid: someone}}
			}
			out, err := c.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "--- PASS: "+test) {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func copyTo(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(out, in)
	if closed := out.Close(); err == nil {
		err = closed
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestUnprivileged(t *testing.T) {
	if os.Getenv("CAIRN_TEST_USER") == "" {
		return // TestAsUser runs it
	}
	w := newWorld(t, nil)
	w.busybox()
	for _, c := range []struct {
		name string
		task task.Task
		ok   func(e ended) bool
	}{
		{"root of its container", sh("id -u; cat /proc/self/uid_map | tr -s ' '; echo x > /etc/x; cat /etc/x"), func(e ended) bool {
			return e.result() == "0\n 0 "+strconv.Itoa(someone)+" 1\nx"
		}},
		{"another user", with(sh("id"), func(t *task.Task) { t.User = "nobody" }), func(e ended) bool {
			return e.Phase == task.Errored && !e.Infrastructure && has(e.Message, "not among the users")
		}},
		{"inputs and outputs", with(sh("cat /in/x; mkdir /d; echo y > /d/y; chmod 0 /d/y /d"), func(t *task.Task) {
			t.Inputs = []task.Input{{Name: "x", Path: "/in/x", Content: []byte("x")}}
			t.Outputs = append(t.Outputs, task.Output{Name: "d", Kind: task.Artifact, Path: "/d"})
		}), func(e ended) bool {
			return e.Phase == task.Succeeded && e.result() == "x" && has(string(w.bytes.blobs[e.Outputs["d"].Digest]), "y\n")
		}},
		{"mounts", sh("mount -t tmpfs x /tmp 2>/dev/null || unshare -Urm true 2>/dev/null || echo no"), func(e ended) bool { return e.result() == "no" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			if e := w.do(t.Context(), c.task); !c.ok(e) {
				t.Errorf("%+v\nresult %q\nprinted %q and %q", e.Outcome, e.result(), e.out, e.err)
			}
		})
	}
	w.Close()
	if left, err := filepath.Glob(filepath.Join(w.dir, tasksDir, "*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v\n%s", left, err, w.log)
	}
	w.open(nil)
	if e := w.sh("echo again"); e.result() != "again" {
		t.Errorf("%+v", e.Outcome)
	}
}

func TestDelegated(t *testing.T) {
	if os.Getenv("CAIRN_TEST_USER") == "" {
		return // TestAsUser runs it
	}
	w := newWorld(t, nil)
	w.busybox()
	if e := w.sh("cat /proc/self/uid_map | tr -s ' '; id -u"); e.result() != " 0 "+strconv.Itoa(someone)+" 1\n 1 1900000000 65535\n0" {
		t.Errorf("%+v %q", e.Outcome, e.result())
	}
	nobody := with(sh("id -u; mkdir /tmp/d; echo x > /tmp/d/x; chmod 700 /tmp/d; cat /in"), func(t *task.Task) {
		t.User, t.Inputs = "nobody", []task.Input{{Name: "x", Path: "/in", Mode: 0o400, Content: []byte("x")}}
		t.Outputs = append(t.Outputs, task.Output{Name: "d", Kind: task.Artifact, Path: "/tmp/d"})
	})
	if e := w.do(t.Context(), nobody); e.result() != "65534\nx" || !has(string(w.bytes.blobs[e.Outputs["d"].Digest]), "x\n") {
		t.Errorf("%+v %q %q", e.Outcome, e.result(), e.err)
	}
	// What others own is removed all the same.
	w.Close()
	if left, err := filepath.Glob(filepath.Join(w.dir, tasksDir, "*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v\n%s", left, err, w.log)
	}
	for chain, y := range w.layers.known {
		w.layers.forget(chain, y)
		if err := w.layers.drop(y); err != nil {
			t.Error(err)
		}
	}
}
