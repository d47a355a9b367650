package resource

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/worker"
	"cairn.dev/cairn/internal/workflow/document"
)

// Files is where the bytes of inputs come from; [worker.HTTP] is one.
type Files interface {
	Fetch(ctx context.Context, holder task.Ref, in task.Input) (body io.ReadCloser, folder bool, err error)
}

// errFiles means that the work server did not give an input for so long that
// another worker may try.
var errFiles = errors.New("the work server did not give it")

// manifestOf is the manifest of a request: its own, or the text of the input that it
// names.
func (r *Runner) manifestOf(ctx context.Context, j worker.Job) (json.RawMessage, error) {
	name := j.Task.Resource.From
	if name == "" {
		return j.Task.Resource.Manifest, nil
	}
	for _, in := range j.Task.Inputs {
		if in.Name != name {
			continue
		}
		text, err := r.text(ctx, j.Lease.Ref, in)
		var b json.RawMessage
		if err == nil {
			b, err = parseManifest(text)
		}
		if err != nil {
			return nil, fmt.Errorf("read the manifest, artifact %s: %w", name, err)
		}
		return b, nil
	}
	return nil, fmt.Errorf("read the manifest: the task has no artifact %s", name)
}

// text reads an input. A server that is away is asked again.
func (r *Runner) text(ctx context.Context, holder task.Ref, in task.Input) ([]byte, error) {
	if in.Digest == "" && in.Source == nil {
		return in.Content, nil
	}
	if r.files == nil {
		return nil, errors.New("this worker gets no files")
	}
	begun := r.api.clock.Mono()
	for wait := minWait; ; wait = min(2*wait, maxWait) {
		b, err := r.whole(ctx, holder, in)
		if !errors.Is(err, worker.ErrAway) {
			return b, err
		}
		if d := jitter(wait); r.api.clock.Mono()-begun+d > patience {
			return nil, fmt.Errorf("%w: %w", errFiles, err)
		} else if clock.Sleep(ctx, r.api.clock, d) != nil {
			return nil, context.Cause(ctx)
		}
	}
}

func (r *Runner) whole(ctx context.Context, holder task.Ref, in task.Input) ([]byte, error) {
	body, folder, err := r.files.Fetch(ctx, holder, in)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	if folder {
		return nil, errors.New("it is a folder: name the file in it by subPath")
	}
	b, err := io.ReadAll(io.LimitReader(body, task.MaxManifest+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", worker.ErrAway, err)
	}
	return b, nil
}

// parseManifest is a manifest as JSON. It is one document.
func parseManifest(text []byte) (json.RawMessage, error) {
	if len(text) > task.MaxManifest {
		return nil, fmt.Errorf("it has more than %d bytes", task.MaxManifest)
	}
	var log document.Log
	docs := document.Read("", text, &log)
	if all := log.Problems(); len(all) > 0 {
		return nil, fmt.Errorf("line %d: %s", all[0].Line, all[0].Text)
	}
	if len(docs) != 1 {
		return nil, fmt.Errorf("it is %d documents and has to be one: write a task for each", len(docs))
	}
	return json.Marshal(docs[0].Value())
}
