package bump

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"cairn.dev/cairn/internal/db"
	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/forge/forgetest"
)

// A step of the story changes the world; after it and enough passes, the check
// holds.
type step struct {
	name  string
	do    func(g *rig)
	check func(g *rig) error
}

// proposes: there is one pull request, on one branch, and this is what it makes
// of the file.
func proposes(want string) func(*rig) error {
	return func(g *rig) error {
		list := g.pulls(true)
		if len(list) != 1 {
			return fmt.Errorf("%d pull requests are open", len(list))
		}
		if got := g.forge.Files("team/app", list[0].Head)["main.tf"]; got != want {
			return fmt.Errorf("it makes %q", got)
		}
		if n := len(g.forge.Branches("team/app")); n != 2 {
			return fmt.Errorf("there are %d branches", n)
		}
		b, err := ParseBlock(list[0].Body)
		if err != nil {
			return err
		}
		if b.Head != list[0].Head {
			return errors.New("its text is about another commit")
		}
		return nil
	}
}

func nothingOpen(g *rig) error {
	if n := len(g.pulls(true)); n != 0 {
		return fmt.Errorf("%d pull requests are open", n)
	}
	if n := len(g.forge.Branches("team/app")); n != 1 {
		return fmt.Errorf("there are %d branches", n)
	}
	return nil
}

// story goes through everything that is done to a pull request.
func story() []step {
	return []step{
		{"a newer tag", func(g *rig) { g.push("cairn.test/api", "1.2") }, proposes(main2)},
		{"a still newer one", func(g *rig) { g.push("cairn.test/api", "1.3") }, proposes(main3)},
		{"the base moves", func(g *rig) {
			g.forge.Push("team/app", "main", map[string]string{"main.tf": "# hello\n" + main1})
		}, proposes("# hello\n" + main3)},
		{"done by hand", func(g *rig) {
			g.forge.Push("team/app", "main", map[string]string{"main.tf": "# hello\n" + main3})
		}, nothingOpen},
		{"undone by hand", func(g *rig) {
			g.forge.Push("team/app", "main", map[string]string{"main.tf": main1})
		}, proposes(main3)},
		{"merged", func(g *rig) {
			if err := g.forge.MergeByHand("team/app", g.pulls(true)[0].Number); err != nil {
				g.Fatal(err)
			}
		}, nothingOpen},
	}
}

// mortal is an engine that can be killed: from then on neither the forge nor
// the disk hears of it.
type mortal struct {
	*Engine
	dead    *bool
	closeDB func()
}

var errKilled = errors.New("killed")

func (g *rig) mortal(name string, commits *int, dieAt int, point string) *mortal {
	g.Helper()
	dead := false
	d, err := db.Open(g.ctx, db.Config{Path: filepath.Join(g.dir, name+".db"), Schema: Schema, Sync: db.Normal, Fault: func(p string) error {
		if p == point && commits != nil {
			if *commits++; *commits == dieAt {
				dead = true
			}
		}
		if dead {
			return errKilled
		}
		return nil
	}})
	if err != nil {
		g.Fatal(err)
	}
	e, err := New(g.ctx, Config{Sources: []Source{{Name: "forge", Repositories: []string{"team/app"}, Forge: g.forge}}, Interval: time.Hour},
		Deps{DB: d, Scanner: toy{}, Rules: g.rules, Choose: newest, Catalog: g.regs, Registry: ours{g.regs}, Ledger: g.led, Clock: g.clock, Log: g.log})
	if err != nil {
		if dead {
			_ = d.Close()
			return g.mortal(name, nil, 0, "")
		}
		g.Fatal(err)
	}
	m := &mortal{e, &dead, func() { _ = d.Close() }}
	g.Cleanup(func() { m.closeDB() })
	return m
}

// silence is what becomes of the calls of a dead process.
func (m *mortal) silence() *forgetest.Fault {
	if *m.dead {
		return &forgetest.Fault{Err: errKilled}
	}
	return nil
}

// settle makes passes until one goes well, with a new process when the old one
// is dead.
func (g *rig) settle(m *mortal, name string) *mortal {
	g.Helper()
	var err error
	for range 6 {
		if *m.dead {
			m.closeDB()
			*m = *g.mortal(name, nil, 0, "")
		}
		if err = g.try(m.Engine); err == nil && !*m.dead {
			return m
		}
		g.clock.Advance(time.Minute)
	}
	if !*m.dead {
		g.Fatalf("it does not go well any more: %v", err)
	}
	return m
}

// ready is the rig of the story before its first step.
func ready(t *testing.T) *rig {
	g := newRig(t)
	g.push("cairn.test/api", "1.1")
	g.push("docker.io/library/nginx", "1.1")
	g.add(map[string]string{"main.tf": main1})
	return g
}

// neverTwo fails as soon as there is more than one pull request open.
func (g *rig) neverTwo() {
	g.Helper()
	if n := len(g.pulls(true)); n > 1 {
		g.Fatalf("%d pull requests are open", n)
	}
}

// callsOf is the number of calls that a clean run of the story makes.
func callsOf(t *testing.T) int {
	g := ready(t)
	m := g.mortal("a", nil, 0, "")
	g.pass(m.Engine)
	for _, s := range story() {
		s.do(g)
		m = g.settle(m, "a")
		if err := s.check(g); err != nil {
			t.Fatalf("without any fault: %s: %v", s.name, err)
		}
	}
	m.closeDB()
	return len(g.forge.Calls())
}

