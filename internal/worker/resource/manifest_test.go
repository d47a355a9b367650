package resource

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/worker"
)

// shelf has the files of tasks, by their digests. The first ask of each is lost.
type shelf struct {
	files map[string]string
	asked int
}

func (s *shelf) Fetch(_ context.Context, _ task.Ref, in task.Input) (io.ReadCloser, bool, error) {
	if s.asked++; s.asked == 1 || in.Digest == "away" {
		return nil, false, fmt.Errorf("%w: no route", worker.ErrAway)
	}
	text, ok := s.files[in.Digest]
	if !ok {
		return nil, false, &worker.Refusal{Status: http.StatusNotFound, Text: "there is no such blob"}
	}
	return io.NopCloser(strings.NewReader(text)), in.Folder, nil
}

// A manifest may be what an earlier task left.
func TestManifestFromInput(t *testing.T) {
	const made = "# by hand\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: made}\ndata: {n: \"1\"}\n"
	for name, s := range map[string]struct {
		in    task.Input
		phase task.Phase
		says  string
	}{
		"text":           {task.Input{Content: []byte(made)}, task.Succeeded, ""},
		"a file":         {task.Input{Digest: "good"}, task.Succeeded, ""},
		"no YAML":        {task.Input{Digest: "bad"}, task.Failed, "artifact m: line 1: this is not YAML"},
		"two documents":  {task.Input{Digest: "two"}, task.Failed, "it is 2 documents"},
		"empty":          {task.Input{Digest: "empty"}, task.Failed, "it is 0 documents"},
		"too long":       {task.Input{Digest: "long"}, task.Failed, "more than 1048576 bytes"},
		"a folder":       {task.Input{Digest: "good", Folder: true}, task.Failed, "subPath"},
		"gone":           {task.Input{Digest: "gone"}, task.Failed, "no such blob"},
		"nobody answers": {task.Input{Digest: "away"}, task.Errored, "the work server did not give it"},
	} {
		t.Run(name, func(t *testing.T) {
			c := serve(t)
			files := &shelf{files: map[string]string{"good": made, "bad": "a: [", "two": made + "---\n" + made, "empty": "# nothing", "long": strings.Repeat("#", task.MaxManifest+1)}}
			j := jobOf(task.Resource{Action: "create", From: "m"})
			s.in.Name = "m"
			j.Task.Inputs = []task.Input{{Name: "other"}, s.in}
			o := New(c.account(), files, quickly()).Run(t.Context(), 0, j.Job)
			if o.Phase != s.phase || !strings.Contains(o.Message, s.says) || o.Infrastructure != (s.phase == task.Errored) {
				t.Fatalf("%+v", o)
			}
			if s.phase == task.Succeeded && at(c.objects[maps1+"made"], "data", "n") != "1" {
				t.Errorf("there are %v", c.objects)
			}
		})
	}
}
