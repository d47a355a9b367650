package git

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"cairn.dev/cairn/internal/forge"
)

// maxOutput bounds what git may say; a list of 200,000 files is less.
const maxOutput = 64 << 20

// environment is all that git gets to know. Settings and the password go by it
// and not by arguments, which everybody on the machine can read.
func (g *Git) environment(dir string, u *url.URL) ([]string, error) {
	settings := [][2]string{
		{"core.hooksPath", os.DevNull}, {"core.fsmonitor", "false"}, {"core.attributesFile", os.DevNull},
		{"gc.auto", "0"}, {"maintenance.auto", "false"}, {"fetch.recurseSubmodules", "false"}, {"push.recurseSubmodules", "no"},
		{"credential.helper", ""}, {"transfer.fsckObjects", "false"}, {"http.followRedirects", "false"}, {"protocol.version", "2"},
	}
	if u.Scheme == "https" || u.Scheme == "http" {
		password := ""
		if g.Password != nil {
			var err error
			if password, err = g.Password(); err != nil {
				return nil, err
			}
		}
		if password != "" {
			settings = append(settings, [2]string{"http." + u.Scheme + "://" + u.Host + "/.extraHeader",
				"Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(g.User+":"+password))})
		}
	}
	ssh := "ssh -o BatchMode=yes -o ConnectTimeout=30"
	if g.KeyFile != "" {
		ssh += " -o IdentitiesOnly=yes -i '" + g.KeyFile + "'"
	}
	if g.KnownHosts != "" {
		ssh += " -o StrictHostKeyChecking=yes -o UserKnownHostsFile='" + g.KnownHosts + "'"
	}
	env := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GIT_DIR=" + dir, "LC_ALL=C",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_ATTR_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=true",
		"GIT_ALLOW_PROTOCOL=" + u.Scheme, "GIT_SSH_COMMAND=" + ssh, "GIT_NO_REPLACE_OBJECTS=1",
	}
	if u.Scheme == "ssh" && g.KeyFile == "" { // ssh's own defaults are in the home folder and the agent
		env[1] = "HOME=" + os.Getenv("HOME")
		env = append(env, "SSH_AUTH_SOCK="+os.Getenv("SSH_AUTH_SOCK"))
	}
	if g.Proxy != "" {
		settings = append(settings, [2]string{"http.proxy", g.Proxy})
	}
	for _, proxy := range []string{"https_proxy", "HTTPS_PROXY", "http_proxy", "no_proxy", "NO_PROXY"} {
		if v := os.Getenv(proxy); v != "" && g.Proxy == "" {
			env = append(env, proxy+"="+v)
		}
	}
	env = append(env, "GIT_CONFIG_COUNT="+strconv.Itoa(len(settings)))
	for i, s := range settings {
		env = append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i, s[0]), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i, s[1]))
	}
	return env, nil
}

// command is git with these arguments, which ends, with its children, with ctx.
func (r *Repository) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, r.g.program, args...)
	cmd.Dir, cmd.Env = r.dir, r.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Run runs git and returns what it prints.
func (r *Repository) Run(ctx context.Context, input []byte, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, r.g.Timeout)
	defer cancel()
	cmd := r.command(ctx, args...)
	cmd.Stdin = bytes.NewReader(input)
	out, said := &limited{max: maxOutput}, &limited{max: 64 << 10}
	cmd.Stdout, cmd.Stderr = out, said
	err := cmd.Run()
	if err == nil && out.over {
		return nil, fmt.Errorf("git %s of %s says more than %d bytes: %w", args[0], r.name, maxOutput, forge.ErrInvalid)
	}
	if err != nil {
		return out.Bytes(), r.refusal(ctx, args[0], err, said.String())
	}
	return out.Bytes(), nil
}

// limited keeps the beginning of what is written to it.
type limited struct {
	bytes.Buffer
	max  int
	over bool
}

func (l *limited) Write(p []byte) (int, error) {
	if room := l.max - l.Len(); len(p) > room {
		l.over = true
		_, _ = l.Buffer.Write(p[:room])
		return len(p), nil
	}
	return l.Buffer.Write(p)
}

// refusal makes sense of what git says. Its words are not an interface; what
// is not known here is taken for something that may pass.
func (r *Repository) refusal(ctx context.Context, what string, err error, said string) error {
	if ctx.Err() == nil && errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("git: %w", err)
	}
	if errors.Is(context.Cause(ctx), context.Canceled) {
		return fmt.Errorf("git %s of %s: was not waited for: %w", what, r.name, context.Canceled)
	}
	var lines []string
	for line := range strings.Lines(said) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "hint:") && len(lines) < 4 {
			lines = append(lines, line)
		}
	}
	e := fmt.Errorf("git %s of %s: %w: %.400s", what, r.name, err, strings.Join(lines, "; "))
	s := strings.ToLower(said)
	for _, c := range []struct {
		is    error
		words []string
	}{
		{forge.ErrUnauthorized, []string{"permission denied (", "authentication failed", "could not read username", "could not read password", "host key verification failed"}},
		{forge.ErrForbidden, []string{"error: 403", "access denied", "denied to", "not allowed to push", "hook declined", "protected"}},
		{forge.ErrNotFound, []string{"not found", "does not appear to be a git repository", "does not exist", "no such file or directory", "not our ref", "couldn't find remote ref", "not a tree object", "not a valid object name", "unadvertised object"}},
	} {
		for _, word := range c.words {
			if strings.Contains(s, word) {
				return fmt.Errorf("%w: %w", e, c.is)
			}
		}
	}
	return &forge.LaterError{Err: e}
}
