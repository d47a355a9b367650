// Package crash_test kills the program while clients push and delete, and
// looks at what is left.
//
// It owns the promises that hold across the end of the process at any moment:
// what was acknowledged is there with every byte, what was deleted stays
// deleted, a change is whole or absent, an upload goes on where it stopped,
// and no space is lost for ever. It uses the real program over HTTP only, and
// its data folder for counting files.
package crash_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"cairn.dev/cairn/test/parts"
)

// configuration has everything that waits wait as short as is allowed. With
// an empty list of policies nothing expires by itself; what a client deletes
// is gone for good soon, so that its space can be looked for.
const configuration = `
collect: {grace: %s}
retention: {interval: 1s, keep: 1s, policies: []}
`

// TestKill runs 20 rounds, 200 with CAIRN_SOAK in the environment. CAIRN_SEED
// repeats the choices of a run; the moments of the kills are not among them.
func TestKill(t *testing.T) {
	rounds := 20
	if os.Getenv("CAIRN_SOAK") != "" {
		rounds = 200
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("CAIRN_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed %d: CAIRN_SEED=%[1]d repeats it", seed)

	const grace = 4 * time.Second
	bin, dir := parts.Cairn(t), t.TempDir()
	data, config := filepath.Join(dir, "data"), filepath.Join(dir, "cairn.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, configuration, grace), 0o600); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(seed, 99))
	w := newWorld(seed, 6, grace)
	var total int
	for round := range rounds {
		if rng.IntN(4) == 0 { // one that does not live long enough to be ready
			p := begin(t, bin, config, data)
			time.Sleep(time.Duration(rng.IntN(100)) * time.Millisecond)
			p.kill()
		}
		p := start(t, bin, config, data)
		w.check(t, p, round-1)
		total += w.load(t, p, round, 150*time.Millisecond+time.Duration(rng.IntN(500))*time.Millisecond)
		if t.Failed() {
			t.Fatalf("round %d, seed %d; the server said:\n%s", round, seed, p.life.Output())
		}
	}
	t.Logf("%d rounds, %d acknowledged steps", rounds, total)

	// Everything, and a good end.
	p := start(t, bin, config, data)
	w.check(t, p, 0)
	p.stop(t)
	if out, err := exec.Command(bin, "scrub", "--data", data).CombinedOutput(); err != nil {
		t.Errorf("scrub: %v\n%s", err, out)
	}
	// What nothing refers to goes. The start after the grace period looks at
	// the files, one more grace period later it may collect.
	time.Sleep(grace)
	p = start(t, bin, config, data)
	defer p.stop(t)
	expect := map[string]bool{}
	for _, r := range w.repos {
		for _, m := range r.manifests {
			for _, g := range m.blobs {
				expect[string(g)] = true
			}
		}
	}
	var extra, uploads []string
	for end := time.Now().Add(10*grace + 20*time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		var blobs map[string]int64
		blobs, uploads = blobFiles(t, data)
		extra = slices.DeleteFunc(slices.Sorted(maps.Keys(blobs)), func(g string) bool { return expect[g] })
		if len(extra) == 0 && len(uploads) == 0 {
			break
		}
	}
	if len(extra) > 0 || len(uploads) > 0 {
		t.Errorf("space is lost: of %d blobs %d are not needed: %v; uploads: %v", len(expect)+len(extra), len(extra), extra[:min(len(extra), 5)], uploads)
	}
	w.check(t, p, 0)
	if t.Failed() {
		t.Fatalf("after the last round, seed %d; the server said:\n%s", seed, p.life.Output())
	}
}

// check compares everything that changed since the given round.
func (w *world) check(t *testing.T, p *process, since int) {
	t.Helper()
	fatal := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatalf("after a kill: %v\nthe server said:\n%s", err, p.life.Output())
		}
	}
	for _, r := range w.repos {
		fatal(w.resume(p, r))
	}
	fatal(w.wantTold(p))
	var wg sync.WaitGroup
	errs := make([]error, len(w.repos))
	for i, r := range w.repos {
		wg.Go(func() {
			if errs[i] = r.settle(p); errs[i] == nil {
				errs[i] = r.verify(p, since)
			}
		})
	}
	wg.Wait()
	fatal(errors.Join(errs...))
}

// load lets all workers work for a while and kills the process under them. It
// returns the number of steps that were acknowledged.
func (w *world) load(t *testing.T, p *process, round int, d time.Duration) int {
	t.Helper()
	steps := make([]int, len(w.repos))
	var wg sync.WaitGroup
	for i, r := range w.repos {
		r.round = round
		wg.Go(func() {
			for {
				if err := w.step(p, r); err != nil {
					if !errors.Is(err, errKilled) {
						t.Errorf("%s: %v", r.name, err)
					}
					return
				}
				steps[i]++
			}
		})
	}
	time.Sleep(d)
	p.kill()
	wg.Wait()
	n := 0
	for _, s := range steps {
		n += s
	}
	return n
}
