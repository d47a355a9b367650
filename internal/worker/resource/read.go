package resource

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/itchyny/gojq"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/task/jsonpath"
)

// filterFor is how long a filter may take. What it may hold is bounded by the
// memory of the container: it is for this that no server evaluates filters.
const filterFor = 5 * time.Second

// read reads the outputs of a task from the object that it ended with; nil is
// that there is none.
func read(ctx context.Context, o object, wanted map[string]task.Reading) (map[string]task.Produced, error) {
	out := map[string]task.Produced{}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		w := wanted[name]
		text, found, err := "", false, error(nil)
		if o != nil {
			text, found, err = readOne(ctx, o, w)
		}
		switch {
		case !found && w.Default != nil:
			text = *w.Default
		case err != nil:
			return nil, fmt.Errorf("output %s: %w", name, err)
		}
		out[name] = task.Produced{Text: &text}
	}
	return out, nil
}

// readOne reads one; found is false where there is nothing to be read.
func readOne(ctx context.Context, o object, w task.Reading) (text string, found bool, err error) {
	if w.Filter == "" {
		p, err := jsonpath.Parse(w.Path)
		if err != nil {
			return "", false, err
		}
		return p.Text(o)
	}
	text, err = filter(ctx, o, w.Filter)
	return text, err == nil, err
}

var errLong = fmt.Errorf("jq: it gives more than %d bytes", maxObject)

// filter is what jq -rc gives.
func filter(ctx context.Context, o object, text string) (string, error) {
	q, err := gojq.Parse(text)
	if err != nil {
		return "", fmt.Errorf("jq: %w", err)
	}
	code, err := gojq.Compile(q)
	if err != nil {
		return "", fmt.Errorf("jq: %w", err)
	}
	ctx, end := context.WithTimeout(ctx, filterFor)
	defer end()
	var b strings.Builder
	for results := code.RunWithContext(ctx, o); ; {
		v, ok := results.Next()
		if !ok {
			return strings.TrimSuffix(b.String(), "\n"), nil
		}
		switch v := v.(type) {
		case error:
			if halt, is := errors.AsType[*gojq.HaltError](v); is && halt.Value() == nil {
				return strings.TrimSuffix(b.String(), "\n"), nil
			}
			if errors.Is(v, context.DeadlineExceeded) {
				v = fmt.Errorf("it takes longer than %v", filterFor)
			}
			return "", fmt.Errorf("jq: %w", v)
		case string:
			b.WriteString(v)
		default:
			j, err := gojq.Marshal(v)
			if err != nil {
				return "", fmt.Errorf("jq: %w", err)
			}
			b.Write(j)
		}
		if b.WriteByte('\n'); b.Len() > maxObject {
			return "", errLong
		}
	}
}

// whole is the object as an output.
func whole(o object) (task.Produced, error) {
	text := ""
	if o != nil {
		b, err := json.Marshal(o)
		if err == nil && len(b) > maxObject {
			err = fmt.Errorf("it has %d bytes, at most %d can be handed on", len(b), maxObject)
		}
		if err != nil {
			return task.Produced{}, fmt.Errorf("the object as an output: %w", err)
		}
		text = string(b)
	}
	return task.Produced{Text: &text}, nil
}

// maxObject bounds an object that becomes an output, in bytes.
const maxObject = 2 << 20