// TestKilledAtEveryCall ends the process before and after each call to the
// forge; the next one goes on, with the database, and without: then the forge
// alone has to be enough.
func TestKilledAtEveryCall(t *testing.T) {
	n := callsOf(t)
	if n < 30 {
		t.Fatalf("the story has only %d calls", n)
	}
	for after, db := range map[string]string{"the database of before": "a", "an empty database": "b"} {
		for _, late := range []bool{false, true} {
			for at := range n {
				killedAt(t, at, late, after, db)
			}
		}
	}
	t.Logf("killed before and after each of %d calls", n)
}

// killedAt is the story with one kill at a call, after which it goes on with the
// database of that name.
func killedAt(t *testing.T, at int, late bool, after, db string) {
	t.Helper()
	g := ready(t)
	m := g.mortal("a", nil, 0, "")
	g.forge.Fail(func(c forgetest.Call) *forgetest.Fault {
		if c.N == at {
			*m.dead = true
			return &forgetest.Fault{Err: errKilled, Late: late}
		}
		return m.silence()
	})
	m = g.settle(m, db)
	for _, s := range story() {
		s.do(g)
		m = g.settle(m, db)
		g.neverTwo()
		if err := s.check(g); err != nil {
			t.Fatalf("killed at call %d (late: %v), with %s after it: %s: %v", at, late, after, s.name, err)
		}
	}
	m.closeDB()
}

// TestKilledAtEveryCommit ends the process around each commit of bump.db.
func TestKilledAtEveryCommit(t *testing.T) {
	for _, point := range []string{db.BeforeCommit, db.AfterCommit} {
		for at := 1; ; at++ {
			g := ready(t)
			commits := 0
			m := g.mortal("a", &commits, at, point)
			g.forge.Fail(func(forgetest.Call) *forgetest.Fault { return m.silence() })
			m = g.settle(m, "a")
			for _, s := range story() {
				s.do(g)
				m = g.settle(m, "a")
				g.neverTwo()
				if err := s.check(g); err != nil {
					t.Fatalf("killed at commit %d (%s): %s: %v", at, point, s.name, err)
				}
			}
			m.closeDB()
			if commits < at {
				if at < 20 {
					t.Fatalf("the story has only %d commits", at)
				}
				t.Logf("killed at %s of each of %d commits", point, at-1)
				break
			}
		}
	}
}

// TestEveryErrorOfAForge answers each call once with each error there is.
func TestEveryErrorOfAForge(t *testing.T) {
	n := callsOf(t)
	for name, fault := range map[string]error{
		"401": forge.ErrUnauthorized, "403": forge.ErrForbidden, "404": forge.ErrNotFound, "409": forge.ErrMoved, "422": forge.ErrInvalid,
		"exists": forge.ErrExists, "429": &forge.LaterError{After: time.Minute, Err: errors.New("429")}, "502": &forge.LaterError{Err: errors.New("502")},
		"time-out": &forge.LaterError{Err: context.DeadlineExceeded}, "archived": forge.ErrArchived,
	} {
		for _, late := range []bool{false, true} {
			if late && name != "502" && name != "time-out" {
				continue // a forge that says no has not done it
			}
			for at := range n {
				g := ready(t)
				m := g.mortal("a", nil, 0, "")
				g.forge.Fail(func(c forgetest.Call) *forgetest.Fault {
					if c.N != at {
						return nil
					}
					return &forgetest.Fault{Err: fault, Late: late}
				})
				m = g.settle(m, "a")
				for _, s := range story() {
					s.do(g)
					m = g.settle(m, "a")
					g.neverTwo()
					if s.check(g) != nil {
						// What was refused is tried again by the next pass.
						g.clock.Advance(2 * time.Hour)
						m = g.settle(m, "a")
						g.neverTwo()
					}
					if err := s.check(g); err != nil {
						t.Fatalf("%s at call %d (late: %v): %s: %v", name, at, late, s.name, err)
					}
				}
				m.closeDB()
			}
		}
	}
}

// TestTwoReplicas lets another process make a whole pass before each call of
// the first.
func TestTwoReplicas(t *testing.T) {
	n := callsOf(t)
	for at := range n {
		g := ready(t)
		m, other := g.mortal("a", nil, 0, ""), g.mortal("b", nil, 0, "")
		inside := false
		g.forge.Fail(func(c forgetest.Call) *forgetest.Fault {
			if c.N < at || inside {
				return nil
			}
			inside = true
			return &forgetest.Fault{Do: func() { _ = g.try(other.Engine) }}
		})
		g.pass(m.Engine)
		for _, s := range story() {
			s.do(g)
			inside = false
			m = g.settle(m, "a")
			g.neverTwo()
			inside = true
			other = g.settle(other, "b")
			g.neverTwo()
			m = g.settle(m, "a")
			g.neverTwo()
			if err := s.check(g); err != nil {
				t.Fatalf("another process at call %d: %s: %v", at, s.name, err)
			}
		}
		m.closeDB()
		other.closeDB()
	}
}
