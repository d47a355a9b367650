package logs

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn.dev/cairn/internal/task"
)

// TestModel prints, repeats, packs, starts anew, ends, forgets and reads in
// random order, and compares what is read with what was acknowledged.
func TestModel(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { model(t, rand.New(rand.NewPCG(seed, 1)), 300) })
	}
}

type printed struct {
	run, task string
	lines     []string
	frames    []task.Frame // all that were sent
	offset    int
}

func model(t *testing.T, rnd *rand.Rand, steps int) {
	r := newRig(t, Config{SegmentBytes: 4 << 10, JournalBytes: 64 << 10})
	var all []*printed
	for run := range 3 {
		for k := range 1 + rnd.IntN(12) {
			all = append(all, &printed{run: fmt.Sprint("run", run), task: fmt.Sprintf("%d.%d", 1+k%2, k)})
		}
	}
	forgotten := map[string]bool{}
	at := time.Duration(0)
	var last [5]*printed // who printed last
	for step := range steps {
		at += time.Duration(rnd.IntN(1000)) * time.Millisecond
		switch p := all[rnd.IntN(len(all))]; rnd.IntN(20) {
		case 0:
			r.reopen()
		case 1:
			r.pass(time.Duration(rnd.IntN(400)) * time.Second)
		case 2:
			if rnd.IntN(10) == 0 {
				r.Forget(p.run)
				r.pass(0)
				forgotten[p.run] = true
			}
		case 3:
			r.end(p.run)
			r.pass(0)
		case 4, 5:
			r.compare(all, forgotten, rnd, step)
		case 6: // again, as if there had been no answer
			if p = last[rnd.IntN(len(last))]; p != nil && !forgotten[p.run] {
				_, err := r.Append(t.Context(), p.frames[max(0, len(p.frames)-1-rnd.IntN(5)):])
				must(t, err)
			}
		default:
			if forgotten[p.run] {
				continue
			}
			var frames []task.Frame
			for range 1 + rnd.IntN(4) {
				var text strings.Builder
				for range 1 + rnd.IntN(5) {
					line := fmt.Sprintf("%s %d %s", p.task, len(p.lines), strings.Repeat("ab", rnd.IntN(1<<rnd.IntN(9))))
					text.WriteString(line + "\n")
					p.lines = append(p.lines, line)
				}
				frames = append(frames, frame(p.run, p.task, at, p.offset, text.String()))
				p.offset += text.Len()
			}
			p.frames = append(p.frames, frames...)
			last[step%len(last)] = p
			_, err := r.Append(t.Context(), frames)
			must(t, err)
		}
	}
	r.compare(all, forgotten, rnd, steps)
	for run := range 3 {
		r.end(fmt.Sprint("run", run))
	}
	r.pass(0)
	r.compare(all, forgotten, rnd, steps+1)
	if len(r.live) != 0 || len(r.files) != 1 {
		t.Errorf("%d runs and %d files are left in the journal", len(r.live), len(r.files))
	}
}

func (r *rig) compare(all []*printed, forgotten map[string]bool, rnd *rand.Rand, step int) {
	r.Helper()
	for run := range 3 {
		name := fmt.Sprint("run", run)
		got := map[string][]string{}
		var whole []string
		must(r, r.Read(r.Context(), Query{Run: name}, func(l Line) error {
			got[l.Task] = append(got[l.Task], string(l.Text))
			whole = append(whole, string(l.Text))
			return nil
		}))
		for _, p := range all {
			want := p.lines
			if p.run != name {
				continue
			}
			if forgotten[name] {
				want = nil
			}
			equal(r, fmt.Sprintf("step %d: %s of %s", step, p.task, name), got[p.task], want)
			one := r.texts(Query{Run: name, Task: p.task})
			equal(r, fmt.Sprintf("step %d: %s of %s alone", step, p.task, name), one, want)
		}
		// By the word and by the pattern the same is found.
		word := fmt.Sprintf(" %d ", rnd.IntN(30))
		byWord, err := Pattern(word)
		must(r, err)
		byPattern, err := Pattern(strings.ReplaceAll(word, " ", `[\s]`))
		must(r, err)
		var want []string
		for _, l := range whole {
			if strings.Contains(l, word) {
				want = append(want, l)
			}
		}
		equal(r, fmt.Sprintf("step %d: grep %q", step, word), r.texts(Query{Run: name, Grep: byWord}), want)
		equal(r, fmt.Sprintf("step %d: grep [%q]", step, word), r.texts(Query{Run: name, Grep: byPattern}), want)
		// The last lines are as many, and of each task the last.
		n := 1 + rnd.IntN(60)
		tail := r.texts(Query{Run: name, Tail: n})
		if len(tail) != min(n, len(whole)) {
			r.Errorf("step %d: the last %d are %d of %d", step, n, len(tail), len(whole))
		}
		for _, p := range all {
			if p.run == name && !forgotten[name] {
				of := slices.DeleteFunc(slices.Clone(tail), func(l string) bool { return !strings.HasPrefix(l, p.task+" ") })
				if len(of) > 0 {
					equal(r, fmt.Sprintf("step %d: the last %d", step, n), of, p.lines[len(p.lines)-len(of):])
				}
			}
		}
	}
}

func (r *rig) texts(q Query) (out []string) {
	r.Helper()
	must(r, r.Read(r.Context(), q, func(l Line) error { out = append(out, string(l.Text)); return nil }))
	return out
}
