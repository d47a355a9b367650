package gitea_test

import (
	"testing"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/forge/forgetest"
	"cairn.dev/cairn/internal/forge/gitea"
	"cairn.dev/cairn/internal/forge/rest"
)

func TestFaults(t *testing.T) {
	forgetest.Sweep(t, forgetest.Gitea, func(t testing.TB, url string, c clock.Clock) forge.Forge {
		d, err := gitea.New(gitea.Config{URL: url, Token: rest.Secret{Value: forgetest.GiteaToken}}, gitea.Deps{Clock: c})
		if err != nil {
			t.Fatal(err)
		}
		return d
	})
}
