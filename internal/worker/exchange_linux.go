package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/worker/files"
	"cairn.dev/cairn/internal/worker/keep"
)

// inputs writes what a task is to find.
func (l *Local) inputs(ctx context.Context, root *files.Root, o *files.Owner, j Job) error {
	for _, in := range j.Task.Inputs {
		if err := l.input(ctx, root, o, j.Lease.Ref, in); err != nil {
			return fmt.Errorf("input %s: %w", in.Name, err)
		}
	}
	return nil
}

func (l *Local) input(ctx context.Context, root *files.Root, o *files.Owner, holder task.Ref, in task.Input) error {
	mode := fs.FileMode(in.Mode).Perm()
	if mode == 0 {
		mode = 0o644
	}
	var from io.Reader = bytes.NewReader(in.Content)
	if in.Digest != "" || in.Source != nil {
		body, err := l.server.Fetch(ctx, holder, in)
		if err != nil {
			return err
		}
		defer body.Close()
		from = body
	}
	if !in.Folder {
		return root.Write(in.Path, mode, o, from)
	}
	err := root.Unpack(in.Path, o, from, l.cfg.Limits)
	if errors.Is(err, files.ErrUnsafe) || errors.Is(err, files.ErrTooLarge) {
		return fmt.Errorf("%w: %w", errTask, err)
	}
	return err
}

// outputs takes what a program left. Of one that failed nothing has to be
// there; of one that succeeded what is missing is an error.
func (l *Local) outputs(ctx context.Context, root *files.Root, j Job, result *capture, o *task.Outcome) {
	for _, out := range j.Task.Outputs {
		p, err := l.output(ctx, root, j.Lease.Ref, out, result)
		switch {
		case err == nil:
			if o.Outputs == nil {
				o.Outputs = map[string]task.Produced{}
			}
			o.Outputs[out.Name] = p
		case errors.Is(err, files.ErrNotThere) && (out.Optional || o.Phase != task.Succeeded):
		case o.Phase == task.Succeeded:
			o.Phase, o.Message = task.Errored, fmt.Sprintf("output %s: %v", out.Name, err)
		}
	}
}

func (l *Local) output(ctx context.Context, root *files.Root, holder task.Ref, out task.Output, result *capture) (task.Produced, error) {
	switch out.Kind {
	case task.Result:
		if result.more {
			return task.Produced{}, fmt.Errorf("%w: a result may have %d bytes; write a file and make it an artifact", files.ErrTooLarge, result.limit)
		}
		text := strings.TrimSuffix(string(result.text), "\n")
		return task.Produced{Text: &text}, nil
	case task.Parameter:
		text, err := l.parameter(root, out.Path)
		if errors.Is(err, files.ErrNotThere) && out.Default != nil {
			text, err = *out.Default, nil
		}
		return task.Produced{Text: &text}, err
	case task.Artifact:
		return l.artifact(ctx, root, holder, out)
	}
	return task.Produced{}, fmt.Errorf("this worker knows no output of kind %q", out.Kind)
}

func (l *Local) parameter(root *files.Root, path string) (string, error) {
	f, err := root.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return f.Text(MaxText)
}

func (l *Local) artifact(ctx context.Context, root *files.Root, holder task.Ref, out task.Output) (task.Produced, error) {
	f, err := root.Open(out.Path)
	if err != nil {
		return task.Produced{}, err
	}
	defer f.Close()
	r, w := io.Pipe()
	go func() {
		_, err := f.WriteTo(w)
		_ = w.CloseWithError(err)
	}()
	p, err := l.server.Store(ctx, holder, r)
	_ = r.Close()
	p.Folder = f.Folder
	return p, err
}

// userOf reads uid[:gid] or names of the root's own /etc/passwd and /etc/group.
// It is nil for the worker's own user.
func userOf(root *files.Root, s string) (*keep.User, *files.Owner, error) {
	if s == "" {
		return nil, nil, nil
	}
	name, group, grouped := strings.Cut(s, ":")
	uid, err := strconv.ParseUint(name, 10, 31)
	gid := uint64(0)
	if err != nil {
		entry, found := lookup(root, "/etc/passwd", name)
		if !found || len(entry) < 4 {
			return nil, nil, fmt.Errorf("user %q: no such name in /etc/passwd of the image: say a number", name)
		}
		uid, err = strconv.ParseUint(entry[2], 10, 31)
		if err == nil {
			gid, err = strconv.ParseUint(entry[3], 10, 31)
		}
	}
	if err == nil && grouped {
		if gid, err = strconv.ParseUint(group, 10, 31); err != nil {
			entry, found := lookup(root, "/etc/group", group)
			if !found || len(entry) < 3 {
				return nil, nil, fmt.Errorf("group %q: no such name in /etc/group of the image: say a number", group)
			}
			gid, err = strconv.ParseUint(entry[2], 10, 31)
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("user %q: %w", s, err)
	}
	if os.Geteuid() != 0 && int(uid) != os.Geteuid() {
		return nil, nil, fmt.Errorf("user %q: this worker runs as %d and cannot become another user", s, os.Geteuid())
	}
	return &keep.User{UID: uint32(uid), GID: uint32(gid)}, &files.Owner{UID: int(uid), GID: int(gid)}, nil
}

// lookup finds the line of a name in a file like /etc/passwd.
func lookup(root *files.Root, file, name string) ([]string, bool) {
	f, err := root.Open(file)
	if err != nil {
		return nil, false
	}
	defer f.Close()
	text, err := f.Text(MaxText)
	if err != nil {
		return nil, false
	}
	for line := range strings.Lines(text) {
		if entry := strings.Split(strings.TrimSpace(line), ":"); entry[0] == name {
			return entry, true
		}
	}
	return nil, false
}
