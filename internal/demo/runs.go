package demo

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/pool"
)

// workflow has a container for each file of a folder, and one that gets what
// they printed.
const workflow = `apiVersion: cairn.dev/v1alpha1
kind: Workflow
metadata: {name: photos}
spec:
  tasks:
  - name: shrink
    forEach: {files: %q}
    image: shop/say:1
    command: [/say, "${{ item }}"]
    outputs: {said: text}
  - name: tell
    image: shop/say:1
    command: [/say, "${{ tasks.shrink.outputs.said }}"]
`

// runs tells how containers are run: a list, one task for each of its items, and
// one that gets what all of them left.
func (s *story) runs(ctx context.Context, dir string) error {
	s.say("\n7. A folder of photos: one container for each, and one that gets what they printed.")
	say := program(runtime.GOARCH)
	c := config.Default()
	c.Data, c.Listen, c.Open, c.Work.Pool = filepath.Join(dir, "runs"), "127.0.0.1:0", true, "on"
	if err := pool.Probe(pool.Config{Dir: filepath.Join(dir, "probe")}); err != nil || say == nil {
		s.say("  (no containers can be had on this machine: %v)", err)
		return nil
	}
	photos := filepath.Join(dir, "photos")
	if err := os.MkdirAll(photos, 0o700); err != nil {
		return fmt.Errorf("make the demo's folder: %w", err)
	}
	for _, name := range []string{"cat.jpg", "dog.jpg", "horse.jpg"} {
		if err := os.WriteFile(filepath.Join(photos, name), []byte(name), 0o600); err != nil {
			return fmt.Errorf("make the demo's folder: %w", err)
		}
	}
	document := filepath.Join(dir, "photos.yaml")
	if err := os.WriteFile(document, fmt.Appendf(nil, workflow, photos), 0o600); err != nil {
		return fmt.Errorf("write the demo's workflow: %w", err)
	}
	c.Work.Folders = []string{photos}
	at, stop, err := s.another(ctx, c)
	if err != nil {
		return err
	}
	defer stop()
	if _, err := at.pushFile(ctx, "shop/say", "1", runtime.GOARCH, file{"say", 0o755, say}); err != nil {
		return err
	}
	for line := range strings.Lines(strings.SplitAfter(workflow, "tasks:\n")[1]) {
		s.say("  | %s", strings.ReplaceAll(strings.TrimRight(strings.TrimPrefix(line, "  "), "\n"), "%q", "photos/"))
	}
	s.say("  $ cairn run -f photos.yaml --wait")
	var out strings.Builder
	if err := at.cairn(ctx, &out, at.url, "run", "-f", document, "--wait"); err != nil {
		return fmt.Errorf("cairn run: %w", err)
	}
	found, err := at.client.Runs(ctx, client.RunQuery{Name: "photos"})
	if err != nil {
		return err
	}
	if len(found.Runs) != 1 || found.Runs[0].Tasks.Succeeded != 4 {
		return fmt.Errorf("the run is not there as it should be: %+v", found.Runs)
	}
	return at.command(ctx, "logs", found.Runs[0].ID, "3")
}
