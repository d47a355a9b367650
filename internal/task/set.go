package task

import "strings"

// also stands between what failed first in a [Set] and the others that did.
const also = "; so did "

// SetMessage says why a [Set] failed: what became of the container that failed
// first, and which others did.
func SetMessage(first, what string, others []string) string {
	m := "container " + first + ": " + what
	if len(others) > 0 {
		m += also + strings.Join(others, ", ")
	}
	return m
}

// SetFailed are the containers that failed by such a message; none where it is
// another one.
func SetFailed(message string) []string {
	rest, is := strings.CutPrefix(message, "container ")
	first, what, named := strings.Cut(rest, ": ")
	if !is || !named {
		return nil
	}
	names := []string{first}
	if i := strings.LastIndex(what, also); i >= 0 {
		names = append(names, strings.Split(what[i+len(also):], ", ")...)
	}
	return names
}
