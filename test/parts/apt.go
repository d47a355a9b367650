package parts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Install makes sure that Debian packages are installed. Missing ones are
// installed when the process is root; otherwise the error holds the command
// to type. Package lists are refreshed at most once a day, and first when an
// install fails with the ones that are there.
func Install(ctx context.Context, progress io.Writer, packages ...string) error {
	missing, err := notInstalled(ctx, packages)
	if err != nil || len(missing) == 0 {
		return err
	}
	command := "apt-get update && apt-get install -y --no-install-recommends " + strings.Join(missing, " ")
	if os.Geteuid() != 0 {
		return fmt.Errorf("not installed, of Debian's packages: %s; type: sudo sh -c '%s'", strings.Join(missing, ", "), command)
	}
	cache, err := Cache()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return fmt.Errorf("make the cache of parts: %w; set CAIRN_PARTS to a folder that can be written", err)
	}
	unlock, err := lock(ctx, filepath.Join(cache, "apt.lock"))
	if err != nil {
		return err
	}
	defer unlock()
	if missing, err = notInstalled(ctx, packages); err != nil || len(missing) == 0 {
		return err // somebody else installed them while we waited
	}
	stop := tell(progress, "parts: installing Debian packages "+strings.Join(missing, " "))
	err = aptInstall(ctx, filepath.Join(cache, "apt.updated"), missing)
	stop(err)
	if err != nil {
		return fmt.Errorf("install Debian packages: %w; try by hand: %s", err, command)
	}
	return nil
}

// notInstalled lists those of packages that dpkg does not have.
func notInstalled(ctx context.Context, packages []string) ([]string, error) {
	if _, err := exec.LookPath("dpkg-query"); err != nil {
		return nil, fmt.Errorf("this is not a Debian machine: install what the packages %s hold by your own means, or run the tests in a Debian container", strings.Join(packages, ", "))
	}
	var missing []string
	for _, p := range packages {
		out, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", "${db:Status-Status}", p).Output()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			return nil, fmt.Errorf("ask dpkg for %s: %w", p, err)
		}
		if strings.TrimSpace(string(out)) != "installed" {
			missing = append(missing, p)
		}
	}
	return missing, nil
}

func aptInstall(ctx context.Context, stamp string, packages []string) error {
	update := func() error {
		if err := apt(ctx, "update"); err != nil {
			return err
		}
		return os.WriteFile(stamp, nil, 0o644)
	}
	install := append([]string{"install", "-y", "--no-install-recommends"}, packages...)
	if i, err := os.Stat(stamp); err == nil && time.Since(i.ModTime()) < 24*time.Hour {
		if apt(ctx, install...) == nil {
			return nil
		}
	}
	if err := update(); err != nil {
		return err
	}
	return apt(ctx, install...)
}

func apt(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-q", "-o", "DPkg::Lock::Timeout=300"}, args...)...)
	// RUNLEVEL=1 keeps packages of servers from starting them: tests start
	// their own, on their own ports.
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get %s: %w\n%s", strings.Join(args, " "), err, tail(out, 10))
	}
	return nil
}
