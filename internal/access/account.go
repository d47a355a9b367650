package access

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/image"
)

// Kind says what stands behind an account.
type Kind string

// The kinds. Users and robots differ in name only; an admin may do everything.
const (
	KindUser  Kind = "user"
	KindRobot Kind = "robot"
	KindAdmin Kind = "admin"
)

// adminName is the account that the first start makes.
const adminName = "admin"

const (
	maxName    = 64
	maxGrants  = 64
	maxGlobs   = 256 // in one account
	lastUsedBy = time.Hour
	// Accounts that ended are listed this long, then their rows go.
	keepEnded = 90 * 24 * time.Hour
)

// Schema of the database that [Config.DB] is opened with (synchronous=FULL: an
// account that was answered exists, a revocation that was answered holds).
// Times are in seconds since 1970; 0 stands for never.
var Schema = []string{`
CREATE TABLE accounts (
	id        INTEGER PRIMARY KEY AUTOINCREMENT, -- never used again: tokens name it
	name      TEXT NOT NULL,
	kind      TEXT NOT NULL,
	secret    BLOB NOT NULL, -- SHA-256
	grants    TEXT NOT NULL, -- JSON
	counts    INTEGER NOT NULL,
	created   INTEGER NOT NULL,
	expires   INTEGER NOT NULL,
	last_used INTEGER NOT NULL, -- coarse
	revoked   INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX accounts_live ON accounts(name) WHERE revoked = 0`}

// An Account is one who may log in. Its secret is not part of it.
type Account struct {
	Name   string  `json:"name"`
	Kind   Kind    `json:"kind"`
	Grants []Grant `json:"grants"`
	// Counts: its pulls are uses of what is pulled.
	Counts   bool      `json:"counts"`
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires,omitzero"`   // zero: never
	LastUsed time.Time `json:"last_used,omitzero"` // within the hour; zero: never
	Revoked  time.Time `json:"revoked,omitzero"`   // zero: not
}

// NewAccount is what [Guard.Create] needs to know.
type NewAccount struct {
	Name   string
	Kind   Kind    // user when empty
	Grants []Grant // what it may do; none for an admin, who may do everything
	// Uncounted: pulls of this account are not a use, for scanners and mirrors.
	Uncounted bool
	Expires   time.Time // zero: never
}

// Errors of the calls on accounts, for callers who answer differently.
var (
	ErrNoAccount = errors.New("no such account")
	ErrExists    = errors.New("the account exists")
	ErrLastAdmin = errors.New("it is the last account that may administer everything")
	// ErrInvalid is wrapped by every error about what the caller asked for.
	ErrInvalid = errors.New("invalid account")
)

// account is an account in memory. All but lastUsed is immutable.
type account struct {
	Account
	id       int64
	secret   []byte
	lastUsed atomic.Int64 // seconds; 0: never
	dirty    atomic.Bool  // lastUsed is not yet written
}

func (a *account) ended(now time.Time) bool {
	return !a.Revoked.IsZero() || !a.Expires.IsZero() && !now.Before(a.Expires)
}

func (a *account) admin() bool { return (&Principal{grants: a.effective()}).granted(Admin, "") }

func (a *account) effective() []Grant {
	if a.Kind == KindAdmin {
		return everything
	}
	return a.Grants
}

// touch notes that the account was used, at most once an hour.
func (a *account) touch(now time.Time) {
	last := a.lastUsed.Load()
	if t := now.Unix(); t-last >= int64(lastUsedBy/time.Second) && a.lastUsed.CompareAndSwap(last, t) {
		a.dirty.Store(true)
	}
}

func (a *account) view() Account {
	v := a.Account
	v.Grants = slices.Clone(a.effective())
	v.LastUsed = fromUnix(a.lastUsed.Load())
	return v
}

// CheckName reports whether an account may have this name.
func CheckName(name string) error {
	ok := name != "" && len(name) <= maxName
	for _, c := range []byte(name) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-')
	}
	if !ok {
		return fmt.Errorf("%w: name %.80q: use 1 to %d of a-z, 0-9, '.', '_' and '-'", ErrInvalid, name, maxName)
	}
	return nil
}

func (n *NewAccount) check(now time.Time) error {
	if err := CheckName(n.Name); err != nil {
		return err
	}
	// These names stand for requests without an account in the audit log, and
	// before the names of clusters that report.
	if n.Name == anonymousName || n.Name == openName || n.Name == clusterName {
		return fmt.Errorf("%w: name %q is taken by Cairn itself: choose another", ErrInvalid, n.Name)
	}
	switch n.Kind {
	case "":
		n.Kind = KindUser
	case KindUser, KindRobot, KindAdmin:
	default:
		return fmt.Errorf("%w: kind %.80q: use user, robot or admin", ErrInvalid, n.Kind)
	}
	if !n.Expires.IsZero() && !n.Expires.After(now) {
		return fmt.Errorf("%w: it would expire at %s, which is past: give a later time", ErrInvalid, n.Expires.Format(time.RFC3339))
	}
	if n.Kind == KindAdmin {
		if len(n.Grants) > 0 {
			return fmt.Errorf("%w: an admin may do everything: leave the grants away, or choose the kind user or robot", ErrInvalid)
		}
		return nil
	}
	if len(n.Grants) == 0 {
		return fmt.Errorf("%w: account %q would be allowed nothing: name repositories and actions", ErrInvalid, n.Name)
	}
	return checkGrants(n.Grants)
}

