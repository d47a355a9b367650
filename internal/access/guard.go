package access

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
)

const (
	anonymousName = "anonymous"
	openName      = "open"
	// maxAuthorization bounds the header that is looked at, in bytes. The
	// longest token we issue is below it.
	maxAuthorization = 16 << 10
	flushEvery       = 10 * time.Minute
)

// Config of a [Guard].
type Config struct {
	// DB holds the accounts: opened with [Schema] and db.Full, used by nobody
	// else. Not needed when Open.
	DB *db.DB
	// Open: nobody is asked who they are, everybody may do everything. Use
	// [CheckOpen] on the listener and [Guard.Protect] around the handler.
	Open bool
	// AnonymousPull is the globs of the repositories that may be pulled
	// without an account.
	AnonymousPull []string
	// Service is the name by which tokens and challenges call this server;
	// "cairn" when empty.
	Service string
	// ExternalURL is where clients reach this server, such as
	// https://registry.example.org. When empty, challenges name the host of
	// the request. Headers such as X-Forwarded-Proto are never trusted: behind
	// a proxy that ends TLS, set this.
	ExternalURL string
	// Secret signs access tokens: see [SigningKey]. Not needed when Open.
	Secret []byte
	// Clusters whose ServiceAccounts sign on with their own tokens.
	Clusters []Cluster
	Clock    clock.Clock
	Log      *slog.Logger // failed logins; discarded when nil
}

// Guard authenticates requests and keeps the accounts. It is safe for
// concurrent use.
type Guard struct {
	cfg       Config
	external  *url.URL // nil: by the request
	anonymous *Principal
	open      *Principal
	failures  *limiter
	clusters  []*trust

	mu       sync.Mutex // serialises changes of accounts
	accounts atomic.Pointer[map[string]*account]
}

// New reads the accounts into memory.
func New(ctx context.Context, cfg Config) (*Guard, error) {
	cfg.Service = cmp.Or(cfg.Service, "cairn")
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if strings.ContainsFunc(cfg.Service, func(r rune) bool { return r <= ' ' || r == '"' || r == '\\' || r > '~' }) {
		return nil, fmt.Errorf("service name %q: use printable ASCII without space, quote and backslash", cfg.Service)
	}
	for _, g := range cfg.AnonymousPull {
		if err := image.CheckGlob(g); err != nil {
			return nil, fmt.Errorf("anonymous pull: %w", err)
		}
	}
	g := &Guard{cfg: cfg, failures: newLimiter(cfg.Clock)}
	g.accounts.Store(&map[string]*account{})
	g.open = &Principal{Name: openName, Counts: true, Anonymous: true, Via: ViaOpen, grants: everything}
	g.anonymous = &Principal{Name: anonymousName, Counts: true, Anonymous: true}
	if len(cfg.AnonymousPull) > 0 {
		g.anonymous.grants = []Grant{{Repositories: cfg.AnonymousPull, Actions: []Action{Pull}}}
	}
	for _, c := range cfg.Clusters {
		t, err := newTrust(c, g)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(g.clusters, func(o *trust) bool { return o.Name == t.Name }) {
			return nil, fmt.Errorf("cluster %q is configured twice", t.Name)
		}
		g.clusters = append(g.clusters, t)
	}
	if cfg.ExternalURL != "" {
		u, err := url.Parse(cfg.ExternalURL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || !validHost(u.Host) || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
			return nil, fmt.Errorf("external URL %q: write scheme://host[:port] with http or https and nothing after", cfg.ExternalURL)
		}
		g.external = u
	}
	if cfg.Open {
		return g, nil
	}
	if len(cfg.Secret) < secretBytes {
		return nil, fmt.Errorf("signing key of %d bytes: at least %d are needed", len(cfg.Secret), secretBytes)
	}
	all, err := g.load(ctx)
	if err != nil {
		return nil, err
	}
	for _, a := range all {
		if a.Revoked.IsZero() {
			g.live()[a.Name] = a
		}
	}
	return g, nil
}

// Run writes back, now and then, when accounts were last used, until ctx ends.
func (g *Guard) Run(ctx context.Context) error {
	for {
		err := clock.Sleep(ctx, g.cfg.Clock, flushEvery)
		if e := g.flush(context.WithoutCancel(ctx)); e != nil {
			// A coarse date is not worth stopping for.
			g.cfg.Log.Warn("accounts: "+e.Error(), "cure", "see the errors of the database access.db")
		}
		if err != nil {
			return nil
		}
	}
}

func (g *Guard) now() time.Time { return g.cfg.Clock.Now() }

