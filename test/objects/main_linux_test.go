package objects_test

import (
	"os"
	"testing"

	"cairn.dev/cairn/internal/worker/keep"
)

// TestMain lets this program be the keeper of tasks.
func TestMain(m *testing.M) {
	keep.Main()
	os.Exit(m.Run())
}
