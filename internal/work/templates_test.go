package work_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"cairn.dev/cairn/internal/work"
)

// Templates are found by kind, namespace and name, also after a restart.
func TestTemplates(t *testing.T) {
	r := newRig(t, work.Config{})
	ctx := t.Context()
	put := func(kind, namespace, name, text string) work.Template {
		return work.Template{Kind: kind, Namespace: namespace, Name: name, By: "me", Document: []byte(text)}
	}
	if err := r.s.PutTemplates(ctx, []work.Template{put("WorkflowTemplate", "a", "x", "one"), put("WorkflowTemplate", "b", "x", "two"), put("ClusterWorkflowTemplate", "", "x", "three")}); err != nil {
		t.Fatal(err)
	}
	r.clock.Advance(time.Minute)
	if err := r.s.PutTemplates(ctx, []work.Template{put("WorkflowTemplate", "a", "x", "four")}); err != nil {
		t.Fatal(err)
	}
	if err := r.s.DeleteTemplate(ctx, "WorkflowTemplate", "b", "x"); err != nil {
		t.Fatal(err)
	}
	r.stop()
	r.start()
	for _, c := range []struct{ kind, namespace, want string }{{"WorkflowTemplate", "a", "four"}, {"WorkflowTemplate", "b", ""}, {"ClusterWorkflowTemplate", "", "three"}, {"WorkflowTemplate", "", ""}} {
		got, err := r.s.Template(ctx, c.kind, c.namespace, "x")
		if string(got.Document) != c.want || (err == nil) != (c.want != "") || err != nil && !errors.Is(err, work.ErrNotFound) {
			t.Errorf("%s in %q is %q, %v; want %q", c.kind, c.namespace, got.Document, err, c.want)
		}
	}
	list, err := r.s.Templates(ctx)
	if err != nil || len(list) != 2 || list[0].Kind != "ClusterWorkflowTemplate" || !list[1].Changed.Equal(r.clock.Now()) {
		t.Errorf("there are %+v, %v", list, err)
	}
	if err := r.s.DeleteTemplate(ctx, "WorkflowTemplate", "b", "x"); !errors.Is(err, work.ErrNotFound) {
		t.Errorf("deleted twice: %v", err)
	}
	var many []work.Template
	for i := range 10_000 {
		many = append(many, put("WorkflowTemplate", "c", fmt.Sprint(i), ""))
	}
	if err := r.s.PutTemplates(ctx, many); !errors.Is(err, work.ErrInvalid) {
		t.Errorf("too many: %v", err)
	}
	if list, err := r.s.Templates(ctx); err != nil || len(list) != 2 {
		t.Errorf("too many left %d, %v", len(list), err)
	}
}
