// Package keep is the process that stands between a worker and somebody's
// program.
//
// It owns the start of a program, the signals it gets, and its end: a keeper
// is the parent of the program and of all that the program leaves behind, so
// that when it reports the end, no process of the program is left. It also
// owns the way into and out of the program's root, because there files may
// belong to users that only the keeper's namespace has. It promises
// that a keeper ends with its worker, however that ends, and its program with
// it. A keeper is the same binary, started again under another name: whoever
// links a worker calls [Main] first. It does not know tasks, servers or leases.
//
// A keeper is for one program after the other. That no program finds anything
// of the one before it holds because
//   - all processes of a PID namespace die by one kill of its first one, which
//     has no children then (killRest);
//   - a root is as it was, or is made so (see [isolate.Inside]);
//   - memory and queues that have names are of an IPC namespace that is left
//     after each program, and keys of the kernel are forbidden (renew, enter);
//   - what others can change of a keeper is looked at (traits): one that is not
//     what it was is spent.
//
// Without namespaces the first and the last of these are all there is.
//
// It is for Linux: elsewhere [Main] does nothing and [New] fails.
package keep

import (
	"errors"
	"io/fs"
	"time"
)

// ErrUser means that the root has no user of the name that is asked for, or
// that a keeper cannot become that one.
var ErrUser = errors.New("no such user")

// A Program is what a keeper starts.
type Program struct {
	// Args is the program and its arguments. A name without a slash is looked
	// for in PATH of Env, inside the keeper's root.
	Args []string `json:"args"`
	Env  []string `json:"env,omitempty"`
	Dir  string   `json:"dir,omitempty"`
	// Setup, if it was not asked for before.
	Setup *Setup `json:"setup,omitempty"`
	// Processes bounds how many there may be of one user at a time, threads
	// included; 0 for the keeper's own limit.
	Processes uint64 `json:"processes,omitempty"`
}

// A Setup is what a program finds when it starts, and who it is.
type Setup struct {
	// User is uid[:gid], or names of the root's own /etc/passwd and /etc/group;
	// the keeper's own user when empty.
	User string `json:"user,omitempty"`
	// Home has the user's home looked for; else [Who] has none.
	Home bool `json:"home,omitempty"`
	// Folders and Files belong to the user.
	Folders []Folder `json:"folders,omitempty"`
	Files   []File   `json:"files,omitempty"`
}

// A Folder to be made; one that is there stays as it is.
type Folder struct {
	Path string      `json:"path"`
	Mode fs.FileMode `json:"mode"`
	// Try: it is no error when it cannot be made. The start of the program
	// says what is missing.
	Try bool `json:"try,omitempty"`
}

// A File with what is in it; one that is there is replaced.
type File struct {
	Path    string      `json:"path"`
	Mode    fs.FileMode `json:"mode"`
	Content []byte      `json:"content"`
}

// Who a program runs as.
type Who struct {
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups,omitempty"`
	Home   string   `json:"home,omitempty"` // as /etc/passwd says; "/" where it does not
}

// An End is how a program ended.
type End struct {
	Exit   int `json:"exit"`             // its exit code, 128+n when signal n killed it
	Signal int `json:"signal,omitempty"` // that killed it; 0 for none
	// Failure says why it was not started; Exit is then 127 when there is no
	// such program, and 126 when it cannot be run.
	Failure string `json:"failure,omitempty"`
	// Left is how many processes it left behind, which were killed.
	Left int `json:"left,omitempty"`
	// Stuck is how many of them did not go, within a time that is enough
	// unless the kernel waits for something: the place is then not clean.
	Stuck int `json:"stuck,omitempty"`
	// Spent: the keeper is not what it was before the program, or not sure of
	// that. It is for no other one; see [Keeper.Spent].
	Spent bool `json:"spent,omitempty"`
}

// killPatience is how long processes that were killed may take to go.
const killPatience = 10 * time.Second
