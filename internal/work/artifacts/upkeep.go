package artifacts

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
)

const (
	// tidyEvery is how often uploads are looked at whose time is up, and
	// searchEvery how often what a crash left, which costs a look at every run
	// that has files.
	tidyEvery   = 10 * time.Minute
	searchEvery = 24 * time.Hour
	// settleTime is how long a hold may be there before its run is: files are
	// handed over before a run begins.
	settleTime = time.Hour
	ownersPage = 500
)

// gone are runs that are to be released.
type gone struct {
	mu   sync.Mutex
	runs []string
	wake chan struct{}
}

func (g *gone) add(runs ...string) {
	g.mu.Lock()
	g.runs = append(g.runs, runs...)
	g.mu.Unlock()
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

func (g *gone) take() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	runs := g.runs
	g.runs = nil
	return runs
}

// Forget releases what the run held, soon. It does not wait and is lost with
// the process; [Store.Run] finds after a start what was left.
func (s *Store) Forget(run string) { s.gone.add(run) }

// Run releases what forgotten runs held and what waits for nobody, until ctx
// ends, whose error it returns.
func (s *Store) Run(ctx context.Context) error {
	tidy, search := s.d.Clock.After(0), s.d.Clock.After(0)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.gone.wake:
			s.forget(ctx)
		case <-tidy:
			s.forget(ctx) // those that could not be released
			if err := s.TidyUploads(ctx); err != nil && ctx.Err() == nil {
				s.d.Log.Warn("old uploads were not released; it will be tried again", "error", err)
			}
			tidy = s.d.Clock.After(tidyEvery)
		case <-search:
			if err := s.TidyRuns(ctx); err != nil && ctx.Err() == nil {
				s.d.Log.Warn("looking for files without a run failed; it will be tried again", "error", err)
			}
			search = s.d.Clock.After(searchEvery)
		}
	}
}

func (s *Store) forget(ctx context.Context) {
	var again []string
	for _, run := range s.gone.take() {
		if err := s.d.Content.Release(ctx, ownerRun+run); err != nil {
			s.d.Log.Warn("the files of a run were not released; it will be tried again", "run", run, "error", err)
			again = append(again, run)
		}
	}
	s.gone.mu.Lock()
	defer s.gone.mu.Unlock()
	s.gone.runs = append(s.gone.runs, again...) // without waking: not at once
}

// TidyUploads releases uploads whose time is up.
func (s *Store) TidyUploads(ctx context.Context) error {
	return s.tidy(ctx, ownerUpload, s.cfg.UploadTerm, func(string) (bool, error) { return false, nil })
}

// TidyRuns releases what runs hold that are gone, and their logs.
func (s *Store) TidyRuns(ctx context.Context) error {
	if s.d.Exists == nil {
		return nil
	}
	needed := func(run string) (bool, error) {
		there, err := s.d.Exists(ctx, run)
		if err != nil {
			err = fmt.Errorf("ask for run %s: %w", run, err)
		}
		return there, err
	}
	if err := s.tidy(ctx, ownerRun, settleTime, needed); err != nil {
		return err
	}
	return s.tidy(ctx, ownerLogs, settleTime, needed)
}

// tidy releases the owners of a kind that are older than an age and not needed.
func (s *Store) tidy(ctx context.Context, kind string, age time.Duration, needed func(name string) (bool, error)) error {
	now := s.d.Clock.Now()
	for after := ""; ; {
		owners, err := s.d.Content.Owners(ctx, kind, after, ownersPage)
		if err != nil {
			return err
		}
		for _, o := range owners {
			after = o.Name
			if now.Sub(o.Since) < age {
				continue
			}
			keep, err := needed(strings.TrimPrefix(o.Name, kind))
			if err == nil && !keep {
				err = s.d.Content.Release(ctx, o.Name)
			}
			if err != nil {
				return err
			}
		}
		if len(owners) < ownersPage {
			return nil
		}
	}
}
