package access

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestBootstrap(t *testing.T) {
	ctx := context.Background()
	f := newFixture(t, nil)
	secret, created, err := f.Bootstrap(ctx)
	if err != nil || !created {
		t.Fatalf("first start: created %v, %v", created, err)
	}
	p := f.who(basic("admin", secret))
	if !p.Can(Admin, "") || p.Kind != KindAdmin || !p.Counts || p.Anonymous {
		t.Errorf("the first account is %+v", p)
	}
	for range 2 {
		if s, again, err := f.Bootstrap(ctx); again || s != "" || err != nil {
			t.Errorf("second start: secret %q, created %v, %v", s, again, err)
		}
		f.restart()
	}
	f.who(basic("admin", secret))
}

func TestSecretsAreNotStored(t *testing.T) {
	f := newFixture(t, nil)
	secret := f.create(NewAccount{Name: "ci", Grants: grant("**", Pull)})
	f.restart()
	f.cfg.DB.Close()
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(f.path + suffix)
		if err != nil && suffix == "" {
			t.Fatal(err)
		}
		// The random part, so that no other spelling of the whole hides it.
		if bytes.Contains(b, []byte(secret[len("cairn_ci_"):])) {
			t.Errorf("%s holds the secret", f.path+suffix)
		}
	}
}

func TestCreateRefuses(t *testing.T) {
	f := newFixture(t, nil)
	f.create(NewAccount{Name: "taken", Grants: grant("**", Pull)})
	var many []Grant
	for range maxGrants + 1 {
		many = append(many, grant("a", Pull)...)
	}
	ok := grant("**", Pull)
	for _, c := range []struct {
		n    NewAccount
		is   error
		want string
	}{
		{NewAccount{Name: "", Grants: ok}, ErrInvalid, "name"},
		{NewAccount{Name: "Ada", Grants: ok}, ErrInvalid, "a-z"},
		{NewAccount{Name: "a/b", Grants: ok}, ErrInvalid, "name"},
		{NewAccount{Name: "a:b", Grants: ok}, ErrInvalid, "name"},
		{NewAccount{Name: "a\r\nb", Grants: ok}, ErrInvalid, "name"},
		{NewAccount{Name: strings.Repeat("a", 65), Grants: ok}, ErrInvalid, "64"},
		{NewAccount{Name: "anonymous", Grants: ok}, ErrInvalid, "Cairn itself"},
		{NewAccount{Name: "open", Grants: ok}, ErrInvalid, "Cairn itself"},
		{NewAccount{Name: "x", Kind: "god", Grants: ok}, ErrInvalid, "user, robot or admin"},
		{NewAccount{Name: "x"}, ErrInvalid, "allowed nothing"},
		{NewAccount{Name: "x", Grants: []Grant{{Repositories: []string{"**"}}}}, ErrInvalid, "actions"},
		{NewAccount{Name: "x", Grants: []Grant{{Actions: []Action{Pull}}}}, ErrInvalid, "repositories"},
		{NewAccount{Name: "x", Grants: grant("", Pull)}, ErrInvalid, "empty glob"},
		{NewAccount{Name: "x", Grants: grant("a", "fly")}, ErrInvalid, "pull, push, delete, report, run, work or admin"},
		{NewAccount{Name: "x", Grants: grant("a", Work)}, ErrInvalid, "grant work on **"},
		{NewAccount{Name: "x", Grants: many}, ErrInvalid, "limits"},
		{NewAccount{Name: "x", Kind: KindAdmin, Grants: ok}, ErrInvalid, "everything"},
		{NewAccount{Name: "x", Grants: ok, Expires: start}, ErrInvalid, "past"},
		{NewAccount{Name: "taken", Grants: ok}, ErrExists, "revoke"},
	} {
		_, secret, err := f.Create(context.Background(), c.n)
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) || secret != "" {
			t.Errorf("Create(%+v): %v, want %v saying %q", c.n, err, c.is, c.want)
		}
	}
	if all, _ := f.List(context.Background()); len(all) != 1 {
		t.Errorf("refused accounts were made: %v", all)
	}
}