// Authenticate says who the request comes from. A request without credentials
// comes from the anonymous principal, which may pull what
// [Config.AnonymousPull] names and nothing else. Every error is an [*Error].
func (g *Guard) Authenticate(r *http.Request) (*Principal, error) {
	if g.cfg.Open {
		return g.open, nil
	}
	hs := r.Header["Authorization"]
	if len(hs) == 0 {
		return g.anonymous, nil
	}
	// Several headers would let a proxy and us see different callers.
	if len(hs) > 1 {
		return nil, g.failed(r, "", "the request has more than one Authorization header")
	}
	if len(hs[0]) > maxAuthorization {
		return nil, g.failed(r, "", fmt.Sprintf("the Authorization header is longer than %d bytes", maxAuthorization))
	}
	scheme, rest, _ := strings.Cut(hs[0], " ")
	rest = strings.TrimSpace(rest)
	switch strings.ToLower(scheme) {
	case "basic":
		name, secret, ok := parseBasic(rest)
		if !ok {
			return nil, g.failed(r, "", "the Basic credentials are not base64 of name:secret")
		}
		return g.login(r, name, secret)
	case "bearer":
		if strings.HasPrefix(rest, secretPrefix) {
			name, _ := secretAccount(rest)
			return g.login(r, name, rest)
		}
		if signed(rest) {
			return g.clusterLogin(r, rest)
		}
		p, why := g.checkToken(rest)
		if p == nil {
			return nil, g.failed(r, "", why)
		}
		return p, nil
	}
	return nil, g.failed(r, "", "the Authorization header is neither Basic nor Bearer")
}

// Allow checks that a request comes from somebody who may do a on everything,
// for handlers that do not ask further. Its error is told to the client, under
// the status, 401, 403 or 429.
func (g *Guard) Allow(a Action) func(*http.Request) (status int, err error) {
	return func(r *http.Request) (int, error) {
		p, err := g.Authenticate(r)
		if e, ok := errors.AsType[*Error](err); ok {
			return e.Status, e
		}
		switch {
		case err != nil:
			return http.StatusUnauthorized, err
		case p.Can(a, ""):
			return 0, nil
		case p.MayRetry(a, ""):
			return http.StatusUnauthorized, fmt.Errorf("no secret was given, or one for less: use that of an account with the action %s", a)
		}
		return http.StatusForbidden, fmt.Errorf("the account %s may not do this: it needs the action %s", p.Name, a)
	}
}

func parseBasic(s string) (name, secret string, ok bool) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return "", "", false
	}
	return strings.Cut(string(b), ":")
}

// login checks a name and a secret. What is wrong with them is only told to
// who holds a right secret.
func (g *Guard) login(r *http.Request, name, secret string) (*Principal, error) {
	if signed(secret) { // the token says whose it is, whatever the name
		return g.clusterLogin(r, secret)
	}
	const wrong = "the account or its secret is wrong"
	owner, ok := secretAccount(secret)
	if !ok {
		return nil, g.failed(r, name, wrong+": a secret reads cairn_<account>_<43 characters>")
	}
	a := g.live()[owner]
	if a == nil || !sameHash(a.secret, hashSecret(secret)) {
		return nil, g.failed(r, name, wrong+", or the account was revoked")
	}
	if name != owner {
		return nil, g.failed(r, name, fmt.Sprintf("the secret belongs to the account %q: use that as user name", owner))
	}
	now := g.now()
	if a.ended(now) {
		return nil, g.failed(r, name, fmt.Sprintf("the account %q expired at %s: create a new one", owner, a.Expires.Format(time.RFC3339)))
	}
	a.touch(now)
	return &Principal{Name: a.Name, Kind: a.Kind, Counts: a.Counts, Via: ViaSecret, grants: a.effective()}, nil
}

// failed makes the error for a request with wrong credentials, and 429 out of
// it when there were many. Right credentials never come here, so users who
// share an address with a failing client are not locked out; and guessing at
// 256 random bits needs no limit to be hopeless. What the limit does is slow
// down clients that repeat a stale secret for ever, and keep the log readable.
func (g *Guard) failed(r *http.Request, name, why string) error {
	wait, first := g.failures.fail(r.RemoteAddr, name)
	if first {
		g.cfg.Log.Warn("refused credentials: "+why, "account", clip(name), "remote", r.RemoteAddr)
	}
	if wait > 0 {
		return &Error{Status: http.StatusTooManyRequests, RetryAfter: wait,
			Why: fmt.Sprintf("too many requests with wrong credentials, the last one because %s; wait %s", why, wait)}
	}
	return refused(why)
}

func clip(s string) string {
	if len(s) > maxName {
		return s[:maxName] + "…"
	}
	return s
}
