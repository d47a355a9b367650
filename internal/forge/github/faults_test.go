package github_test

import (
	"testing"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/forge/forgetest"
	"cairn.dev/cairn/internal/forge/github"
	"cairn.dev/cairn/internal/forge/rest"
)

func TestFaults(t *testing.T) {
	forgetest.Sweep(t, forgetest.GitHub, func(t testing.TB, url string, c clock.Clock) forge.Forge {
		d, err := github.New(github.Config{URL: url, Token: rest.Secret{Value: forgetest.GitHubToken}}, github.Deps{Clock: c})
		if err != nil {
			t.Fatal(err)
		}
		return d
	})
}
