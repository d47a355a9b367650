package plain

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/forge/object"
)

// maxOutput bounds what git may say; a list of 200,000 files is less.
const maxOutput = 64 << 20

// work is an empty bare repository in a temporary folder, whose origin is the
// address.
type work struct {
	d    *Driver
	repo string
	dir  string
	env  []string
}

// open makes the folder. Its few files are written here: one process less, and
// no template of the machine's gets in.
func (d *Driver) open(repo string) (*work, error) {
	address, err := d.address(repo)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(d.Dir, "cairn-git-")
	if err != nil {
		return nil, fmt.Errorf("make a folder to work in: %w", err)
	}
	w := &work{d: d, repo: repo, dir: dir}
	for _, sub := range []string{"objects", "refs"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			w.close()
			return nil, err
		}
	}
	files := map[string]string{
		"HEAD": "ref: refs/heads/none\n",
		// promisor: blobs that were left out are fetched when they are read.
		"config": "[core]\n\trepositoryformatversion = 1\n\tbare = true\n[extensions]\n\tpartialClone = origin\n" +
			"[remote \"origin\"]\n\turl = " + strconv.Quote(address) + "\n\tpromisor = true\n\tpartialclonefilter = blob:none\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			w.close()
			return nil, err
		}
	}
	w.env, err = d.environment(dir, u)
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// environment is all that git gets to know. Settings and the password go by it
// and not by arguments, which everybody on the machine can read.
func (d *Driver) environment(dir string, u *url.URL) ([]string, error) {
	settings := [][2]string{
		{"core.hooksPath", os.DevNull}, {"core.fsmonitor", "false"}, {"core.attributesFile", os.DevNull},
		{"gc.auto", "0"}, {"maintenance.auto", "false"}, {"fetch.recurseSubmodules", "false"}, {"push.recurseSubmodules", "no"},
		{"credential.helper", ""}, {"transfer.fsckObjects", "false"}, {"http.followRedirects", "false"}, {"protocol.version", "2"},
	}
	if u.Scheme == "https" || u.Scheme == "http" {
		password, err := d.Password.Read()
		if err != nil {
			return nil, err
		}
		if password != "" {
			settings = append(settings, [2]string{"http." + u.Scheme + "://" + u.Host + "/.extraHeader",
				"Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(d.User+":"+password))})
		}
	}
	ssh := "ssh -o BatchMode=yes -o ConnectTimeout=30"
	if d.KeyFile != "" {
		ssh += " -o IdentitiesOnly=yes -i '" + d.KeyFile + "'"
	}
	if d.KnownHosts != "" {
		ssh += " -o StrictHostKeyChecking=yes -o UserKnownHostsFile='" + d.KnownHosts + "'"
	}
	env := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GIT_DIR=" + dir, "LC_ALL=C",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_ATTR_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=true",
		"GIT_ALLOW_PROTOCOL=" + u.Scheme, "GIT_SSH_COMMAND=" + ssh, "GIT_NO_REPLACE_OBJECTS=1",
		"GIT_CONFIG_COUNT=" + strconv.Itoa(len(settings)),
	}
	if u.Scheme == "ssh" && d.KeyFile == "" { // ssh's own defaults are in the home folder and the agent
		env[1] = "HOME=" + os.Getenv("HOME")
		env = append(env, "SSH_AUTH_SOCK="+os.Getenv("SSH_AUTH_SOCK"))
	}
	for _, proxy := range []string{"https_proxy", "HTTPS_PROXY", "http_proxy", "no_proxy", "NO_PROXY"} {
		if v := os.Getenv(proxy); v != "" {
			env = append(env, proxy+"="+v)
		}
	}
	for i, s := range settings {
		env = append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i, s[0]), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i, s[1]))
	}
	return env, nil
}

func (w *work) close() { _ = os.RemoveAll(w.dir) }

// command is git with these arguments, which ends, with its children, with ctx.
func (w *work) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, w.d.git, args...)
	cmd.Dir, cmd.Env = w.dir, w.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// run runs git and returns what it prints.
func (w *work) run(ctx context.Context, input []byte, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, w.d.Timeout)
	defer cancel()
	cmd := w.command(ctx, args...)
	cmd.Stdin = bytes.NewReader(input)
	out, said := &limited{max: maxOutput}, &limited{max: 64 << 10}
	cmd.Stdout, cmd.Stderr = out, said
	err := cmd.Run()
	if err == nil && out.over {
		return nil, fmt.Errorf("git %s of %s says more than %d bytes: %w", args[0], w.repo, maxOutput, forge.ErrInvalid)
	}
	if err != nil {
		return out.Bytes(), w.refusal(ctx, args[0], err, said.String())
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
func (w *work) refusal(ctx context.Context, what string, err error, said string) error {
	if ctx.Err() == nil && errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("git: %w", err)
	}
	if errors.Is(context.Cause(ctx), context.Canceled) {
		return fmt.Errorf("git %s of %s: was not waited for: %w", what, w.repo, context.Canceled)
	}
	var lines []string
	for line := range strings.Lines(said) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "hint:") && len(lines) < 4 {
			lines = append(lines, line)
		}
	}
	e := fmt.Errorf("git %s of %s: %w: %.400s", what, w.repo, err, strings.Join(lines, "; "))
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

