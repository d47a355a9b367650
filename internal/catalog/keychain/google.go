package keychain

import (
	"context"
	"os/exec"

	"github.com/google/go-containerregistry/pkg/authn"
	ggcr "github.com/google/go-containerregistry/pkg/v1/google"

	"cairn.dev/cairn/internal/upstream"
)

// google is the account of this machine at Google: Application Default
// Credentials, or gcloud's. Who has none is nobody, which is enough for public
// images.
func google(ctx context.Context) (upstream.Account, error) {
	a, err := ggcr.NewEnvAuthenticator(ctx)
	if err != nil {
		if _, missing := exec.LookPath("gcloud"); missing != nil {
			return upstream.Account{}, nil
		}
		if a, err = ggcr.NewGcloudAuthenticator(ctx); err != nil {
			return upstream.Account{}, nil
		}
	}
	if a == authn.Anonymous {
		return upstream.Account{}, nil
	}
	return accountOf(ctx, a)
}
