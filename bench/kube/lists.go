package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// lists are how long lists of the pods of another namespace took, for somebody
// to whom the API server is as fair as to all. Fresh ones have to hold all that
// was written before they were asked for; those from the API server's cache need
// not, and are what controllers and nodes ask for.
type lists struct{ fresh, cached []time.Duration }

// looked is one of them, as the process that asks for it tells it.
type looked struct {
	Fresh bool
	Took  time.Duration
}

// lookEach is how often somebody looks, in turn at fresh lists and at cached
// ones. Fresh ones may not come within 100 ms of each other: an API server asks
// etcd at most that often whether it is up to date, so that they would wait for
// one another as soon as anything at all is written, by whomever.
const lookEach = 125 * time.Millisecond

// looker is what the process that looks is told, as JSON.
type looker struct{ Base, CA, Token string }

// look is the process of somebody who looks at pods, and has nothing to do with
// the rest of this program, whose priority is lower. It ends with its standard
// input, and has then said how long it waited for each list.
func look(text string) error {
	var l looker
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		return fmt.Errorf("read what the looker is told: %w", err)
	}
	a, err := newAPI(l.Base, l.CA, l.Token)
	if err != nil {
		return err
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	path := "/api/v1/namespaces/" + others + "/pods"
	if _, err := a.do(context.Background(), http.MethodGet, path, nil); err != nil { // the connection is there
		return err
	}
	var all []looked
	next := time.NewTicker(lookEach)
	defer next.Stop()
	for i := 0; ; i++ {
		select {
		case <-over:
			return json.NewEncoder(os.Stdout).Encode(all)
		case <-next.C:
		}
		at := path
		if i%2 == 1 {
			at += "?resourceVersion=0"
		}
		begin := time.Now()
		if _, err := a.do(context.Background(), http.MethodGet, at, nil); err != nil {
			return err
		}
		all = append(all, looked{i%2 == 0, time.Since(begin)})
	}
}

// lists has somebody look at pods while do does something.
func (w *world) lists(ctx context.Context, do func() error) (l lists, err error) {
	self, err := os.Executable()
	if err != nil {
		return l, err
	}
	text, err := json.Marshal(looker{w.Server, w.CA, w.other.token})
	if err != nil {
		return l, err
	}
	cmd := exec.CommandContext(ctx, self, "-look", string(text))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // what is done to our priority is not done to its
	in, err := cmd.StdinPipe()
	if err != nil {
		return l, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return l, err
	}
	if err := cmd.Start(); err != nil {
		return l, err
	}
	failed := errors.Join(first(cmd.Process.Pid), do())
	in.Close()
	var all []looked
	failed = errors.Join(failed, json.NewDecoder(bufio.NewReader(out)).Decode(&all), cmd.Wait())
	for _, x := range all {
		to := &l.cached
		if x.Fresh {
			to = &l.fresh
		}
		*to = append(*to, x.Took)
	}
	return l, failed
}

// resting is how long is looked at a cluster in which nothing happens.
const resting = 40 * time.Second

// unburdened are the lists of a cluster that rests, and of one in which as many
// workflows are handed in and nobody does anything with them.
func (w *world) unburdened(ctx context.Context, n int) (idle, handed lists, err error) {
	if idle, err = w.lists(ctx, func() error { return pause(ctx, resting) }); err != nil {
		return idle, handed, err
	}
	handed, err = w.lists(ctx, func() error {
		if err := w.hand(ctx, n); err != nil {
			return err
		}
		return pause(ctx, time.Second)
	})
	return idle, handed, errors.Join(err, w.forget(ctx))
}

// lists says what runs have made of lists.
func (r *report) lists(where string, idle, handed, during lists) {
	const p = 0.99
	for _, x := range []struct {
		how                  string
		idle, handed, during []time.Duration
	}{{"from the cache", idle.cached, handed.cached, during.cached}, {"consistent", idle.fresh, handed.fresh, during.fresh}} {
		a, b := quantile(x.idle, p), quantile(x.during, p)
		fmt.Fprintf(os.Stderr, "lists, %s: idle %s; handed in %s; during %s\n", x.how, spread(x.idle), spread(x.handed), spread(x.during))
		r.add(row{fmt.Sprintf("meanwhile (%s) a LIST of the 100 pods of another namespace, %s: p99", where, x.how), rounded(b), "≤ 3 × idle, ≤ 500 ms", b <= 3*a && b <= 500*time.Millisecond,
			fmt.Sprintf("%d lists by an account that may see nothing else, p50 %s, p90 %s; idle p99 %s, p50 %s; while the same objects are handed in and Cairn is away: p99 %s, p90 %s", len(x.during), rounded(quantile(x.during, 0.5)), rounded(quantile(x.during, 0.9)),
				rounded(a), rounded(quantile(x.idle, 0.5)), rounded(quantile(x.handed, p)), rounded(quantile(x.handed, 0.9)))})
	}
}
