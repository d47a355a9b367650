package machine

import (
	"cairn.dev/cairn/internal/workflow"
)

// An Effect is something that the run wants of the world. Those that ask
// ([List], [Fetch], [Gather], [Lock], [Recall]) are answered by an event, and
// are repeated by [Machine.Requests] after a restart.
type Effect interface{ effect() }

// Keep stores the outputs of an item of a fan-out, in the transaction of the
// event. It may come again for the same item, and then replaces.
type Keep struct {
	Node, Item uint32
	Outputs    map[string]workflow.Value
}

// List wants the items of a fan-out. One of Value, Files and S3 is set.
type List struct {
	Node      uint32
	Value     workflow.Value // a list, a text that holds one, or a *workflow.File
	Files, S3 workflow.Value
	Match     string
}

// Fetch wants items of the list that [Listed] named.
type Fetch struct {
	Node, From, Count uint32
	Ref               string
}

// Gather wants the outputs that were kept for a node's items.
type Gather struct{ Node uint32 }

// A Lock is wanted by a node. Size is 1 for a mutex.
type Lock struct {
	Node, Lock      uint32
	Namespace, Name string
	Size            int
}

// Unlock gives one up, or the wish for it.
type Unlock struct {
	Node, Lock      uint32
	Namespace, Name string
}

// Recall wants to know whether outputs are remembered under the key.
type Recall struct {
	Node       uint32
	Cache, Key string
	MaxAgeMS   int64 // 0: any
}

// Remember keeps outputs under the key.
type Remember struct {
	Cache, Key string
	Outputs    map[string]workflow.Value
}

// Stop wants the attempt ended by its worker.
type Stop struct{ Node, Item, Attempt uint32 }

// Finished says that the run has ended. Nothing comes after it but [Retried].
type Finished struct{ Phase Phase }

func (Keep) effect()     {}
func (List) effect()     {}
func (Fetch) effect()    {}
func (Gather) effect()   {}
func (Lock) effect()     {}
func (Unlock) effect()   {}
func (Recall) effect()   {}
func (Remember) effect() {}
func (Stop) effect()     {}
func (Finished) effect() {}
