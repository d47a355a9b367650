package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/internal/image"
	"cairn.dev/cairn/internal/usage"
)

// Server is the [Sink] that is a Cairn server.
type Server struct{ Client *client.Client }

// Report implements [Sink].
func (s Server) Report(ctx context.Context, st usage.Statement) (usage.Receipt, error) {
	r, err := s.Client.Report(ctx, st)
	if p, ok := errors.AsType[*wire.Problem](err); ok && p.Status == http.StatusConflict {
		return usage.Receipt{}, fmt.Errorf("%w: %w", usage.ErrUnknownStatement, err)
	}
	return usage.Receipt{Accepted: r.Accepted, Enrolled: r.Enrolled, Applied: r.Applied, Period: time.Duration(r.Period), Warnings: r.Warnings}, err
}

// Resolve implements [Sink].
func (s Server) Resolve(ctx context.Context, references []string) (map[string][]image.Digest, error) {
	r, err := s.Client.Resolve(ctx, references)
	return r.Digests, err
}

// SecretFile reads the secret anew for each request: a cluster gives its pods a
// new token every hour by changing the file.
func SecretFile(path string) func() (string, error) {
	return func() (string, error) {
		b, err := os.ReadFile(path)
		if err != nil {
			return "", fmt.Errorf("read the token: %w", err)
		}
		s := strings.TrimSpace(string(b))
		if s == "" {
			return "", fmt.Errorf("the token file %s is empty", path)
		}
		return s, nil
	}
}
