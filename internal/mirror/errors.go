package mirror

import "cairn.dev/cairn/internal/upstream"

// The kinds of an [Error].
const (
	UnknownHost = upstream.UnknownHost
	NotAllowed  = upstream.NotAllowed
	NotFound    = upstream.NotFound
	Busy        = upstream.Busy
	Unreachable = upstream.Unreachable
)

// An Error says why something cannot be had from an upstream, in words for
// the client who asked.
type Error = upstream.Error

// copyInstead is what a client is told who gets the copy instead. People read it.
func copyInstead(e *Error) string { return e.Why + "; this is the copy that is here" }

func unreachable(host, format string, args ...any) *Error {
	return upstream.Unreachablef(host, format, args...)
}
