package pool

import (
	"testing"

	"cairn.dev/cairn/internal/task"
)

func TestRuns(t *testing.T) {
	w := newWorld(t, nil)
	w.busybox()
	if e := w.sh("echo hello; id -u; hostname; pwd"); e.Phase != task.Succeeded || e.result() != "hello\n0\ntask\n/" {
		t.Errorf("%+v\n%s\n%s", e, e.result(), w.log)
	}
}
