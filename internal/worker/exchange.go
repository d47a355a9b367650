package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/worker/files"
)

// inputs writes what a task is to find.
func (x *Executor) inputs(ctx context.Context, to Tree, j Job) error {
	for _, in := range j.Task.Inputs {
		if err := x.input(ctx, to, j.Lease.Ref, in); err != nil {
			return fmt.Errorf("input %s: %w", in.Name, err)
		}
	}
	return nil
}

func (x *Executor) input(ctx context.Context, to Tree, holder task.Ref, in task.Input) error {
	mode := fs.FileMode(in.Mode).Perm()
	if mode == 0 {
		mode = 0o644
	}
	var from io.Reader = bytes.NewReader(in.Content)
	folder := in.Folder
	if in.Digest != "" || in.Source != nil {
		var body io.ReadCloser
		err := x.again(ctx, func() (err error) { body, folder, err = x.Exchange.Fetch(ctx, holder, in); return err })
		if err != nil {
			return err
		}
		defer body.Close()
		from = body
	}
	if !folder {
		return to.Write(in.Path, mode, from)
	}
	err := to.Unpack(in.Path, from, x.Limits)
	if errors.Is(err, files.ErrUnsafe) || errors.Is(err, files.ErrTooLarge) {
		return fmt.Errorf("%w: %w", errTask, err)
	}
	return err
}

// outputs takes what a program left. Of one that failed nothing has to be
// there; of one that succeeded what is missing is an error.
func (x *Executor) outputs(ctx context.Context, from Tree, j Job, result *capture, o *task.Outcome) {
	for _, out := range j.Task.Outputs {
		p, err := x.output(ctx, from, j.Lease.Ref, out, result)
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

func (x *Executor) output(ctx context.Context, from Tree, holder task.Ref, out task.Output, result *capture) (task.Produced, error) {
	switch out.Kind {
	case task.Result:
		if result.more {
			return task.Produced{}, fmt.Errorf("%w: a result may have %d bytes; write a file and make it an artifact", files.ErrTooLarge, result.limit)
		}
		text := strings.TrimSuffix(string(result.text), "\n")
		return task.Produced{Text: &text}, nil
	case task.Parameter:
		text, err := x.parameter(from, out.Path)
		if errors.Is(err, files.ErrNotThere) && out.Default != nil {
			text, err = *out.Default, nil
		}
		return task.Produced{Text: &text}, err
	case task.Artifact:
		return x.artifact(ctx, from, holder, out)
	}
	return task.Produced{}, fmt.Errorf("this worker knows no output of kind %q", out.Kind)
}

func (x *Executor) parameter(from Tree, path string) (string, error) {
	f, err := from.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := f.Text(MaxText)
	return strings.TrimSuffix(text, "\n"), err
}

// artifact hands over a file or folder. A server that is away is waited for: what
// a program made in hours is not to be lost by a restart.
func (x *Executor) artifact(ctx context.Context, from Tree, holder task.Ref, out task.Output) (p task.Produced, err error) {
	err = x.again(ctx, func() error { p, err = x.store(ctx, from, holder, out); return err })
	return p, err
}

// again calls f until it fails of something else than that the server is away,
// or the task has to end.
func (x *Executor) again(ctx context.Context, f func() error) error {
	for wait := minBackoff; ; wait = min(2*wait, maxBackoff) {
		if err := f(); !away(err) || clock.Sleep(ctx, x.Clock, jitter(wait)) != nil {
			return err
		}
	}
}

func (x *Executor) store(ctx context.Context, from Tree, holder task.Ref, out task.Output) (task.Produced, error) {
	f, err := from.Open(out.Path)
	if err != nil {
		return task.Produced{}, err
	}
	defer f.Close()
	r, w := io.Pipe()
	read := make(chan error, 1)
	go func() {
		_, err := f.WriteTo(w)
		_ = w.CloseWithError(err)
		read <- err
	}()
	p, err := x.Exchange.Store(ctx, holder, out, f.Folder, r)
	_ = r.Close()
	if own := <-read; own != nil && !errors.Is(own, io.ErrClosedPipe) {
		err = own // which is why the call failed
	}
	p.Folder = f.Folder
	return p, err
}
