package forge

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
)

// MaxHook is how long a webhook's body may be; GitHub's own bound.
const MaxHook = 25 << 20

// CheckSignature compares a webhook's signature, HMAC-SHA256 of its body in
// hex, with the secret. Without a secret nothing is believed.
func CheckSignature(secret []byte, signature string, body []byte) error {
	got, err := hex.DecodeString(signature)
	mac := hmac.New(sha256.New, secret)
	mac.Write(body)
	if err != nil || len(secret) == 0 || !hmac.Equal(got, mac.Sum(nil)) {
		return ErrSignature
	}
	return nil
}

// ParseHook reads the JSON of a webhook whose signature held.
func ParseHook(body []byte, v any) error {
	if len(body) > MaxHook {
		return fmt.Errorf("a webhook of %d bytes, more than %d: %w", len(body), MaxHook, ErrInvalid)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("read a webhook: %w (%w); is it sent as application/json?", err, ErrInvalid)
	}
	return nil
}

// PushEvent is the event of a push as all forges tell it: ref is the full name
// of what moved, before and after its commits, of which zeros are none. It is
// nil when that is no branch.
func PushEvent(repo, ref, before, after string) (*Event, error) {
	branch, ok := strings.CutPrefix(ref, "refs/heads/")
	if !ok {
		return nil, nil
	}
	if err := CheckRepository(repo); err != nil {
		return nil, err
	}
	if err := CheckBranch(branch); err != nil {
		return nil, err
	}
	e := &Event{Repo: repo, Branch: branch}
	if strings.Trim(before, "0") != "" && CheckHash(before) == nil {
		e.Before = before
	}
	if strings.Trim(after, "0") != "" {
		if err := CheckHash(after); err != nil {
			return nil, err
		}
		e.Head = after
	}
	return e, nil
}

// PullEvent is the event of a pull request that changed.
func PullEvent(repo string, number int64) (*Event, error) {
	if err := CheckRepository(repo); err != nil {
		return nil, err
	}
	if number <= 0 {
		return nil, fmt.Errorf("a webhook about pull request %d: %w", number, ErrInvalid)
	}
	return &Event{Repo: repo, Pull: number}, nil
}
