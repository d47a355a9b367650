package goldentest

import (
	"path/filepath"
	"testing"
)

// said is a test that remembers whether it failed.
type said struct {
	testing.TB
	failed bool
}

func (s *said) Errorf(string, ...any) { s.failed = true }

func TestCheck(t *testing.T) {
	file := filepath.Join(t.TempDir(), "golden")
	*update = true
	Check(t, file, "old\n")
	*update = false
	Check(t, file, []byte("old\n"))
	s := &said{TB: t}
	if Check(s, file, "new\n"); !s.failed {
		t.Error("a difference was not told")
	}
}
