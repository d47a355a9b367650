package work_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/test/program"
)

// A farm is workers on this machine that are killed and come back. What their
// tasks do to the outside is lines in one file.
type farm struct {
	t       *testing.T
	s       *server
	dir     string // that tasks share: all else of a task is gone after it
	workers []*worker
}

// worker is one of them through its lives.
type worker struct {
	name string
	tap  *wireTap
	life *program.Process
}

func newFarm(t *testing.T, s *server, workers int) *farm {
	t.Helper()
	f := &farm{t: t, s: s, dir: t.TempDir()}
	if err := os.WriteFile(f.ledger(), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for range workers {
		f.add()
	}
	return f
}

// add is one more worker.
func (f *farm) add() {
	w := &worker{name: "w" + strconv.Itoa(len(f.workers)), tap: f.s.tap()}
	w.tap.to(f.s.door.back)
	f.workers = append(f.workers, w)
	f.start(w)
}

// until waits for something to stand in the ledger.
func (f *farm) until(what string, is func([]entry) bool) {
	f.t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(f.entries()); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			f.t.Fatalf("not within 20 s: %s; the workers said:\n%s", what, f.workers[0].life.Output())
		}
	}
}

func (f *farm) ledger() string { return filepath.Join(f.dir, "ledger") }

// mark is shell that writes a line into the ledger: who it is, and a word.
func (f *farm) mark(word string) string {
	return fmt.Sprintf(`echo "$CAIRN_RUN $CAIRN_TASK $CAIRN_ATTEMPT $CAIRN_IDEMPOTENCY_KEY %s" >> %s`, word, f.ledger())
}

func (f *farm) start(w *worker) {
	scratch := filepath.Join(f.dir, "..", "scratch-"+w.name)
	// The variable is how processes that were left behind are found.
	w.life = begin(f.t, []string{f.variable()}, nil, "worker", "--server", w.tap.url(), "--name", w.name, "--pool", "far", "--slots", "2",
		"--scratch", scratch, "--keep", f.dir, "--verbose")
}

func (f *farm) variable() string { return "WORK_TEST=" + f.dir }

// left are processes of tasks that are there although no worker is.
func (f *farm) left() (out []string) {
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, e := range environs {
		b, err := os.ReadFile(e)
		if err == nil && bytes.Contains(b, []byte(f.variable())) {
			cmd, _ := os.ReadFile(filepath.Join(filepath.Dir(e), "cmdline"))
			out = append(out, filepath.Dir(e)+" "+strings.ReplaceAll(string(cmd), "\x00", " "))
		}
	}
	return out
}

// stop kills all workers and looks at what is left.
func (f *farm) stop() {
	f.t.Helper()
	for _, w := range f.workers {
		w.life.Kill()
	}
	var left []string
	for range 200 {
		if left = f.left(); len(left) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	f.t.Errorf("processes of tasks outlived their workers:\n%s", strings.Join(left, "\n"))
}

// entry is a line of the ledger.
type entry struct {
	run, task string
	attempt   int
	key, word string
	line      int
}

func (f *farm) entries() (out []entry) {
	f.t.Helper()
	b, err := os.ReadFile(f.ledger())
	if err != nil {
		f.t.Fatal(err)
	}
	for i, line := range slices.Collect(strings.Lines(string(b))) {
		w := strings.Fields(line)
		if len(w) != 5 {
			f.t.Errorf("line %d of the ledger is %q", i+1, line)
			continue
		}
		n, err := strconv.Atoi(w[2])
		if err != nil || n < 1 {
			f.t.Errorf("line %d of the ledger: attempt %q", i+1, w[2])
		}
		out = append(out, entry{run: w[0], task: w[1], attempt: n, key: w[3], word: w[4], line: i + 1})
	}
	return out
}

// check holds what tasks did against what is promised of attempts and locks.
func (f *farm) check() {
	f.t.Helper()
	type attempt struct {
		run, task string
		n         int
	}
	begun := map[attempt]bool{}
	keys := map[string]string{} // task -> key
	owner := map[string]string{}
	var inside *entry // who has the mutex, as far as is known
	for _, e := range f.entries() {
		a, name := attempt{e.run, e.task, e.attempt}, e.run+" "+e.task
		switch e.word {
		case "begin":
			if begun[a] {
				f.t.Errorf("line %d: attempt %d of %s began twice", e.line, e.attempt, name)
			}
			begun[a] = true
			if k, ok := keys[name]; ok && k != e.key {
				f.t.Errorf("line %d: %s has the keys %s and %s", e.line, name, k, e.key)
			}
			if o, ok := owner[e.key]; ok && o != name {
				f.t.Errorf("line %d: %s and %s have the same key", e.line, name, o)
			}
			keys[name], owner[e.key] = e.key, name
		case "enter":
			// One whose worker was killed inside never says that it leaves.
			inside = &e
		case "leave":
			if inside == nil || inside.run != e.run || inside.task != e.task || inside.attempt != e.attempt {
				f.t.Errorf("line %d: attempt %d of %s was not alone in the mutex: %+v came after it", e.line, e.attempt, name, inside)
			}
			inside = nil
		}
	}
}

// did are the tasks of a run that began, and how often.
func (f *farm) did(run string) map[string]int {
	out := map[string]int{}
	for _, e := range f.entries() {
		if e.run == run && e.word == "begin" {
			out[e.task]++
		}
	}
	return out
}
