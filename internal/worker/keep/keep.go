// Package keep is the process that stands between a worker and somebody's
// program.
//
// It owns the start of a program, the signals it gets, and its end: a keeper
// is the parent of the program and of all that the program leaves behind, so
// that when it reports the end, no process of the program is left. It promises
// that a keeper ends with its worker, however that ends, and its program with
// it. A keeper is the same binary, started again under another name: whoever
// links a worker calls [Main] first. It does not know tasks, servers or leases.
//
// It is for Linux: elsewhere [Main] does nothing and [New] fails.
package keep

import "time"

// A Program is what a keeper starts.
type Program struct {
	// Args is the program and its arguments. A name without a slash is looked
	// for in PATH of Env, inside the keeper's root.
	Args []string `json:"args"`
	Env  []string `json:"env,omitempty"`
	Dir  string   `json:"dir,omitempty"`
	// User and Groups it runs as; the keeper's own when nil.
	User *User `json:"user,omitempty"`
}

// A User is who a program runs as.
type User struct {
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups,omitempty"`
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
}

// killPatience is how long processes that were killed may take to go.
const killPatience = 10 * time.Second
