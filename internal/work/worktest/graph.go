// Package worktest has what tests of work share: graphs made by hand, blobs in
// memory, and workers that do nothing.
//
// It owns no rules: what it makes is as simple as tests need it. It is not for
// programs.
package worktest

import (
	"fmt"
	"strings"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/workflow"
)

// Func is an expression that is a function.
type Func func(workflow.Scope) (workflow.Value, error)

// Eval implements [workflow.Expr].
func (f Func) Eval(s workflow.Scope) (workflow.Value, error) { return f(s) }

func (f Func) String() string { return "a function" }

// Lit is an expression that is always v.
func Lit(v workflow.Value) workflow.Expr {
	return Func(func(workflow.Scope) (workflow.Value, error) { return v, nil })
}

// Ref is an expression that looks a path up, which has to be there.
func Ref(path string) workflow.Expr {
	parts := strings.Split(path, ".")
	return Func(func(s workflow.Scope) (workflow.Value, error) {
		v, ok := s.Lookup(parts...)
		if !ok {
			return nil, fmt.Errorf("there is no %s", path)
		}
		return v, nil
	})
}

// Is is an expression that compares what is at a path.
func Is(path string, v workflow.Value) workflow.Expr {
	x := Ref(path)
	return Func(func(s workflow.Scope) (workflow.Value, error) {
		got, err := x.Eval(s)
		return got == v, err
	})
}

// Leaf is a leaf whose arguments are the parameters named.
type Leaf struct {
	Image string
	Args  []string // names of inputs
	Outs  []task.Output
}

// Render implements [workflow.Leaf].
func (l Leaf) Render(s workflow.Scope) (*task.Task, error) {
	t := &task.Task{Image: l.Image, Outputs: l.Outs}
	for _, name := range l.Args {
		v, ok := s.Lookup("inputs", "parameters", name)
		if !ok {
			return nil, fmt.Errorf("there is no input %q", name)
		}
		t.Args = append(t.Args, fmt.Sprint(v))
	}
	return t, nil
}

// Images implements [workflow.Leaf].
func (l Leaf) Images() []string { return []string{l.Image} }

// Task is a template of one task with inputs of these names.
func Task(inputs ...string) *workflow.Template {
	t := &workflow.Template{Leaf: Leaf{Image: "registry.example/app@sha256:" + strings.Repeat("a", 64), Args: inputs}}
	for _, n := range inputs {
		t.Inputs = append(t.Inputs, workflow.Input{Name: n})
	}
	return t
}

// DAG is a template of calls.
func DAG(calls ...*workflow.Call) *workflow.Template {
	return &workflow.Template{DAG: &workflow.DAG{Calls: calls}}
}

// Call is a call without arguments.
func Call(name, template string, needs ...string) *workflow.Call {
	return &workflow.Call{Name: name, Template: template, Needs: needs}
}

// With gives a call an argument.
func With(c *workflow.Call, name string, v workflow.Expr) *workflow.Call {
	c.Args = append(c.Args, workflow.Arg{Name: name, Value: v})
	return c
}

// Graph is a workflow whose entry is the template "main". Its documents are
// its name, by which [Graphs] finds it again.
func Graph(name string, templates map[string]*workflow.Template) *workflow.Graph {
	for k, t := range templates {
		t.Name = k
	}
	return &workflow.Graph{Front: "cairn", Name: name, Namespace: "default", Entry: "main", Templates: templates, Documents: []byte(name)}
}

// Graphs compiles documents that are names of graphs.
type Graphs map[string]*workflow.Graph

// Compile is what a server needs.
func (g Graphs) Compile(documents []byte) (*workflow.Graph, error) {
	x, ok := g[string(documents)]
	if !ok {
		return nil, fmt.Errorf("there is no workflow %q", documents)
	}
	return x, nil
}

// Add remembers a graph and returns it.
func (g Graphs) Add(x *workflow.Graph) *workflow.Graph {
	g[string(x.Documents)] = x
	return x
}

// Fan is a workflow of one fan-out of n tasks that are numbers.
func Fan(name string, n int) *workflow.Graph {
	c := With(Call("each", "task"), "n", Ref("item"))
	c.Each = &workflow.Each{Count: &workflow.Sequence{Count: Lit(float64(n))}}
	return Graph(name, map[string]*workflow.Template{"main": DAG(c), "task": Task("n")})
}
