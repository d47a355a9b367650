package bump

import (
	"context"
	"errors"
	"fmt"

	"cairn.dev/cairn/internal/code"
	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/rules"
	"cairn.dev/cairn/internal/scan"
)

// A RulesError says that .cairn.yaml cannot be used: nothing is proposed until
// it can.
type RulesError struct {
	File []byte
	Err  error
}

func (e *RulesError) Error() string { return rules.Name + ": " + e.Err.Error() }
func (e *RulesError) Unwrap() error { return e.Err }

// read reads the code of a commit, unless it is ready. With a [*RulesError] the
// code is read by the defaults: what it uses is kept whatever the rules are.
func (e *Engine) read(ctx context.Context, r *repository, head string) (*reading, error) {
	if x := e.trees.get(r, head); x != nil {
		return x, nil
	}
	f := r.source.Forge
	file, err := f.File(ctx, r.name, head, rules.Name)
	if err != nil && !errors.Is(err, forge.ErrNotFound) {
		return nil, fmt.Errorf("read %s: %w", rules.Name, err)
	}
	say, broken := e.deps.Rules(file)
	if broken != nil {
		if say, err = e.deps.Rules(nil); err != nil {
			return nil, err
		}
	}
	body, err := f.Archive(ctx, r.name, head)
	if err != nil {
		return nil, fmt.Errorf("fetch the code: %w", err)
	}
	defer body.Close()
	e.count(func(c *Counters) { c.Archives++ })
	loaded, err := e.deps.Scanner.Load(ctx, body, say.Options.Ignore)
	if err != nil {
		return nil, fmt.Errorf("read the code: %w", err)
	}
	result, err := e.deps.Scanner.Scan(ctx, loaded.Tree, say.Options)
	if err != nil {
		return nil, fmt.Errorf("read the code: %w", err)
	}
	if len(loaded.Problems) > 0 {
		both := *result
		both.Problems = append(append([]code.Problem(nil), result.Problems...), loaded.Problems...)
		scan.SortProblems(both.Problems)
		result = &both
	}
	x := &reading{head: head, tree: loaded.Tree, result: result, rules: say, bytes: sizeOf(loaded.Tree), edits: map[string]*drafted{}}
	if broken != nil {
		return x, &RulesError{file, broken}
	}
	e.trees.put(r, x)
	return x, nil
}

func (e *Engine) count(f func(*Counters)) {
	e.mu.Lock()
	f(&e.counters)
	e.mu.Unlock()
}
