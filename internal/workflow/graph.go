// Package workflow is what a run is to do: a graph of templates, and the
// documents that people write it in.
//
// It owns the graph, the values that flow through it, and the front end of
// Cairn's own documents (Argo's is the package argo below it). It promises to
// be pure, that everything wrong in a document is told when it is handed in,
// with its place, that nothing in one is silently ignored, and that values are
// handed on as values and never pasted into text and read again. It runs
// nothing: work interprets the graph.
package workflow

import (
	"time"

	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/workflow/document"
)

// A Value is what JSON knows: nil, bool, float64, string, []any, map[string]any,
// and *File for what is too large for that.
type Value = any

// A File is an artifact: a blob of the server's, or a source it can fetch.
type File struct {
	Name   string       `json:"name,omitempty"` // its last part, where it was listed
	Digest string       `json:"digest,omitempty"`
	Size   int64        `json:"size,omitempty"`
	Folder bool         `json:"folder,omitempty"`
	Source *task.Source `json:"source,omitempty"`
}

// Field is what a Scope has below a file: its name and its size.
func (f *File) Field(name string) (Value, bool) {
	switch name {
	case "name":
		return f.Name, true
	case "size":
		return float64(f.Size), true
	}
	return nil, false
}

// A Scope is what an expression may see. The engine builds it; its names are
// those of Argo, which ours are a part of:
//
//	inputs.parameters.NAME, inputs.artifacts.NAME
//	tasks.NAME (and steps.NAME): status, id, exitCode, startedAt, finishedAt,
//	    outputs.result, outputs.parameters.NAME, outputs.artifacts.NAME, and of
//	    daemons ip
//	item, workflow.{name,namespace,uid,parameters.*,status,failures,duration,…}
//	retries, lastRetry.{exitCode,status,duration,message}, pod.name, node.name
type Scope interface {
	// Lookup returns the value at the path, and whether there is one.
	Lookup(path ...string) (Value, bool)
}

// An Expr is an expression of a front end, checked when the document was handed
// in. Eval is pure and of bounded cost; it is safe for concurrent use.
type Expr interface {
	Eval(Scope) (Value, error)
	// String is the expression as people wrote it.
	String() string
}

// A Graph is a workflow, ready to run. It is never changed.
type Graph struct {
	Front     string // "cairn" or "argo": how it was written
	Name      string // with a "-" at its end a name is made from it
	Namespace string
	Labels    map[string]string
	Entry     string // the template that the run is
	Args      map[string]Value
	// Required are parameters of the run without a value: whoever starts it
	// gives them.
	Required  []string
	Templates map[string]*Template
	// OnExit is a template that runs when all else has ended; "" for none.
	OnExit string
	Hooks  []Hook
	// Parallelism bounds tasks at a time; 0: no bound of its own.
	Parallelism int
	Priority    int
	Deadline    time.Duration // from the start; 0 for none
	Locks       []Lock
	// Keep is how long the finished run, its logs and artifacts stay; 0: the
	// server's setting.
	Keep time.Duration
	// KeepFailed is in its place for a run that did not succeed; 0: Keep.
	KeepFailed time.Duration
	// RetryBudget is the share of a run's tasks (in percent) that may be
	// retried before the run fails; 0: the server's.
	RetryBudget int
	Suspended   bool // begins suspended
	Isolation   string
	// Cluster is why only a cluster can run it; "" where any pool can.
	Cluster string
	// Documents are what it was compiled from, templates that it refers to
	// included: compiled again, they give this graph.
	Documents []byte
}

// A Template is something that can be called. Exactly one of Leaf, DAG, Suspend
// is set.
type Template struct {
	Name    string
	Inputs  []Input
	Outputs []Output

	Leaf    Leaf
	DAG     *DAG
	Suspend *Suspend

	Retry       *Retry
	Timeout     time.Duration // of each attempt, waiting included
	Parallelism int           // of the calls in a DAG, their descendants not included
	FailFast    bool          // of a DAG: the first failure keeps what has not begun from beginning
	Locks       []Lock
	Memo        *Memo
	// Daemon, of a leaf: whoever waits for a call of it goes on as soon as the
	// program serves, and it is ended with the DAG that called it.
	Daemon bool
}

// A Leaf makes a task from what a call hands to it.
type Leaf interface {
	// Render fills everything in. It is pure.
	Render(Scope) (*task.Task, error)
	// Images are the references that it may run, as far as they are known
	// without running: for the ledger.
	Images() []string
}

