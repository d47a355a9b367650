package bump

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"cairn.dev/cairn/internal/catalog"
	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/image"
)

// ErrUnknown: no repository, or no forge, of that name is watched.
var ErrUnknown = errors.New("it is not watched")

// Pushed asks for passes over the repositories whose code names what was
// pushed; over all when lost says that not everything pushed is told. It does
// not wait.
func (e *Engine) Pushed(pushes []catalog.Pushed, lost bool) {
	e.mu.Lock()
	e.counters.Pushes += int64(len(pushes))
	e.mu.Unlock()
	now := e.deps.Clock.Mono()
	if lost {
		for _, r := range e.all() {
			e.queue.soon(r, now, e.cfg.Quiet, nil)
		}
		return
	}
	seen := map[string]bool{}
	for _, p := range pushes {
		name, _ := e.name(p.Repository)
		for _, key := range e.index.readers(name) {
			if seen[key] {
				continue
			}
			seen[key] = true
			if r := e.repository(key); r != nil {
				e.queue.soon(r, now, e.cfg.Quiet, nil)
			}
		}
	}
}

// repository finds one by its key.
func (e *Engine) repository(key string) *repository {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.repos[key]
}

// find takes a key, forge/owner/name, or owner/name where only one forge has it.
func (e *Engine) find(name string) (*repository, error) {
	if r := e.repository(name); r != nil {
		return r, nil
	}
	var found *repository
	for _, r := range e.all() {
		if r.name == name {
			if found != nil {
				return nil, fmt.Errorf("%.200q is on %s and on %s: write %s or %s", name, found.source.Name, r.source.Name, found.key(), r.key())
			}
			found = r
		}
	}
	if found == nil {
		return nil, fmt.Errorf("%.200q: %w; `cairn bump status` lists what is", name, ErrUnknown)
	}
	return found, nil
}

// findNew looks for a repository that was made after the forges were listed.
func (e *Engine) findNew(ctx context.Context, name string, unknown error) (*repository, error) {
	for _, key := range slices.Sorted(maps.Keys(e.sources)) {
		s := e.sources[key]
		short, _ := strings.CutPrefix(name, s.Name+"/")
		if r, err := e.meet(ctx, s, short); r != nil || err != nil {
			return r, err
		}
	}
	return nil, unknown
}

// meet begins to watch a repository that somebody named, if the configuration
// means it and the forge has it for us; nil if not.
func (e *Engine) meet(ctx context.Context, s *source, name string) (*repository, error) {
	if forge.CheckRepository(name) != nil || !image.MatchAny(s.Repositories, name) {
		return nil, nil
	}
	info, err := s.Forge.Repository(ctx, name)
	switch {
	case errors.Is(err, forge.ErrNotFound) || err == nil && info.Archived:
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look at %s/%s: %w", s.Name, name, err)
	case !info.CanPush:
		return nil, fmt.Errorf("%s/%s: %w: our account may not push to it; let it write there", s.Name, name, forge.ErrForbidden)
	}
	return e.watch(ctx, s, name)
}

// Check makes a pass over a repository now, or over all with "", and waits for
// it. Its error is that of the first pass that failed.
func (e *Engine) Check(ctx context.Context, name string) error {
	list := e.all()
	if name != "" {
		r, err := e.find(name)
		if errors.Is(err, ErrUnknown) {
			r, err = e.findNew(ctx, name, err)
		}
		if err != nil {
			return err
		}
		list = []*repository{r}
	}
	now := e.deps.Clock.Mono()
	done := make(chan error, len(list))
	for _, r := range list {
		e.queue.soon(r, now, 0, done)
	}
	var first error
	for range list {
		select {
		case err := <-done:
			var soon *soonError
			if err != nil && first == nil && !errors.As(err, &soon) {
				first = err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return first
}

// Hook takes a webhook of a forge: header gives the value of one of its
// headers. An error that is [forge.ErrSignature] or [ErrUnknown] is the
// sender's; a hook that does not matter is no error.
func (e *Engine) Hook(ctx context.Context, source string, header func(string) string, body []byte) error {
	s := e.sources[source]
	if s == nil || s.Hooks == nil || s.Secret == nil {
		return fmt.Errorf("webhook of the forge %.100q: %w: name it in the configuration, with webhook_secret_file", source, ErrUnknown)
	}
	secret, err := s.Secret()
	if err != nil {
		return fmt.Errorf("webhook of the forge %s: %w", source, err)
	}
	ev, err := s.Hooks.ReadHook(secret, header, body)
	if err != nil {
		return fmt.Errorf("webhook of the forge %s: %w", source, err)
	}
	e.mu.Lock()
	e.counters.Hooks++
	e.mu.Unlock()
	if ev == nil || forge.CheckRepository(ev.Repo) != nil {
		return nil
	}
	r := e.repository(source + "/" + ev.Repo)
	if r == nil {
		if r, err = e.meet(ctx, s, ev.Repo); r == nil || err != nil {
			return err // not one of those that are to be watched
		}
	}
	if branch := r.record().status.Branch; ev.Branch != "" && branch != "" && ev.Branch != branch {
		known, err := e.store.branches(ctx, r.record().id)
		if b := known[ev.Branch]; err == nil && (b == nil || b.head == ev.Head) {
			return nil // a branch that is not ours, or a commit that is
		}
	}
	e.queue.soon(r, e.deps.Clock.Mono(), e.cfg.Quiet, nil)
	return nil
}
