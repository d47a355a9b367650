package access

import (
	"slices"
	"testing"
)

func TestPrincipalCan(t *testing.T) {
	robot := &Principal{Via: ViaSecret, grants: []Grant{
		{Repositories: []string{"app/**"}, Actions: []Action{Pull, Push}},
		{Repositories: []string{"lib/*"}, Actions: []Action{Admin}},
	}}
	admin := &Principal{Via: ViaSecret, grants: everything}
	reader := &Principal{Via: ViaSecret, grants: grant("**", Pull)}
	token := &Principal{Via: ViaToken, grants: robot.grants, limit: []scope{{"app/web", []Action{Pull}}, {"other", []Action{Push}}}}
	wide := &Principal{Via: ViaToken, grants: everything, limit: []scope{{"app/web", []Action{Pull, Push, Delete}}}}
	runner := &Principal{Via: ViaSecret, grants: grant("team-*", Run)}
	worker := &Principal{Via: ViaSecret, grants: grant("**", Work)}
	nobody := &Principal{Via: ViaNothing, Anonymous: true, grants: grant("public/**", Pull)}
	open := &Principal{Via: ViaOpen, Anonymous: true, grants: everything}
	for _, c := range []struct {
		who   string
		p     *Principal
		a     Action
		repo  string
		can   bool
		retry bool
	}{
		{"robot", robot, Pull, "app/web", true, false},
		{"robot", robot, Push, "app/a/b", true, false},
		{"robot", robot, Delete, "app/web", false, false},
		{"robot", robot, Pull, "app", false, false},
		{"robot", robot, Pull, "appx/web", false, false},
		{"robot", robot, Delete, "lib/x", true, false}, // admin includes the rest
		{"robot", robot, Pull, "lib/x/y", false, false},
		{"robot", robot, Admin, "", false, false}, // admin of some is not admin of all
		{"robot", robot, Pull, "", false, false},
		{"admin", admin, Admin, "", true, false},
		{"admin", admin, Report, "any/thing", true, false},
		{"reader", reader, Pull, "", true, false},
		{"reader", reader, Push, "x", false, false},
		{"reader", reader, Admin, "", false, false},
		{"token", token, Pull, "app/web", true, false},
		{"token", token, Push, "app/web", false, true},  // another token could
		{"token", token, Pull, "app/api", false, true},  // so it could here
		{"token", token, Push, "other", false, false},   // the account may no more
		{"token", token, Delete, "app/x", false, false}, // nor here
		{"wide", wide, Delete, "app/web", true, false},
		{"wide", wide, Admin, "app/web", false, true}, // a registry token never administers
		{"wide", wide, Admin, "", false, true},
		{"nobody", nobody, Pull, "public/x", true, true},
		{"nobody", nobody, Pull, "private", false, true},
		{"nobody", nobody, Push, "public/x", false, true},
		{"runner", runner, Run, "team-a", true, false},
		{"runner", runner, Run, "default", false, false},
		{"runner", runner, Run, "", false, false},
		{"runner", runner, Pull, "team-a", false, false},
		{"runner", runner, Work, "", false, false},
		{"worker", worker, Work, "", true, false},
		{"worker", worker, Run, "default", false, false}, // it works; it does not say what
		{"robot", robot, Run, "lib/x", false, false},     // admin of some repositories starts no programs
		{"admin", admin, Run, "default", true, false},
		{"admin", admin, Work, "", true, false},
		{"wide", wide, Run, "app/web", false, true}, // nor does a token of the registry
		{"open", open, Run, "default", true, true},
		{"open", open, Work, "", true, true},
		{"open", open, Admin, "", true, true},
		{"open", open, Push, "x", true, true},
	} {
		if got := c.p.Can(c.a, c.repo); got != c.can {
			t.Errorf("%s.Can(%s, %q) = %v, want %v", c.who, c.a, c.repo, got, c.can)
		}
		if c.can {
			continue // MayRetry is asked after a no
		}
		if got := c.p.MayRetry(c.a, c.repo); got != c.retry {
			t.Errorf("%s.MayRetry(%s, %q) = %v, want %v", c.who, c.a, c.repo, got, c.retry)
		}
	}
	for _, c := range []struct {
		p    *Principal
		a    Action
		want []string
	}{
		{robot, Pull, []string{"app/**", "lib/*"}},
		{robot, Report, []string{"lib/*"}},
		{admin, Report, []string{"**"}},
		{runner, Run, []string{"team-*"}},
		{robot, Run, nil},
		{reader, Report, nil},
		{token, Pull, []string{"app/web"}},
		{token, Push, nil},
	} {
		if got := c.p.Scope(c.a); !slices.Equal(got, c.want) {
			t.Errorf("%v.Scope(%s) = %q, want %q", c.p.grants, c.a, got, c.want)
		}
	}
}
