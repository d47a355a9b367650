package access

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestSecretText(t *testing.T) {
	form := regexp.MustCompile(`^cairn_ci_[0-9A-Za-z]{43}$`)
	seen := map[string]bool{}
	for range 1000 {
		s := newSecret("ci")
		if !form.MatchString(s) || seen[s] {
			t.Fatalf("secret %q: malformed, or given twice", s)
		}
		seen[s] = true
	}
	for _, name := range []string{"ci", "a_b", "_", "x.y-z", strings.Repeat("n", maxName)} {
		got, ok := secretAccount(newSecret(name))
		if !ok || got != name {
			t.Errorf("secretAccount of a secret of %q = %q, %v", name, got, ok)
		}
	}
	good := newSecret("ci")
	for _, s := range []string{"", "cairn_", "ci", good[1:], good[:len(good)-1], good + "x", "Cairn_" + good[6:],
		"cairn_" + good[len("cairn_ci_"):], "cairn_C!_" + good[len("cairn_ci_"):], "cairn_" + strings.Repeat("n", maxName+1) + good[len("cairn_ci"):]} {
		if name, ok := secretAccount(s); ok {
			t.Errorf("secretAccount(%q) = %q, want refused", s, name)
		}
	}
}

func TestSigningKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	a, err := SigningKey(path)
	if err != nil || len(a) != secretBytes {
		t.Fatalf("first start: %d bytes, %v", len(a), err)
	}
	b, err := SigningKey(path)
	if err != nil || !bytes.Equal(a, b) {
		t.Fatalf("second start: another key, or %v", err)
	}
	if fi, _ := os.Stat(path); fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want only its owner to read it", fi.Mode())
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".secret*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	other, err := SigningKey(path + "2")
	if err != nil || bytes.Equal(a, other) {
		t.Errorf("two keys are the same, or %v", err)
	}
	if err := os.WriteFile(path, a[:7], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := SigningKey(path); err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("a key cut short: %v", err)
	}
	if _, err := SigningKey(filepath.Join(path, "no", "folder")); err == nil {
		t.Error("a key below a file was made")
	}
}
