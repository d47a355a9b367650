package task

import (
	"slices"
	"testing"
)

func TestSetMessage(t *testing.T) {
	for _, c := range []struct {
		first, what string
		others      []string
		want        string
	}{
		{"a", "exit code 3", nil, "container a: exit code 3"},
		{"a", "killed: out of memory", []string{"b", "c"}, "container a: killed: out of memory; so did b, c"},
	} {
		got := SetMessage(c.first, c.what, c.others)
		if names := SetFailed(got); got != c.want || !slices.Equal(names, append([]string{c.first}, c.others...)) {
			t.Errorf("%q, of %v", got, names)
		}
	}
	for _, other := range []string{"", "exit code 3", "container", "container x", "start x: no such file"} {
		if names := SetFailed(other); names != nil {
			t.Errorf("%q is of %v", other, names)
		}
	}
}
