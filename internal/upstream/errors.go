package upstream

import (
	"fmt"
	"time"
)

// A Kind tells the ways in which an image cannot be had from its upstream.
type Kind uint8

// The kinds of an [Error].
const (
	// UnknownHost: nobody configured a mirror of it.
	UnknownHost Kind = iota + 1
	// NotAllowed: the mirror's allow list does not name the repository.
	NotAllowed
	// NotFound: the upstream does not have it, or not for us, and it is not here.
	NotFound
	// Busy: the upstream asked to be left alone for a while (429).
	Busy
	// Unreachable: the upstream did not answer, or answered nonsense.
	Unreachable
)

// An Error says why something cannot be had from an upstream, in words for
// the client who asked.
type Error struct {
	Kind Kind
	Host string
	Why  string
	// Status is that of the answer; 0 when there was none.
	Status int
	// RetryAfter is how long to wait, of a Busy upstream.
	RetryAfter time.Duration
	// Cause is what the network said, of an Unreachable upstream; it may be nil.
	Cause error
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

func (e *Error) Error() string { return e.Why }

// Unreachablef is an [Error] about a registry that does not help.
func Unreachablef(host, format string, args ...any) *Error {
	return &Error{Kind: Unreachable, Host: host, Why: host + " " + fmt.Sprintf(format, args...)}
}
