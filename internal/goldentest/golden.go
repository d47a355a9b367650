// Package goldentest compares what tests see with files that are checked in.
//
// It owns the flag -update, by which such files are written instead. It promises
// that a difference fails the test and says how to accept it. It does not decide
// whether the difference is right: that is for who reads it before it is
// committed.
package goldentest

import (
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

// Check compares got with the file, or writes the file.
func Check[T string | []byte](t testing.TB, file string, got T) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: go test -update writes it", err)
	}
	if string(got) != string(want) {
		t.Errorf("%s is not what comes out; look at the difference, and accept it by go test -update: got\n%s\nwant\n%s", file, []byte(got), want)
	}
}
