package artifacts

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// A Secret is an account of the server's that sources name. Its password is
// read whenever it is needed, because whoever keeps it changes it.
type Secret struct {
	Name string
	// User is the account, or the ID of an access key.
	User string
	// File or Env (the name of a variable) has the password or secret key.
	File, Env string
	// Hosts (host or host:port) may be given the password itself, by http and
	// git: whoever writes a workflow chooses where it is sent. s3 only signs
	// with it, which tells nobody, and asks for no host.
	Hosts []string
}

// maxSecret is more than any password or key has.
const maxSecret = 64 << 10

func checkSecrets(list []Secret) (map[string]Secret, error) {
	m := map[string]Secret{}
	for _, s := range list {
		if _, twice := m[s.Name]; twice || s.Name == "" {
			return nil, fmt.Errorf("the secret %q is there twice, or has no name", s.Name)
		}
		if (s.File == "") == (s.Env == "") {
			return nil, fmt.Errorf("the secret %q: name one of file and env", s.Name)
		}
		m[s.Name] = s
	}
	return m, nil
}

// String keeps what is secret out of logs.
func (s Secret) String() string { return "secret " + s.Name }

func (s Secret) password() (string, error) {
	text := os.Getenv(s.Env)
	if s.File != "" {
		f, err := os.Open(s.File)
		if err != nil {
			return "", fmt.Errorf("read the secret %s: %w", s.Name, err)
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, maxSecret))
		if err != nil {
			return "", fmt.Errorf("read the secret %s: %w", s.Name, err)
		}
		text = string(b)
	}
	if text = strings.TrimSpace(text); text == "" {
		return "", fmt.Errorf("read the secret %s: it is empty", s.Name)
	}
	return text, nil
}

// account is the user and password of a secret that a source names.
func (s *Store) account(name string) (user, password string, err error) {
	x, ok := s.secrets[name]
	if !ok {
		return "", "", fmt.Errorf("the server has no secret %.80q: add it to its configuration (work.secrets): %w", name, ErrInvalid)
	}
	password, err = x.password()
	return x.User, password, err
}

// accountFor is account for who sends the password itself to a host.
func (s *Store) accountFor(name, host string) (user, password string, err error) {
	if x, ok := s.secrets[name]; ok && !slices.Contains(x.Hosts, host) {
		return "", "", fmt.Errorf("the secret %s is not for %.200s: name that under its hosts in the server's configuration (work.secrets): %w", name, host, ErrRefused)
	}
	return s.account(name)
}
