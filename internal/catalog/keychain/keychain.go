// Package keychain finds accounts at registries where their users' tools keep
// them: the files and helpers of Docker and Podman, the identity a machine has
// at Amazon, and the one it has at Google.
//
// It owns which of these is asked about which host, and for how long an answer
// holds. It promises that a secret is returned to who asked and goes nowhere
// else, neither to a file nor to a log, that a place is only asked about hosts
// it can know, and that failing to ask is an error that says who failed. It
// stands apart from catalog because of what it drags in, and talks to no
// registry itself but ECR's API, which gives out the passwords.
package keychain

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/upstream"
)

const (
	// holds is how long an answer is good: much less than the passwords of the
	// clouds live (an hour, or twelve), and long enough that a helper is not
	// started for every repository.
	holds = 10 * time.Minute
	// holdsError is the same of a failure, which people are about to repair.
	holdsError = 30 * time.Second
	// patience is how long a helper or a cloud may take.
	patience = 30 * time.Second
	maxHosts = 1000
)

// Config of a [Keychain].
type Config struct {
	Clock clock.Clock
	// Getenv gives AWS_ENDPOINT_URL_ECR; the tools' own variables are read by
	// the tools' own libraries. Optional.
	Getenv func(string) string
}

// A Keychain is a catalog.Keychain. It is safe for concurrent use.
type Keychain struct {
	clock clock.Clock
	ask   func(ctx context.Context, host string) (upstream.Account, error)

	mu    sync.Mutex
	known map[string]*entry
}

// entry is what is known of one host; who asks first looks, the others wait.
type entry struct {
	mu      sync.Mutex
	account upstream.Account
	err     error
	until   time.Duration // monotonic
}

// New returns a keychain. It looks nowhere yet.
func New(c Config) (*Keychain, error) {
	if c.Clock == nil {
		return nil, errors.New("keychain: no clock given")
	}
	if c.Getenv == nil {
		c.Getenv = func(string) string { return "" }
	}
	p := places{docker: authn.DefaultKeychain, ecr: ecr{clock: c.Clock, endpoint: c.Getenv("AWS_ENDPOINT_URL_ECR")}}
	return &Keychain{clock: c.Clock, ask: p.account, known: map[string]*entry{}}, nil
}

// Account is the one to use at a host, or nobody.
func (k *Keychain) Account(ctx context.Context, host string) (upstream.Account, error) {
	k.mu.Lock()
	e := k.known[host]
	if e == nil {
		if len(k.known) >= maxHosts {
			clear(k.known)
		}
		e = &entry{}
		k.known[host] = e
	}
	k.mu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	if k.clock.Mono() < e.until {
		return e.account, e.err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	account, err := k.ask(ctx, host)
	if err != nil {
		account, err = upstream.Account{}, fmt.Errorf("find an account at %s: %w", host, err)
	}
	if errors.Is(err, context.Canceled) { // says nothing about the host
		return account, err
	}
	e.account, e.err, e.until = account, err, k.clock.Mono()+holds
	if err != nil {
		e.until = k.clock.Mono() + holdsError
	}
	return account, err
}

// places are where accounts are kept, in the order in which they are asked:
// what somebody wrote down goes before what the machine is.
type places struct {
	docker authn.Keychain
	ecr    ecr
}

func (p places) account(ctx context.Context, host string) (upstream.Account, error) {
	registry, err := name.NewRegistry(host, name.Insecure)
	if err != nil {
		return upstream.Account{}, err
	}
	a, err := authn.Resolve(ctx, p.docker, registry)
	if err != nil {
		return upstream.Account{}, fmt.Errorf("ask the configuration of Docker: %w; docker login writes it anew", err)
	}
	account, err := accountOf(ctx, a)
	if err != nil || account != (upstream.Account{}) {
		return account, err
	}
	if r, ok := parseECR(host); ok {
		return p.ecr.account(ctx, r)
	}
	if googles(host) {
		return google(ctx)
	}
	return upstream.Account{}, nil
}

// accountOf takes an account out of the library's hands.
func accountOf(ctx context.Context, a authn.Authenticator) (upstream.Account, error) {
	c, err := authn.Authorization(ctx, a)
	switch {
	case err != nil:
		return upstream.Account{}, err
	case c.IdentityToken != "":
		return upstream.Account{Username: upstream.IdentityToken, Password: c.IdentityToken}, nil
	case c.Username == "" && c.RegistryToken != "":
		return upstream.Account{}, errors.New("the configuration of Docker has a registrytoken, which is used up by the time it is read: docker login writes a password or an identitytoken")
	}
	return upstream.Account{Username: c.Username, Password: c.Password}, nil
}

// googles reports whether a host is a registry of Google's.
func googles(host string) bool {
	return host == "gcr.io" || strings.HasSuffix(host, ".gcr.io") || strings.HasSuffix(host, "-docker.pkg.dev")
}