func checkGrants(grants []Grant) error {
	globs := 0
	for _, g := range grants {
		if len(g.Repositories) == 0 || len(g.Actions) == 0 {
			return fmt.Errorf("%w: a grant needs repositories and actions", ErrInvalid)
		}
		globs += len(g.Repositories)
		for _, r := range g.Repositories {
			if err := image.CheckGlob(r); err != nil {
				return fmt.Errorf("%w: repositories %.80q: %w", ErrInvalid, r, err)
			}
		}
		for _, a := range g.Actions {
			if a == Work && !slices.Contains(g.Repositories, "**") {
				return fmt.Errorf("%w: a worker is given tasks of all namespaces: grant work on **", ErrInvalid)
			}
			if !slices.Contains(Actions(), a) {
				return fmt.Errorf("%w: action %.80q: use pull, push, delete, report, run, work or admin", ErrInvalid, a)
			}
		}
	}
	if len(grants) > maxGrants || globs > maxGlobs {
		return fmt.Errorf("%w: %d grants with %d globs: the limits are %d and %d; use wider globs", ErrInvalid, len(grants), globs, maxGrants, maxGlobs)
	}
	return nil
}

// Create makes an account and returns its secret, which nobody can be told again.
func (g *Guard) Create(ctx context.Context, n NewAccount) (Account, string, error) {
	now := g.now()
	if err := n.check(now); err != nil {
		return Account{}, "", fmt.Errorf("create account: %w", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if a, ok := g.live()[n.Name]; ok && !a.ended(now) {
		return Account{}, "", fmt.Errorf("create account %s: %w; revoke it first, or choose another name", n.Name, ErrExists)
	}
	return g.insert(ctx, n, now)
}

// insert replaces whatever live account has the name. The caller holds mu.
func (g *Guard) insert(ctx context.Context, n NewAccount, now time.Time) (Account, string, error) {
	secret := newSecret(n.Name)
	a := &account{secret: hashSecret(secret)}
	a.Account = Account{Name: n.Name, Kind: n.Kind, Grants: cloneGrants(n.Grants), Counts: !n.Uncounted,
		Created: fromUnix(now.Unix()), Expires: fromUnix(toUnix(n.Expires))}
	grants, err := json.Marshal(a.Grants)
	if err != nil {
		return Account{}, "", fmt.Errorf("create account %s: %w", n.Name, err)
	}
	err = g.cfg.DB.Write(ctx, func(tx *db.Tx) error {
		if _, err := tx.Exec(`UPDATE accounts SET revoked = ? WHERE name = ? AND revoked = 0`, now.Unix(), n.Name); err != nil {
			return err
		}
		old := now.Add(-keepEnded).Unix()
		if _, err := tx.Exec(`DELETE FROM accounts WHERE revoked > 0 AND revoked < ? OR expires > 0 AND expires < ?`, old, old); err != nil {
			return err
		}
		a.id, err = tx.Insert(`INSERT INTO accounts(name, kind, secret, grants, counts, created, expires, last_used, revoked) VALUES (?,?,?,?,?,?,?,0,0)`,
			a.Name, string(a.Kind), a.secret, string(grants), a.Counts, a.Created.Unix(), toUnix(a.Expires))
		return err
	})
	if err != nil {
		return Account{}, "", fmt.Errorf("create account %s: %w", n.Name, err)
	}
	g.put(a)
	return a.view(), secret, nil
}

// Bootstrap makes the first account, an admin, when there has never been one,
// and returns its secret. It is called at each start without open mode.
func (g *Guard) Bootstrap(ctx context.Context) (secret string, created bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var n int
	err = g.cfg.DB.ReadOne(ctx, func(q db.Query) error {
		_, err := q.Row(ctx, `SELECT count(*) FROM accounts`, nil, &n)
		return err
	})
	if err != nil {
		return "", false, fmt.Errorf("look for accounts: %w", err)
	}
	if n > 0 {
		return "", false, nil
	}
	_, secret, err = g.insert(ctx, NewAccount{Name: adminName, Kind: KindAdmin}, g.now())
	return secret, err == nil, err
}

// Reset gives an account a new secret; the old one and its tokens stop working.
// It makes the account "admin" when that is not there, which is the way back in
// for who can open the data folder but holds no secret any more.
func (g *Guard) Reset(ctx context.Context, name string) (Account, string, error) {
	now := g.now()
	g.mu.Lock()
	defer g.mu.Unlock()
	a, ok := g.live()[name]
	switch {
	case ok:
		n := NewAccount{Name: a.Name, Kind: a.Kind, Grants: a.Grants, Uncounted: !a.Counts, Expires: a.Expires}
		if a.ended(now) {
			return Account{}, "", fmt.Errorf("reset account %s: it expired at %s: create it anew", name, a.Expires.Format(time.RFC3339))
		}
		return g.insert(ctx, n, now)
	case name == adminName:
		return g.insert(ctx, NewAccount{Name: adminName, Kind: KindAdmin}, now)
	}
	return Account{}, "", fmt.Errorf("reset account %.80q: %w", name, ErrNoAccount)
}

// Revoke ends an account: its secret and its tokens stop working at once.
func (g *Guard) Revoke(ctx context.Context, name string) error {
	now := g.now()
	g.mu.Lock()
	defer g.mu.Unlock()
	a, ok := g.live()[name]
	if !ok {
		return fmt.Errorf("revoke account %.80q: %w", name, ErrNoAccount)
	}
	if a.admin() && !a.ended(now) {
		others := 0
		for _, o := range g.live() {
			if o != a && o.admin() && !o.ended(now) {
				others++
			}
		}
		if others == 0 {
			return fmt.Errorf("revoke account %s: %w: create another one first, or give this one a new secret", name, ErrLastAdmin)
		}
	}
	err := g.cfg.DB.Write(ctx, func(tx *db.Tx) error {
		_, err := tx.Exec(`UPDATE accounts SET revoked = ?, last_used = ? WHERE id = ?`, now.Unix(), a.lastUsed.Load(), a.id)
		return err
	})
	if err != nil {
		return fmt.Errorf("revoke account %s: %w", name, err)
	}
	next := maps.Clone(g.live())
	delete(next, name)
	g.accounts.Store(&next)
	return nil
}

// Get returns the live account of that name, which may have expired.
func (g *Guard) Get(_ context.Context, name string) (Account, error) {
	a, ok := g.live()[name]
	if !ok {
		return Account{}, fmt.Errorf("account %.80q: %w", name, ErrNoAccount)
	}
	return a.view(), nil
}

// List returns all accounts by name, those that ended within the last 90 days
// among them.
func (g *Guard) List(ctx context.Context) ([]Account, error) {
	all, err := g.load(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]Account, 0, len(all))
	live := g.live()
	for _, a := range all {
		if l, ok := live[a.Name]; ok && l.id == a.id {
			a = l // knows a newer last use
		}
		out = append(out, a.view())
	}
	slices.SortStableFunc(out, func(a, b Account) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return b.Created.Compare(a.Created)
	})
	return out, nil
}