// fetch brings commits without their history, and without the content of
// files where that is enough and the server can leave it out.
func (w *work) fetch(ctx context.Context, lean bool, commits ...string) error {
	args := []string{"fetch", "-q", "--depth=1", "--no-tags", "--no-write-fetch-head", "--no-filter"}
	if lean {
		args[len(args)-1] = "--filter=blob:none"
	}
	_, err := w.run(ctx, nil, append(append(args, "origin"), commits...)...)
	return err
}

// list is a folder of a commit that was fetched.
func (w *work) list(ctx context.Context, commit, dir string) ([]object.Entry, error) {
	if dir == "." {
		dir = ""
	}
	out, err := w.run(ctx, nil, "ls-tree", "-z", commit+":"+dir)
	if err != nil {
		return nil, err
	}
	return entries(out)
}

// files are all files of a commit that was fetched.
func (w *work) files(ctx context.Context, commit string) ([]object.Entry, error) {
	out, err := w.run(ctx, nil, "ls-tree", "-r", "-z", commit)
	if err != nil {
		return nil, err
	}
	return entries(out)
}

// entries reads what ls-tree prints: "mode kind hash\tname", ended by zero bytes.
func entries(out []byte) ([]object.Entry, error) {
	var list []object.Entry
	for line := range bytes.SplitSeq(out, []byte{0}) {
		if len(line) == 0 {
			continue
		}
		about, name, ok := strings.Cut(string(line), "\t")
		fields := strings.Fields(about)
		if !ok || len(fields) != 3 {
			return nil, fmt.Errorf("git ls-tree prints %.100q", line)
		}
		list = append(list, object.Entry{Name: name, Mode: strings.TrimLeft(fields[0], "0"), Hash: fields[2]})
	}
	return list, nil
}

// archive is the files as a tar stream in a folder. It is not git's own:
// attributes in the repository can leave files out of that, and change others.
func (w *work) archive(ctx context.Context, top string, files []object.Entry) io.ReadCloser {
	ctx, cancel := context.WithTimeout(ctx, w.d.Timeout)
	r, pipe := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		pipe.CloseWithError(w.tar(ctx, pipe, top, files))
	}()
	return &tarball{PipeReader: r, end: func() {
		cancel()
		<-done
		w.close()
	}}
}

type tarball struct {
	*io.PipeReader
	end func()
}

func (t *tarball) Close() error {
	err := t.PipeReader.Close()
	t.end()
	return err
}

func (w *work) tar(ctx context.Context, to io.Writer, top string, files []object.Entry) error {
	cmd := w.command(ctx, "cat-file", "--batch", "--buffer")
	var ask bytes.Buffer
	for _, e := range files {
		if isFile(e) {
			fmt.Fprintln(&ask, e.Hash)
		}
	}
	said := &limited{max: 64 << 10}
	cmd.Stdin, cmd.Stderr = &ask, said
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	tw := tar.NewWriter(to)
	out := bufio.NewReaderSize(pipe, 64<<10)
	for _, e := range files {
		if !isFile(e) {
			continue
		}
		if err = copyFile(tw, out, top+"/"+e.Name, e); err != nil {
			_ = cmd.Cancel()
			break
		}
	}
	if werr := cmd.Wait(); err == nil && werr != nil {
		err = w.refusal(ctx, "cat-file", werr, said.String())
	}
	if err != nil {
		return err
	}
	return tw.Close()
}

func isFile(e object.Entry) bool { return e.Mode == object.ModeFile || e.Mode == object.ModeExecutable }

// copyFile copies one answer of cat-file: "hash kind size\n", the content, "\n".
func copyFile(tw *tar.Writer, out *bufio.Reader, name string, e object.Entry) error {
	head, err := out.ReadString('\n')
	if err != nil {
		return err
	}
	fields := strings.Fields(head)
	if len(fields) != 3 || fields[0] != e.Hash {
		return fmt.Errorf("git cat-file answers %.100q for %s", head, name)
	}
	size, err := strconv.ParseInt(fields[2], 10, 64)
	if err != nil {
		return err
	}
	mode := int64(0o644)
	if e.Mode == object.ModeExecutable {
		mode = 0o755
	}
	if err := tw.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: size, Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	if _, err := io.CopyN(tw, out, size); err != nil {
		return err
	}
	_, err = out.Discard(1)
	return err
}

// push moves a branch from one commit to another; "" is none.
func (w *work) push(ctx context.Context, branch, from, to string) error {
	ref := "refs/heads/" + branch
	_, err := w.run(ctx, nil, "push", "--porcelain", "--no-verify", "--force-with-lease="+ref+":"+from, "origin", to+":"+ref)
	if err == nil || ctx.Err() != nil {
		return err
	}
	// Why it was refused is best seen where it should have gone.
	at, herr := w.head(ctx, branch)
	if herr != nil && !errors.Is(herr, forge.ErrNotFound) {
		return err
	}
	if at != from && (to == "" || at != to) {
		if to == "" && at == "" {
			return nil
		}
		return fmt.Errorf("%w: %s is at %q, not at %q: %w", err, branch, at, from, forge.ErrMoved)
	}
	if at == to && to != "" {
		return nil // it was moved, and only the answer was lost
	}
	return err
}
