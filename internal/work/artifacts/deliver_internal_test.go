package artifacts

import (
	"errors"
	"strings"
	"testing"
)

// Who stores more than a store takes at once is told what the matter may be.
func TestOversized(t *testing.T) {
	if err := oversized(nil, maxPut+1); err != nil {
		t.Errorf("what was stored is an error: %v", err)
	}
	for size, said := range map[int64]bool{maxPut: false, maxPut + 1: true} {
		err := oversized(ErrRefused, size)
		if !errors.Is(err, ErrRefused) || strings.Contains(err.Error(), "5368709120") != said {
			t.Errorf("of %d bytes: %v", size, err)
		}
	}
}
