package argo

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/worker"
	"cairn.dev/cairn/internal/worker/isolate"
	"cairn.dev/cairn/internal/worker/keep"
)

func TestMain(m *testing.M) {
	keep.Main()
	os.Exit(m.Run())
}

// host runs tasks with the programs of this machine.
type host struct{ *worker.Local }

func runner(t *testing.T, w *world) worker.Runner {
	bin := filepath.Join("/usr/local", "cairn-test-argo")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(bin) })
	say := `#!/bin/sh
set -eu
[ $# -gt 0 ] || set -- echo 'hello argo'
case $1 in
cat) shift; exec cat "$@" ;;
echo)
	if [ $# -ge 3 ]; then
		mkdir -p "$(dirname "$3")"
		printf '%s\n' "$2" >"$3"
	else
		printf '%s\n' "${2:-hello argo}"
	fi ;;
exit) exit "${2:-0}" ;;
sleep) exec sleep "${2:-0}" ;;
assert_contains) grep -qF -- "$3" "$2" ;;
*) echo "argosay: no command $1" >&2; exit 1 ;;
esac
`
	if err := os.WriteFile(filepath.Join(bin, "argosay"), []byte(say), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := worker.NewLocal(worker.LocalConfig{Place: isolate.Place{Scratch: filepath.Join(t.TempDir(), "scratch")}, Slots: slots,
		Env: []string{"PATH=" + bin + ":" + os.Getenv("PATH")}}, w, clock.Real(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return host{l}
}

func (h host) Run(ctx context.Context, slot int, j worker.Job) task.Outcome {
	if j.Task.HTTP != nil {
		return task.Outcome{Phase: task.Errored, Message: fmt.Sprint("http ", j.Task.HTTP.URL)}
	}
	if len(j.Task.Command) == 0 {
		name, _, _ := strings.Cut(filepath.Base(j.Task.Image), ":")
		switch name {
		case "argosay":
			j.Task.Command = []string{"argosay"}
		case "curl":
			j.Task.Command = []string{"curl"}
		default:
			if len(j.Task.Args) > 0 {
				j.Task.Command, j.Task.Args = j.Task.Args, nil
			} else {
				j.Task.Command = []string{"true"}
			}
		}
	}
	return h.Local.Run(ctx, slot, j)
}
