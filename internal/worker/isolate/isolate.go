// Package isolate gives a task a file system and processes that no other task
// has had.
//
// It owns what isolation means, what of it this machine allows (found by
// trying, see [Find]), and how a fresh root is assembled inside a container
// that is running already. It promises never to give less than it says: where
// a level cannot be had it says why. A root that was made for one task holds
// what the container held when the worker started, and nothing of another
// task; it is used again for others, where it can be seen that it still does (see
// [Inside]). It does not limit what a task uses, keeps no network apart, and is no
// wall against programs that attack the kernel.
//
// It is for Linux: elsewhere everything but [Shared] is refused.
package isolate

import "fmt"

// A Level is how far a task is kept apart from others on the same worker.
type Level string

// The levels, the strongest first.
const (
	// Overlay: a root of its own, assembled from overlays over that of the
	// container, and PID namespace of its own. Several tasks at a time.
	Overlay Level = "overlay"
	// Readonly: the container's root cannot be written, and the few places
	// that can are emptied between tasks. One task at a time.
	Readonly Level = "readonly"
	// Pod: the container is for one task only.
	Pod Level = "pod"
	// Shared: what a task leaves in files is seen by the next one. Only for
	// those who ask for it by name. No process is left even so.
	Shared Level = "shared"
	// Auto: the first of Overlay, Readonly and Pod that can be had.
	Auto Level = "auto"
)

// ParseLevel reads a level; the empty string is Auto.
func ParseLevel(s string) (Level, error) {
	switch l := Level(s); l {
	case "":
		return Auto, nil
	case Overlay, Readonly, Pod, Shared, Auto:
		return l, nil
	}
	return "", fmt.Errorf("isolation %q: say auto, overlay, readonly, pod or shared", s)
}

// Place is where a worker runs, as whoever configured it knows.
type Place struct {
	// Scratch is a folder that is the worker's alone: no task sees it.
	Scratch string
	// Fresh are folders that tasks may write and that are new for each:
	// emptyDirs, and with Readonly the working directory, too. Files are
	// emptied, with Readonly: those that a container runtime puts there.
	Fresh []string
	// Keep are folders that tasks share on purpose: persistent volumes.
	Keep []string
	// Hide are files and folders that no task may see: the worker's token.
	Hide []string
	// Single: the container is for one task.
	Single bool
	// Bare: all tasks ask for a level without namespaces, so that Overlay is not
	// tried.
	Bare bool
}

// Levels says of each level whether it can be had: nil, or why not.
type Levels map[Level]error

// NoneHere begins the error of Choose where Auto finds nothing: a container
// for that task alone would do.
const NoneHere = "no isolation can be had here"

// Choose is the level that a task gets that asks for want, and whose outputs
// lie at the paths. An error says why there is none, and what would help.
func (l Levels) Choose(want Level, outputs []string, fresh func(path string) bool) (Level, error) {
	if want != Auto {
		if err, known := l[want]; err != nil || !known {
			return "", fmt.Errorf("isolation %s cannot be had here: %w", want, err)
		}
		return want, nil
	}
	if l[Overlay] == nil {
		return Overlay, nil
	}
	readonly := l[Readonly]
	for _, p := range outputs {
		if readonly == nil && !fresh(p) {
			readonly = fmt.Errorf("its output %s is not in a place that tasks may write", p)
		}
	}
	if readonly == nil {
		return Readonly, nil
	}
	if l[Pod] == nil {
		return Pod, nil
	}
	return "", fmt.Errorf(NoneHere+": overlay: %w; readonly: %w; pod: %w; a task that may see what others left asks for isolation: shared", l[Overlay], readonly, l[Pod])
}
