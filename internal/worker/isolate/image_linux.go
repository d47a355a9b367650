package isolate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"cairn.dev/cairn/internal/worker/files"
)

// hidden is what of /proc and /sys tells of the machine or changes it, and what
// container runtimes hide for that (the runtime specification's maskedPaths, as
// they commonly fill it in).
func hidden() []string {
	return []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
		"/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware", "/sys/kernel/debug",
		"/sys/kernel/security", "/sys/kernel/tracing",
	}
}

// sealed is what of /proc may be read and not written.
func sealed() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

// furnish makes what an image need not bring, before anything is mounted on it.
func (r *Root) furnish() error {
	root, err := files.OpenRoot(r.At)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, d := range []struct {
		path string
		mode fs.FileMode
	}{{"/proc", 0o555}, {"/sys", 0o555}, {"/dev", 0o755}, {"/tmp", 0o777 | fs.ModeSticky}} {
		if err := root.Mkdir(d.path, d.mode, nil); err != nil {
			return err
		}
	}
	return nil
}

// machine mounts what is the kernel's in the root of an image.
func (r *Root) machine() error {
	if err := r.furnish(); err != nil {
		return err
	}
	if r.Host != "" {
		if err := unix.Sethostname([]byte(r.Host)); err != nil {
			return fmt.Errorf("name the host: %w", err)
		}
	}
	// Who may make user namespaces is somebody in them who may mount. Where
	// this cannot be forbidden he still may not leave this root.
	_ = os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0)
	if err := r.proc(); err != nil {
		return err
	}
	if err := r.bind(Bind{Path: "/sys", Source: "/sys", ReadOnly: true}); err != nil {
		return err
	}
	if err := r.dev(); err != nil {
		return err
	}
	for _, p := range hidden() {
		if err := r.hide(p); err != nil {
			return err
		}
	}
	for _, p := range sealed() {
		if err := r.seal(p); err != nil {
			return err
		}
	}
	return nil
}

// dev makes a /dev of its own: nothing of the machine is in it but what every
// program may expect.
func (r *Root) dev() error {
	if err := r.mount("tmpfs", "/dev", "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=755,size=64k"); err != nil {
		return err
	}
	on, err := r.in("/dev")
	if err != nil {
		return err
	}
	defer on.Close()
	dev, err := os.OpenRoot("/proc/self/fd/" + strconv.Itoa(int(on.Fd())))
	if err != nil {
		return fmt.Errorf("open the new /dev: %w", err)
	}
	defer dev.Close()
	for _, d := range []string{"pts", "shm"} {
		if err := dev.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	for _, d := range devices() {
		if err := dev.WriteFile(d, nil, 0o666); err != nil {
			return err
		}
	}
	for name, to := range links() {
		if err := dev.Symlink(to, name); err != nil {
			return err
		}
	}
	return r.devices()
}

// hide covers a file or folder, if it is there.
func (r *Root) hide(path string) error {
	on, err := r.in(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	info, err := on.Stat()
	_ = on.Close()
	if err != nil {
		return err
	}
	if info.IsDir() {
		return r.mount("tmpfs", path, "tmpfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=755,nr_inodes=1,nr_blocks=1")
	}
	return r.mount("/dev/null", path, "", unix.MS_BIND, "")
}

// seal makes a file or folder read-only, if it is there.
func (r *Root) seal(path string) error {
	on, err := r.in(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	err = r.mount("/proc/self/fd/"+strconv.Itoa(int(on.Fd())), path, "", unix.MS_BIND|unix.MS_REC, "")
	_ = on.Close()
	if err != nil {
		return err
	}
	return r.readonly(path)
}

// common are the powers that programs in containers have among themselves. All
// of them end at the user namespace.
func common() map[uintptr]bool {
	return map[uintptr]bool{
		unix.CAP_CHOWN: true, unix.CAP_DAC_OVERRIDE: true, unix.CAP_FOWNER: true, unix.CAP_FSETID: true, unix.CAP_KILL: true,
		unix.CAP_SETGID: true, unix.CAP_SETUID: true, unix.CAP_SETPCAP: true, unix.CAP_NET_BIND_SERVICE: true, unix.CAP_SYS_CHROOT: true,
	}
}

// Renounce takes from the programs to come what it took to make the root: who
// could mount could make writable again what is shared and must not be written.
// It counts for the thread that starts programs.
func Renounce(r Root) error {
	if r.Bare {
		return nil
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return err
	}
	if !r.Image && os.Geteuid() != 0 {
		return nil // a program gets nothing but what was ambient
	}
	keep := common()
	if !r.Image {
		keep[unix.CAP_SETFCAP] = true // packages that are installed want it
	}
	for c := uintptr(0); ; c++ {
		if keep[c] {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			break // there are no further ones
		}
		if err != nil {
			return err
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&header, &caps[0]); err != nil {
		return err
	}
	caps[0].Inheritable, caps[1].Inheritable = 0, 0
	if err := unix.Capset(&header, &caps[0]); err != nil {
		return err
	}
	if !r.Image { // sudo is for containers that have it
		return nil
	}
	return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}
