package workflow

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// String is the graph for people: what runs after what, and how.
func (g *Graph) String() string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	name := g.Name
	if g.Namespace != "" {
		name = g.Namespace + "/" + name
	}
	say("%s (%s), begins with %s", name, g.Front, g.Entry)
	for _, k := range slices.Sorted(maps.Keys(g.Args)) {
		say("  parameter %s = %s", k, Constant{g.Args[k]})
	}
	if p := facts(fact("parallelism", g.Parallelism), fact("priority", g.Priority), fact("deadline", g.Deadline), fact("keep", g.Keep), fact("keep failed", g.KeepFailed),
		fact("retry budget %", g.RetryBudget), fact("suspended", g.Suspended), fact("isolation", g.Isolation), fact("on exit", g.OnExit), locks(g.Locks)); p != "" {
		say("  %s", p)
	}
	for _, h := range g.Hooks {
		say("  hook %s: %s%s%s", h.Name, h.Template, args(h.Args), when(" when", h.When))
	}
	for _, k := range slices.Sorted(maps.Keys(g.Templates)) {
		g.Templates[k].print(say, k)
	}
	return b.String()
}

func (t *Template) print(say func(string, ...any), key string) {
	say("%s:", key)
	for _, in := range t.Inputs {
		say("  in %s%s", in.Name, prefixed(": ", facts(in.Type, fact("artifact", in.Artifact), fact("optional", in.Optional), when("default", in.Default), fact("enum", strings.Join(in.Enum, "|")))))
	}
	for _, o := range t.Outputs {
		say("  out %s%s", o.Name, prefixed(": ", facts(o.Type, fact("artifact", o.Artifact), fact("result", o.Result), when("from", o.From), when("default", o.Default), fact("global", o.Global))))
	}
	if f := facts(fact("daemon", t.Daemon), fact("timeout", t.Timeout), fact("parallelism", t.Parallelism), locks(t.Locks), t.Retry.describe(), t.Memo.describe()); f != "" {
		say("  %s", f)
	}
	switch {
	case t.Suspend != nil:
		say("  suspends%s%s", when(" for", t.Suspend.For), prefixed(", asks for ", strings.Join(t.Suspend.Supplied, ", ")))
	case t.Leaf != nil:
		say("  runs %s", strings.Join(t.Leaf.Images(), ", "))
	case t.DAG != nil:
		if f := facts(fact("fail fast", t.FailFast), fact("targets", strings.Join(t.DAG.Targets, " ")), when("targets", t.DAG.Target)); f != "" {
			say("  %s", f)
		}
		for _, c := range t.DAG.Calls {
			c.print(say)
		}
	}
}

func (c *Call) print(say func(string, ...any)) {
	say("  - %s: %s%s", c.Name, c.Template, args(c.Args))
	if f := facts(prefixed("after ", strings.Join(c.Needs, ", ")), when("if", c.Depends), when("when", c.When), c.Each.describe(),
		fact("failure allowed", c.AllowFailed), fact("error allowed", c.AllowError)); f != "" {
		say("    %s", f)
	}
	for _, h := range c.Hooks {
		say("    hook %s: %s%s%s", h.Name, h.Template, args(h.Args), when(" when", h.When))
	}
	if c.OnExit != "" {
		say("    on exit: %s%s", c.OnExit, args(c.OnExitArgs))
	}
}

func (e *Each) describe() string {
	if e == nil {
		return ""
	}
	var s string
	switch {
	case e.Items != nil:
		s = "for each of " + e.Items.String()
	case e.Count != nil:
		s = "for each number" + when(" from", e.Count.Start) + when(" to", e.Count.End) + when(" so many:", e.Count.Count) + prefixed(" as ", e.Count.Format)
	case e.Source != nil:
		s = "for each file" + when(" in", e.Source.Files) + when(" in", e.Source.S3) + prefixed(" like ", e.Source.Match)
	}
	return facts(s, fact("at a time", e.Parallelism))
}

func (r *Retry) describe() string {
	if r == nil {
		return ""
	}
	return facts("retries on "+r.On, when("at most", r.Limit), when("when", r.When), fact("delay", r.Delay), fact("factor", r.Factor), fact("longest delay", r.MaxDelay), fact("for", r.For))
}

func (m *Memo) describe() string {
	if m == nil {
		return ""
	}
	return "remembered as " + m.Key.String() + prefixed(" in ", m.Cache) + prefixed(", ", fact("at most", m.MaxAge))
}

func locks(list []Lock) string {
	var out []string
	for _, l := range list {
		out = append(out, "lock "+l.Name.String()+when(" of", l.Size))
	}
	return strings.Join(out, ", ")
}

func args(list []Arg) string {
	if len(list) == 0 {
		return ""
	}
	var out []string
	for _, a := range list {
		out = append(out, a.Name+"="+a.Value.String())
	}
	return "(" + strings.Join(out, ", ") + ")"
}

func when(word string, e Expr) string {
	if e == nil {
		return ""
	}
	return word + " " + e.String()
}

func prefixed(p, s string) string {
	if s == "" {
		return ""
	}
	return p + s
}

// fact is a setting, or nothing when it is not set.
func fact[T comparable](what string, v T) string {
	var zero T
	if v == zero {
		return ""
	}
	switch v := any(v).(type) {
	case bool:
		return what
	case time.Duration:
		return what + " " + v.String()
	}
	return fmt.Sprintf("%s %v", what, v)
}

func facts(list ...string) string {
	return strings.Join(slices.DeleteFunc(list, func(s string) bool { return s == "" }), ", ")
}
