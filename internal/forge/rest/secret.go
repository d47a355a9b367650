package rest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// A Secret is a token, or where it is. The file is read whenever the secret is
// needed, because whoever keeps it changes it.
type Secret struct {
	Value string
	File  string
}

// Given reports whether there is one at all.
func (s Secret) Given() bool { return s.Value != "" || s.File != "" }

// maxSecret is more than any token or key has.
const maxSecret = 64 << 10

// Read returns it, without white space around it. No secret at all is no error.
func (s Secret) Read() (string, error) {
	if s.File == "" {
		return strings.TrimSpace(s.Value), nil
	}
	f, err := os.Open(s.File)
	if err != nil {
		return "", fmt.Errorf("read the secret: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret))
	if err != nil {
		return "", fmt.Errorf("read the secret: %w", err)
	}
	if len(strings.TrimSpace(string(b))) == 0 {
		return "", fmt.Errorf("read the secret: %s is empty", s.File)
	}
	return strings.TrimSpace(string(b)), nil
}

// String keeps a secret out of logs.
func (s Secret) String() string {
	switch {
	case s.File != "":
		return "secret in " + s.File
	case s.Value != "":
		return "***"
	}
	return "no secret"
}

// GoString keeps a secret out of logs.
func (s Secret) GoString() string { return s.String() }

// MarshalText keeps a secret out of what is printed as JSON or YAML.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText refuses: a secret that was printed is none any more.
func (s *Secret) UnmarshalText([]byte) error {
	return errors.New("a secret is configured by its fields")
}
