package worktest

import (
	"fmt"
	"math/rand/v2"
	"time"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/workflow"
)

// Random is a workflow made of a seed: calls that need each other, fan-outs,
// conditions, retries, locks, memories, waits, daemons, hooks and exit handlers. The
// same seed gives the same workflow.
func Random(seed uint64) *workflow.Graph {
	b := &maker{rng: rand.New(rand.NewPCG(seed, 7)), templates: map[string]*workflow.Template{}}
	b.dag("main", 0)
	g := Graph(fmt.Sprintf("random-%d", seed), b.templates)
	if b.one(4) {
		g.OnExit = b.leaf()
	}
	if b.one(5) {
		g.Hooks = append(g.Hooks, workflow.Hook{Name: "h", Template: b.leaf(), When: Is("workflow.status", "Failed")})
	}
	if b.one(4) {
		g.Parallelism = 1 + b.rng.IntN(4)
	}
	if b.one(8) {
		g.Deadline = time.Duration(1+b.rng.IntN(60)) * time.Second
	}
	if b.one(8) {
		g.Locks = append(g.Locks, b.lock("run-"))
	}
	g.Priority = b.rng.IntN(2)
	if b.one(3) {
		g.Namespace = "other"
	}
	return g
}

type maker struct {
	rng       *rand.Rand
	templates map[string]*workflow.Template
}

func (b *maker) one(in int) bool { return b.rng.IntN(in) == 0 }

// lock is one of those of a level: who holds one of an inner level never waits
// for one of an outer, so that nobody waits for each other.
func (b *maker) lock(level string) workflow.Lock {
	l := workflow.Lock{Name: Lit(level + string(rune('a'+b.rng.IntN(2))))}
	if b.one(2) { // the size of one name is always the same
		l = workflow.Lock{Name: Lit(level + "s"), Size: Lit(2.0)}
	}
	return l
}

func (b *maker) leaf() string {
	name := fmt.Sprintf("t%d", len(b.templates))
	t := Task()
	t.Inputs = []workflow.Input{{Name: "n", Default: Lit("0")}}
	if b.one(2) {
		t.Retry = &workflow.Retry{Limit: Lit(float64(b.rng.IntN(3))), On: []string{"", "always", "error"}[b.rng.IntN(3)], Delay: time.Duration(b.rng.IntN(3)) * time.Second, Factor: 2}
	}
	if b.one(5) {
		t.Locks = append(t.Locks, b.lock("task-"))
	}
	t.Daemon = b.one(6)
	if b.one(8) && !t.Daemon {
		t.Memo = &workflow.Memo{Key: Lit("k"), Cache: "c"}
	}
	if b.one(8) {
		t.Timeout = time.Duration(1+b.rng.IntN(20)) * time.Second
	}
	if b.one(2) {
		t.Outputs = []workflow.Output{{Name: "result", Result: true}}
		l := t.Leaf.(Leaf)
		l.Outs = []task.Output{{Name: "result", Kind: task.Result}}
		t.Leaf = l
	}
	b.templates[name] = t
	return name
}

func (b *maker) template(depth int) string {
	switch {
	case depth < 2 && b.one(4):
		return b.dag(fmt.Sprintf("d%d", len(b.templates)), depth+1)
	case b.one(8):
		name := fmt.Sprintf("s%d", len(b.templates))
		t := &workflow.Template{Suspend: &workflow.Suspend{}}
		if b.one(2) {
			t.Suspend.For = Lit(fmt.Sprintf("%ds", b.rng.IntN(20)))
		}
		b.templates[name] = t
		return name
	}
	return b.leaf()
}

func (b *maker) dag(name string, depth int) string {
	b.templates[name] = nil // its place, so that names below it are others
	t := DAG()
	t.FailFast = b.one(2)
	if b.one(4) {
		t.Parallelism = 1 + b.rng.IntN(3)
	}
	if depth > 0 && b.one(4) {
		t.Retry = &workflow.Retry{Limit: Lit(float64(b.rng.IntN(2))), On: "always"}
	}
	if depth > 0 && b.one(6) {
		t.Locks = append(t.Locks, b.lock(fmt.Sprintf("dag%d-", depth)))
	}
	if depth > 0 && b.one(8) {
		t.Timeout = time.Duration(1+b.rng.IntN(30)) * time.Second
	}
	for i := range 1 + b.rng.IntN(4) {
		c := Call(fmt.Sprintf("c%d", i), b.template(depth))
		for k := range i {
			if b.one(2) {
				c.Needs = append(c.Needs, fmt.Sprintf("c%d", k))
			}
		}
		if len(c.Needs) > 0 && b.one(5) {
			c.Depends = Is("needs."+c.Needs[0]+"."+[]string{"Failed", "Succeeded", "AnySucceeded", "Omitted"}[b.rng.IntN(4)], true)
		}
		if b.one(3) {
			c.Each = &workflow.Each{Count: &workflow.Sequence{Count: Lit(float64(b.rng.IntN(6)))}}
			if b.one(3) {
				c.Each = &workflow.Each{Items: Lit([]any{"x", "y", "z"})}
			}
			if b.one(3) {
				c.Each.Parallelism = 1 + b.rng.IntN(2)
			}
			if b.templates[c.Template].Leaf != nil {
				With(c, "n", Ref("item"))
			}
		}
		switch {
		case b.one(8) && c.Each == nil:
			c.When = Lit(false)
		case b.one(12):
			c.When = Ref("item.nothing") // an error, but where it is not looked at
		}
		c.AllowFailed = b.one(5)
		c.AllowError = b.one(8)
		if b.one(8) {
			c.OnExit = b.leaf()
		}
		if b.one(8) {
			c.Hooks = append(c.Hooks, workflow.Hook{Name: "h", Template: b.leaf(), When: Is("tasks."+c.Name+".status", []string{"Running", "Failed", "Succeeded"}[b.rng.IntN(3)])})
		}
		t.DAG.Calls = append(t.DAG.Calls, c)
	}
	if b.one(6) {
		t.DAG.Targets = []string{"c0"}
	}
	b.templates[name] = t
	return name
}
