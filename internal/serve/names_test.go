package serve

import (
	"reflect"
	"testing"
)

func TestNames(t *testing.T) {
	n := names{hosts: []string{"127.0.0.1:5080", "registry.example.org"}, copies: map[string]string{"docker.io": "docker.io", "quay.io": "quay.io"}}
	for ref, want := range map[string][]string{
		"alpine":                        {"alpine", "docker.io/library/alpine"},
		"team/app:1":                    {"team/app", "docker.io/team/app"},
		"docker.io/alpine:3":            {"docker.io/library/alpine"},
		"docker.io/team/app":            {"docker.io/team/app"},
		"quay.io/team/app":              {"quay.io/team/app"},
		"127.0.0.1:5080/team/app:1":     {"team/app"},
		"registry.example.org/alpine:1": {"alpine"},
		"ghcr.io/team/app":              nil,
		"Not/A/Name":                    nil,
	} {
		if got := n.Repositories(ref); !reflect.DeepEqual(got, want) {
			t.Errorf("%s may be %q, want %q", ref, got, want)
		}
	}
}
