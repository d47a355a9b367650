package retention

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// FileMemory is a [Memory] in a file of that name. What it says is no more
// than a reason to ask a person twice, so a lost file does no harm.
type FileMemory string

// Applied implements [Memory].
func (m FileMemory) Applied(context.Context) (string, error) {
	b, err := os.ReadFile(string(m))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read which policies were applied: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// SetApplied implements [Memory].
func (m FileMemory) SetApplied(_ context.Context, fingerprint string) error {
	tmp := filepath.Join(filepath.Dir(string(m)), "."+filepath.Base(string(m))+".new")
	err := os.WriteFile(tmp, []byte(fingerprint+"\n"), 0o600)
	if err == nil {
		err = os.Rename(tmp, string(m))
	}
	if err != nil {
		return fmt.Errorf("remember which policies were applied: %w", err)
	}
	return nil
}

// forgetful remembers until the process ends.
type forgetful struct {
	mu sync.Mutex
	s  string
}

func (f *forgetful) Applied(context.Context) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.s, nil
}

func (f *forgetful) SetApplied(_ context.Context, s string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.s = s
	return nil
}