func (g *Guard) live() map[string]*account { return *g.accounts.Load() }

// put makes a the account of its name. The caller holds mu.
func (g *Guard) put(a *account) {
	next := maps.Clone(g.live())
	next[a.Name] = a
	g.accounts.Store(&next)
}

// load reads all accounts.
func (g *Guard) load(ctx context.Context) ([]*account, error) {
	var out []*account
	err := g.cfg.DB.ReadOne(ctx, func(q db.Query) error {
		rows, err := q.Query(ctx, `SELECT id, name, kind, secret, grants, counts, created, expires, last_used, revoked FROM accounts ORDER BY id`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			a := &account{}
			var grants, kind string
			var created, expires, used, revoked int64
			if err := rows.Scan(&a.id, &a.Name, &kind, &a.secret, &grants, &a.Counts, &created, &expires, &used, &revoked); err != nil {
				return err
			}
			if err := json.Unmarshal([]byte(grants), &a.Grants); err != nil {
				return fmt.Errorf("grants of account %s: %w", a.Name, err)
			}
			a.Kind = Kind(kind)
			a.Created, a.Expires, a.Revoked = fromUnix(created), fromUnix(expires), fromUnix(revoked)
			a.lastUsed.Store(used)
			out = append(out, a)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("read accounts: %w", err)
	}
	return out, nil
}

// flush writes the last uses that are newer than their rows.
func (g *Guard) flush(ctx context.Context) error {
	var dirty []*account
	for _, a := range g.live() {
		if a.dirty.Swap(false) {
			dirty = append(dirty, a)
		}
	}
	if len(dirty) == 0 {
		return nil
	}
	err := g.cfg.DB.Write(ctx, func(tx *db.Tx) error {
		for _, a := range dirty {
			if _, err := tx.Exec(`UPDATE accounts SET last_used = ? WHERE id = ?`, a.lastUsed.Load(), a.id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		for _, a := range dirty {
			a.dirty.Store(true)
		}
		return fmt.Errorf("write when accounts were last used: %w", err)
	}
	return nil
}

func cloneGrants(gs []Grant) []Grant {
	out := make([]Grant, 0, len(gs))
	for _, g := range gs {
		out = append(out, Grant{Repositories: slices.Clone(g.Repositories), Actions: slices.Clone(g.Actions)})
	}
	return out
}

func toUnix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func fromUnix(s int64) time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(s, 0).UTC()
}
