// Package access decides who a request comes from and what they may do.
//
// It owns accounts and their secrets, the trust in the ServiceAccounts of
// clusters, the access tokens of the registry's
// token endpoint, the challenges that lead clients there, and the guard of
// open mode. It promises that wrong credentials are an error and never turn
// into an anonymous request, that revoking or expiring an account ends its
// access tokens at once, that no secret is stored, logged or listed, and that
// authenticating a request needs no database and no disk, but for the keys of
// clusters, which are read again now and then. It does not route
// requests, does not know what an image is, and writes no answers but those of
// the token endpoint and of [Guard.Protect].
package access

import (
	"net/http"
	"slices"
	"time"

	"cairn.dev/cairn/internal/image"
)

// An Action is something one may be allowed to do to a repository.
type Action string

// The actions. Admin includes the others, but for Run and Work, which only
// Admin on everything includes: who may administer some repositories was not
// trusted with programs. Admin on everything also allows what concerns no
// repository: accounts, reporters, running retention.
const (
	Pull   Action = "pull"
	Push   Action = "push"
	Delete Action = "delete"
	Report Action = "report" // tell the ledger about uses
	// Run is to start runs, look at them and control them. The globs of its
	// grant are matched with namespaces of runs in place of repositories.
	Run Action = "run"
	// Work is to be a worker: to be given tasks and what they need, of every
	// namespace. It is only had on everything.
	Work  Action = "work"
	Admin Action = "admin"
)

// Actions are all actions, weakest first.
func Actions() []Action { return []Action{Pull, Push, Delete, Report, Run, Work, Admin} }

// A Grant allows actions on the repositories that one of the globs matches.
type Grant struct {
	Repositories []string `json:"repositories"`
	Actions      []Action `json:"actions"`
}

// has reports whether the grant is of the action, on whatever it is.
func (g Grant) has(a Action) bool {
	if slices.Contains(g.Actions, a) {
		return true
	}
	if !slices.Contains(g.Actions, Admin) {
		return false
	}
	return a != Run && a != Work || slices.Contains(g.Repositories, "**")
}

// everything is what an account of kind admin is granted, and everybody in open mode.
var everything = []Grant{{Repositories: []string{"**"}, Actions: []Action{Admin}}}

// Via says how a request was authenticated.
type Via uint8

const (
	// ViaNothing: the request carried no credentials.
	ViaNothing Via = iota
	// ViaToken: an access token of our token endpoint, perhaps an anonymous one.
	ViaToken
	// ViaSecret: the secret of an account, as Basic or Bearer.
	ViaSecret
	// ViaOpen: nobody is asked; see [Config.Open].
	ViaOpen
	// ViaCluster: a ServiceAccount token of a cluster in [Config.Clusters].
	ViaCluster
)

// A Principal is who a request comes from. It is immutable and safe for
// concurrent use.
type Principal struct {
	Name string // of the account; "anonymous", or "open" in open mode
	Kind Kind   // of the account; empty without one
	// Counts: pulls by this principal are uses. False for scanners and mirrors.
	Counts    bool
	Anonymous bool // no account stands behind the request
	Via       Via
	// Cluster is the name of the cluster whose ServiceAccount this is. It may
	// report for that cluster only; see [Cluster].
	Cluster string

	until  time.Time // when the credentials end; zero when the account says so
	grants []Grant
	limit  []scope // what the access token is for; nil when no token limits
}

// Can reports whether the principal may do a to the repository. The empty
// repository stands for the server as a whole: only who may do a everywhere may
// do it there.
func (p *Principal) Can(a Action, repository string) bool {
	return p.granted(a, repository) && (p.Via != ViaToken || limitAllows(p.limit, a, repository))
}

func (p *Principal) granted(a Action, repository string) bool {
	for _, g := range p.grants {
		if !g.has(a) {
			continue
		}
		if repository == "" {
			if slices.Contains(g.Repositories, "**") {
				return true
			}
			continue
		}
		if image.MatchAny(g.Repositories, repository) {
			return true
		}
	}
	return false
}

func limitAllows(limit []scope, a Action, repository string) bool {
	for _, s := range limit {
		if s.Repository == repository && slices.Contains(s.Actions, a) {
			return true
		}
	}
	return false
}

// MayRetry tells the two kinds of "no" apart after [Principal.Can] said it.
// True: other credentials, or a token with a wider scope, may do it, so the
// answer is 401 with a challenge. False: the account itself may not, so it is
// 403; a challenge would send the client round in circles.
func (p *Principal) MayRetry(a Action, repository string) bool {
	return p.Anonymous || p.Via == ViaToken && p.granted(a, repository)
}

// MustLogIn reports whether the request came without any credentials although
// there are accounts. Clients find out how to log in by asking for /v2/ and
// being refused, so that one path refuses such a request whoever may pull.
func (p *Principal) MustLogIn() bool { return p.Via == ViaNothing }

// Scope is the globs of the repositories on which the principal may do a.
func (p *Principal) Scope(a Action) []string {
	var out []string
	if p.Via == ViaToken {
		for _, s := range p.limit {
			if p.Can(a, s.Repository) && !slices.Contains(out, s.Repository) {
				out = append(out, s.Repository)
			}
		}
		return out
	}
	for _, g := range p.grants {
		if !g.has(a) {
			continue
		}
		for _, r := range g.Repositories {
			if !slices.Contains(out, r) {
				out = append(out, r)
			}
		}
	}
	return out
}

// Error is why a request was not authenticated. It is safe to show to the client.
type Error struct {
	Status int    // 401, or 429 after too many failures
	Why    string // what was wrong and the cure
	// RetryAfter is how long to wait after a 429; zero otherwise.
	RetryAfter time.Duration
}

func (e *Error) Error() string { return e.Why }

func refused(why string) *Error { return &Error{Status: http.StatusUnauthorized, Why: why} }