// A Reader is a Leaf whose task ends with an object ([task.Object]), of which it
// makes the task's outputs.
type Reader interface {
	// Read is pure and of bounded cost. The object is as JSON, "" where there is
	// none; the outputs are by name.
	Read(object string) (map[string]task.Produced, error)
}

// A Crew is a Leaf whose task may be several containers.
type Crew interface {
	// Set says which; nil for one alone. It is not to be changed.
	Set() *task.Set
}

// An Input is a parameter or artifact of a template.
type Input struct {
	Name     string
	Artifact bool
	Type     string // json, lines, text, file, folder; "" is text
	Default  Expr   // nil: must be given, unless Optional
	Optional bool
	Enum     []string
}

// An Output of a template. A leaf's are collected by its task (task.Output,
// which Render returns); From is for those of a DAG or computed ones.
type Output struct {
	Name     string
	Artifact bool
	Result   bool // outputs.result
	Type     string
	From     Expr
	Default  Expr
	Global   string // also workflow.outputs.…
}

// A DAG calls templates.
type DAG struct {
	Calls []*Call
	// Targets are the calls that matter; all when empty. Target is in their
	// place where they are not known before: their names, apart by spaces.
	Targets []string
	Target  Expr
}

// A Call is one box of a DAG. Calls with equal names do not exist.
type Call struct {
	Name     string
	Template string // key in Graph.Templates
	Args     []Arg
	// Needs are the calls that must have ended before; Depends then says
	// whether this one begins (nil: all of them succeeded, were skipped, or
	// their failure was allowed). It sees needs.NAME.{Succeeded,Failed,Errored,
	// Skipped,Omitted,Daemoned,AnySucceeded,AllFailed} as booleans.
	Needs   []string
	Depends Expr
	// When is looked at once it could begin; false skips it.
	When Expr
	Each *Each
	// AllowFailed and AllowError: its failing does not fail the DAG.
	AllowFailed, AllowError bool
	Hooks                   []Hook
	// OnExit is a template that runs when it has ended.
	OnExit     string
	OnExitArgs []Arg
}

// An Arg hands a value to an input.
type Arg struct {
	Name     string
	Artifact bool
	Value    Expr // an artifact's is a *File
}

// Each calls once for each item, which the scope has as "item". One of Items and
// Source is set.
type Each struct {
	Items Expr // a list, or a *File that holds one (a JSON array or lines)
	// Count makes items of numbers without writing them down.
	Count *Sequence
	// Source lists what is elsewhere: the files of a folder or of a prefix.
	Source      *List
	Parallelism int
}

// A Sequence is numbers as items.
type Sequence struct {
	Start, End, Count Expr
	Format            string // %04X
}

// A List is files as items: each is a *File with a name. The server lists it.
type List struct {
	Files Expr // a path on the server's machine, or an artifact that is a folder
	S3    Expr // s3://bucket/prefix
	Match string
}

// Suspend waits for somebody, or for a time.
type Suspend struct {
	For Expr // a duration; nil: for somebody
	// Supplied are outputs that whoever resumes it has to give.
	Supplied []string
}

// Retry says how attempts that failed are repeated.
type Retry struct {
	Limit Expr // how many more attempts; nil: no limit but the run's budget
	// On is "failure" (the program failed), "error", "always" or "transient".
	On       string
	When     Expr // sees lastRetry; nil: always
	Delay    time.Duration
	Factor   float64
	MaxDelay time.Duration // of one wait
	For      time.Duration // no further attempt after so long
}

// A Lock is a mutex (Size nil) or semaphore.
type Lock struct {
	Name      Expr
	Namespace string
	// Size of a semaphore; nil for a mutex. It is asked for when waiting.
	Size Expr
}

// Memo remembers outputs by a key.
type Memo struct {
	Key    Expr
	Cache  string
	MaxAge time.Duration
}

// A Hook calls a template when its expression becomes true.
type Hook struct {
	Name     string
	Template string
	Args     []Arg
	When     Expr
}

// A Schedule starts runs of a graph.
type Schedule struct {
	Name, Namespace string
	Crons           []string
	Timezone        string
	// Overlap is "allow", "forbid" or "replace".
	Overlap string
	Suspend bool
	// Late is how long after its time a run may still be started; 0: only on time.
	Late              time.Duration
	KeepGood, KeepBad int
	When, StopWhen    Expr
	Graph             *Graph
	Documents         []byte
}

// A Problem is something wrong in a document, with its place and the cure.
type Problem = document.Problem
