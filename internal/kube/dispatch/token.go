package dispatch

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Claims say for what the bearer of a token may ask: tasks of one shape of one
// run. Leases have tokens of their own; without one of those nothing of a task
// can be read or written.
type Claims struct {
	Cluster   string `json:"c"`
	Namespace string `json:"n"`
	Run       string `json:"r"`
	Class     string `json:"s"`
	Expires   int64  `json:"e"` // seconds since 1970
}

// prefix makes tokens of pods known among others.
const prefix = "cairn_pod_"

const maxToken = 2048

// ErrToken means that a token was not made here, or is too old.
var ErrToken = errors.New("not a token of a worker in a pod")

// Signer makes and checks tokens of pods.
type Signer struct{ key []byte }

// NewSigner derives its key from a secret of the server, which stays the same
// after a restart.
func NewSigner(secret []byte) Signer {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte("tokens of workers in pods"))
	return Signer{h.Sum(nil)}
}

// Sign makes a token. It is complete with a dot and the key of its namespace
// after it: what is left out may stand where everybody reads it.
func (s Signer) Sign(c Claims) string {
	b, err := json.Marshal(c)
	if err != nil { // texts and a number
		return ""
	}
	body := base64.RawURLEncoding.EncodeToString(b)
	return prefix + body + "." + base64.RawURLEncoding.EncodeToString(s.sum(body))
}

func (s Signer) sum(body string) []byte {
	h := hmac.New(sha256.New, s.key)
	h.Write([]byte(body))
	return h.Sum(nil)
}

// Key is the part of a token that is the same for all pods of a namespace of a
// cluster. It is their secret: who reads the rest of a token in the definition
// of a pod cannot use it without.
func (s Signer) Key(cluster, namespace string) string {
	// No body has a colon: it is base64.
	return base64.RawURLEncoding.EncodeToString(s.sum("key:" + cluster + ":" + namespace))
}

// Is reports whether a secret means to be a token of a pod.
func Is(secret string) bool { return strings.HasPrefix(secret, prefix) }

// Verify reads a complete token; its error is [ErrToken].
func (s Signer) Verify(token string, now time.Time) (Claims, error) {
	var c Claims
	rest, ok := strings.CutPrefix(token, prefix)
	body, sum, found := strings.Cut(rest, ".")
	if !ok || !found || len(token) > maxToken {
		return c, ErrToken
	}
	sum, key, found := strings.Cut(sum, ".")
	got, err := base64.RawURLEncoding.DecodeString(sum)
	if err != nil || !hmac.Equal(got, s.sum(body)) {
		return c, fmt.Errorf("%w: its signature is not ours", ErrToken)
	}
	b, err := base64.RawURLEncoding.DecodeString(body)
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil {
		return Claims{}, fmt.Errorf("%w: %w", ErrToken, err)
	}
	if !found || !hmac.Equal([]byte(key), []byte(s.Key(c.Cluster, c.Namespace))) {
		return Claims{}, fmt.Errorf("%w: the key of its namespace is missing", ErrToken)
	}
	if now.Unix() >= c.Expires {
		return Claims{}, fmt.Errorf("%w: it ended at %s", ErrToken, time.Unix(c.Expires, 0).UTC().Format(time.RFC3339))
	}
	return c, nil
}
