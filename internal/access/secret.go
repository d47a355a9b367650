package access

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
)

const (
	secretBytes  = 32 // of randomness in an account's secret, and of the signing key
	secretPrefix = "cairn_"
	base62       = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	base62Len    = 43 // digits that hold 256 bits
	maxSecret    = len(secretPrefix) + maxName + 1 + base62Len
)

// newSecret returns a secret of the account as text: cairn_<account>_<43
// letters and digits>. The prefix lets scanners of code and logs recognise a
// leak, and the name says which account to revoke.
func newSecret(account string) string {
	var b [secretBytes]byte
	rand.Read(b[:]) // never fails
	n := new(big.Int).SetBytes(b[:])
	base := big.NewInt(int64(len(base62)))
	digits := make([]byte, base62Len)
	for i := len(digits) - 1; i >= 0; i-- {
		m := new(big.Int)
		n.DivMod(n, base, m)
		digits[i] = base62[m.Int64()]
	}
	return secretPrefix + account + "_" + string(digits)
}

// secretAccount returns the name inside a secret. It says nothing about
// whether the secret is right.
func secretAccount(secret string) (string, bool) {
	rest, ok := strings.CutPrefix(secret, secretPrefix)
	if !ok || len(secret) > maxSecret {
		return "", false
	}
	// The digits hold no '_', names may.
	i := strings.LastIndexByte(rest, '_')
	if i < 0 || len(rest)-i-1 != base62Len || CheckName(rest[:i]) != nil {
		return "", false
	}
	return rest[:i], true
}

// hashSecret is the form in which secrets are stored. One round of SHA-256 is
// enough here: slow, salted hashes protect passwords that people think up, by
// making each guess dear. These secrets are 256 random bits, of which no
// attacker who has the hash can try a noticeable part at any speed, and no two
// are alike.
func hashSecret(secret string) []byte {
	h := sha256.Sum256([]byte(secret))
	return h[:]
}

func sameHash(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }

// SigningKey reads the key that signs access tokens from the file, and makes
// the file when there is none. Whoever reads the file can forge tokens; removing
// it while Cairn is stopped ends all tokens, which live for minutes anyway.
func SigningKey(path string) ([]byte, error) {
	key, err := os.ReadFile(path)
	if err == nil {
		if len(key) != secretBytes {
			return nil, fmt.Errorf("signing key %s has %d bytes instead of %d: remove it and a new one is made", path, len(key), secretBytes)
		}
		return key, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	key = make([]byte, secretBytes)
	rand.Read(key)
	// A half written key must never be found at the final name.
	f, err := os.CreateTemp(filepath.Dir(path), ".secret-*") // mode 0600
	if err != nil {
		return nil, fmt.Errorf("make signing key %s: %w", path, err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(key)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return nil, fmt.Errorf("make signing key %s: %w", path, err)
	}
	return key, nil
}