func TestAccountLife(t *testing.T) {
	ctx := context.Background()
	f := newFixture(t, nil)
	admin, _, _ := f.Bootstrap(ctx)
	day := 24 * time.Hour
	secret := f.create(NewAccount{Name: "ci", Kind: KindRobot, Grants: grant("app/**", Pull), Uncounted: true, Expires: start.Add(day)})
	f.restart()

	a, err := f.Get(ctx, "ci")
	if err != nil || a.Kind != KindRobot || a.Counts || !a.Expires.Equal(start.Add(day)) || !a.Created.Equal(start) || len(a.Grants) != 1 || !a.LastUsed.IsZero() {
		t.Errorf("Get = %+v, %v", a, err)
	}
	p := f.who(basic("ci", secret))
	if p.Counts || p.Name != "ci" || !p.Can(Pull, "app/x") || p.Can(Push, "app/x") {
		t.Errorf("principal %+v", p)
	}

	// Expiry is to the instant, and an expired name can be used anew.
	f.clock.Advance(day - time.Nanosecond)
	f.who(basic("ci", secret))
	f.clock.Advance(time.Nanosecond)
	if got := f.status(basic("ci", secret)); got != 401 {
		t.Errorf("expired: status %d, want 401", got)
	}
	if _, _, err := f.Reset(ctx, "ci"); err == nil {
		t.Error("an expired account was reset")
	}
	second := f.create(NewAccount{Name: "ci", Grants: grant("app/**", Push)})
	if f.status(basic("ci", secret)) != 401 || f.status(basic("ci", second)) != 0 {
		t.Error("after re-creation the old secret works, or the new one does not")
	}

	// Reset replaces the secret and keeps the rest.
	_, third, err := f.Reset(ctx, "ci")
	if err != nil {
		t.Fatal(err)
	}
	if f.status(basic("ci", second)) != 401 || !f.who(basic("ci", third)).Can(Push, "app/x") {
		t.Error("after a reset the old secret works, or the account lost its grants")
	}

	// Revoking holds at once and over a restart.
	if err := f.Revoke(ctx, "ci"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got := f.status(basic("ci", third)); got != 401 {
			t.Errorf("revoked: status %d, want 401", got)
		}
		f.restart()
	}
	if err := f.Revoke(ctx, "ci"); !errors.Is(err, ErrNoAccount) {
		t.Errorf("revoking twice: %v", err)
	}
	if _, err := f.Get(ctx, "ci"); !errors.Is(err, ErrNoAccount) {
		t.Errorf("Get of a revoked account: %v", err)
	}
	if _, _, err := f.Reset(ctx, "ci"); !errors.Is(err, ErrNoAccount) {
		t.Errorf("Reset of a revoked account: %v", err)
	}

	all, err := f.List(ctx)
	if err != nil || len(all) != 4 || all[0].Name != "admin" || all[1].Revoked.IsZero() {
		t.Errorf("List = %+v, %v", all, err)
	}
	// Long after, the rows of what ended are gone; what lives stays.
	f.clock.Advance(keepEnded + 2*day)
	f.create(NewAccount{Name: "new", Grants: grant("a", Pull)})
	if all, _ = f.List(ctx); len(all) != 2 {
		t.Errorf("after %v List = %+v, want admin and new", keepEnded, all)
	}
	f.who(basic("admin", admin))
}

func TestLastAdmin(t *testing.T) {
	ctx := context.Background()
	f := newFixture(t, nil)
	lost, _, _ := f.Bootstrap(ctx)
	f.create(NewAccount{Name: "ci", Grants: grant("**", Pull, Push, Delete, Report)})
	temp := f.create(NewAccount{Name: "temp", Kind: KindAdmin, Expires: start.Add(time.Hour)})
	_ = temp
	f.clock.Advance(time.Hour) // an expired admin is none
	if err := f.Revoke(ctx, "admin"); !errors.Is(err, ErrLastAdmin) {
		t.Errorf("Revoke of the last admin: %v", err)
	}
	_, found, err := f.Reset(ctx, "admin")
	if err != nil || f.status(basic("admin", lost)) != 401 || f.status(basic("admin", found)) != 0 {
		t.Errorf("Reset(admin): %v", err)
	}
	// Who is admin by grant is one too.
	f.create(NewAccount{Name: "boss", Grants: grant("**", Admin)})
	if err := f.Revoke(ctx, "admin"); err != nil {
		t.Errorf("Revoke(admin) with another one there: %v", err)
	}
	// And the way back in, with the data folder in hand.
	if _, s, err := f.Reset(ctx, "admin"); err != nil || f.status(basic("admin", s)) != 0 {
		t.Errorf("Reset of a revoked admin: %v", err)
	}
}

func TestLastUsed(t *testing.T) {
	ctx := context.Background()
	f := newFixture(t, nil)
	secret := f.create(NewAccount{Name: "ci", Grants: grant("**", Pull)})
	used := func() time.Time {
		a, err := f.Get(ctx, "ci")
		if err != nil {
			t.Fatal(err)
		}
		return a.LastUsed
	}
	f.status(basic("ci", secret[:len(secret)-1]+"!"))
	if !used().IsZero() {
		t.Error("a failed login is a use of the account")
	}
	f.who(basic("ci", secret))
	f.clock.Advance(59 * time.Minute)
	f.who(basic("ci", secret))
	if got := used(); !got.Equal(start) {
		t.Errorf("last used %v, want %v: it is coarse", got, start)
	}
	f.clock.Advance(time.Minute)
	f.who(basic("ci", secret))
	if got := used(); !got.Equal(start.Add(time.Hour)) {
		t.Errorf("last used %v, want an hour after %v", got, start)
	}
	f.restart()
	if got := used(); !got.Equal(start.Add(time.Hour)) {
		t.Errorf("after a restart: last used %v", got)
	}
	// A flush that fails is tried again.
	f.clock.Advance(2 * time.Hour)
	f.who(basic("ci", secret))
	f.cfg.DB.Close()
	if err := f.flush(ctx); err == nil || !f.live()["ci"].dirty.Load() {
		t.Errorf("flush into a closed database: %v, and the last use is forgotten", err)
	}
}

func TestRunFlushes(t *testing.T) {
	f := newFixture(t, nil)
	secret := f.create(NewAccount{Name: "ci", Grants: grant("**", Pull)})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- f.Run(ctx) }()
	f.who(basic("ci", secret))
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if f.live()["ci"].dirty.Load() {
		t.Error("Run ended without writing the last use")
	}
}

// Readers never see a half-made set of accounts; -race watches.
func TestConcurrentUse(t *testing.T) {
	ctx := context.Background()
	f := newFixture(t, nil)
	secret := f.create(NewAccount{Name: "steady", Grants: grant("**", Pull)})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			name := string(rune('a' + i))
			for range 5 {
				if _, _, err := f.Create(ctx, NewAccount{Name: name, Grants: grant("**", Pull)}); err != nil {
					t.Error(err)
				}
				if _, err := f.Authenticate(request("GET", "/v2/", basic("steady", secret))); err != nil {
					t.Error(err)
				}
				if err := f.Revoke(ctx, name); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	if n := len(f.live()); n != 1 {
		t.Errorf("%d live accounts, want 1", n)
	}
}
