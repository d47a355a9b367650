package gitlab_test

import (
	"testing"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/forge/forgetest"
	"cairn.dev/cairn/internal/forge/gitlab"
	"cairn.dev/cairn/internal/forge/rest"
)

func TestFaults(t *testing.T) {
	forgetest.Sweep(t, forgetest.GitLab, func(t testing.TB, url string, c clock.Clock) forge.Forge {
		d, err := gitlab.New(gitlab.Config{URL: url, Token: rest.Secret{Value: forgetest.GitLabToken}}, gitlab.Deps{Clock: c})
		if err != nil {
			t.Fatal(err)
		}
		return d
	})
}
