package work_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/client"
)

// The line between a worker and the server is cut while a task runs, and whole
// again some time after it has ended.
func TestCut(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name       string
		lease, cut time.Duration
		others     bool // there is another worker, who gets the task
	}{
		{"for less than a lease", 4 * time.Second, 1500 * time.Millisecond, false},
		{"for longer than a lease", time.Second, 3 * time.Second, true},
	}
	if soak() {
		cases[0].lease, cases[0].cut = 2*time.Minute, time.Minute
		cases[1].lease, cases[1].cut = 30*time.Second, time.Minute
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			begun := time.Now()
			s := newServer(t, filepath.Join(t.TempDir(), "data"), fmt.Sprintf("work: {pool: \"off\", lease: %v}\n", c.lease))
			f := newFarm(t, s, 1)
			doc := shape{tasks: task("slow", "{begin}\nseq 1 500\nsleep 0.7\nseq 501 1000\necho $CAIRN_ATTEMPT > /n\nhead -c 100000 /dev/zero > /file",
				"outputs: {n: {type: json, path: /n}, file: {type: file, path: /file}}"),
				more: "  outputs: {n: {type: json, value: \"${{ tasks.slow.outputs.n }}\"}}\n"}.document(f)
			id := s.hand(wire.Submission{Document: wire.Document{Text: doc}, Run: wire.SubmitOptions{Pool: "far"}})
			f.until("a task has begun", func(all []entry) bool { return len(all) == 1 })
			f.workers[0].tap.hang(true)
			if c.others {
				f.add()
			}
			time.Sleep(c.cut)
			f.workers[0].tap.hang(false)
			f.workers[0].tap.drop()
			r := s.wait(id, 20*time.Second)
			n, _ := s.left(id)["n"].(float64)
			if r.Phase != "succeeded" || r.Tasks.Succeeded != 1 || r.Tasks.Crashes != int(n)-1 || c.others != (n > 1) {
				t.Errorf("the result is that of attempt %v; %+v\n%s", n, r, s.tree(id))
			}
			f.check()
			want := 1
			if c.others { // one more was perhaps granted to the one who could not hear it
				want = 2
			}
			if did := f.did(id); len(did) != 1 || did["2"] != want {
				t.Errorf("began: %v", did)
			}
			t.Logf("ended after %v", time.Since(begun).Round(time.Millisecond))
			lines := 0
			for _, l := range s.lines(id, client.LogQuery{Attempt: int(n)}) {
				if lines++; l.Text != fmt.Sprint(lines) {
					t.Fatalf("line %d is %q", lines, l.Text)
				}
			}
			if lines != 1000 {
				t.Errorf("%d lines are there", lines)
			}
			// The one that was cut off works again.
			if c.others {
				f.workers[1].life.Kill()
			}
			id = s.hand(wire.Submission{Document: wire.Document{Text: shape{tasks: task("next", "{begin}")}.document(f)}, Run: wire.SubmitOptions{Pool: "far"}})
			if r := s.wait(id, 20*time.Second); r.Phase != "succeeded" {
				t.Errorf("the next run: %+v", r)
			}
			t.Logf("the next one ended after %v", time.Since(begun).Round(time.Millisecond))
			f.stop()
		})
	}
}
