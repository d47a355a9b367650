package retention

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"cairn.dev/cairn/internal/image"
)

// Defaults of [Config].
const (
	DefaultInterval   = time.Hour
	DefaultKeep       = 7 * 24 * time.Hour
	DefaultWarnWithin = 3 * 24 * time.Hour
)

// A Policy says how long the images of some repositories are kept.
type Policy struct {
	// Name is shown to people; the repositories' globs when empty.
	Name string `json:"name,omitempty"`
	// Repositories are globs ([image.Glob]); one that matches is enough.
	Repositories []string `json:"repositories"`
	// After is the covered age above which an image goes. Zero: never by age.
	After time.Duration `json:"after"`
	// UntaggedAfter replaces After for images without a tag. Zero: After.
	UntaggedAfter time.Duration `json:"untagged_after,omitempty"`
	// MinAge keeps what was pushed less than that ago.
	MinAge time.Duration `json:"min_age,omitempty"`
	// KeepLast keeps the images of that many tags of a repository, newest push
	// first. Referrers fallback tags do not count.
	KeepLast int `json:"keep_last,omitempty"`
	// Protect are globs of tags whose images are kept.
	Protect []string `json:"protect,omitempty"`
	// MaxBytes bounds the blobs of the live images of all repositories this
	// policy governs, each distinct blob counted once. Zero: no bound.
	MaxBytes int64 `json:"max_bytes,omitempty"`
}

// Check reports what is wrong with the policy.
func (p *Policy) Check() error {
	name := p.Name
	if name == "" {
		name = fmt.Sprint(p.Repositories)
	}
	bad := func(format string, args ...any) error {
		return fmt.Errorf("policy %s: %w", name, fmt.Errorf(format, args...))
	}
	if len(p.Repositories) == 0 {
		return bad(`no repositories: write "**" for all`)
	}
	for _, g := range p.Repositories {
		if err := image.CheckGlob(g); err != nil {
			return bad("repositories: %w", err)
		}
	}
	for _, g := range p.Protect {
		if err := image.CheckGlob(g); err != nil {
			return bad("protect: %w", err)
		}
	}
	for _, v := range []struct {
		key string
		d   time.Duration
	}{{"after", p.After}, {"untagged_after", p.UntaggedAfter}, {"min_age", p.MinAge}} {
		if v.d < 0 {
			return bad("%s is negative (%s)", v.key, v.d)
		}
	}
	if p.KeepLast < 0 {
		return bad("keep_last is negative (%d)", p.KeepLast)
	}
	if p.MaxBytes < 0 {
		return bad("max_bytes is negative (%d)", p.MaxBytes)
	}
	return nil
}

// after is the bound for an image with or without tags; 0 is none.
func (p *Policy) after(tagged bool) time.Duration {
	if !tagged && p.UntaggedAfter > 0 {
		return p.UntaggedAfter
	}
	return p.After
}

// Match is the first policy that matches the repository, or nil.
func Match(ps []Policy, repository string) *Policy {
	for i := range ps {
		if image.MatchAny(ps[i].Repositories, repository) {
			return &ps[i]
		}
	}
	return nil
}

// Fingerprint tells two lists of policies apart. Names do not count.
func Fingerprint(ps []Policy) string {
	nameless := make([]Policy, len(ps))
	for i, p := range ps {
		p.Name = ""
		nameless[i] = p
	}
	b, err := json.Marshal(nameless)
	if err != nil { // strings and numbers only
		return ""
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
