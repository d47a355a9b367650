package access

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"cairn.dev/cairn/internal/clock"
)

const (
	// Keys are read again when a token does not fit them, but not more often
	// than this, whatever forged tokens come by.
	keysAgain = 10 * time.Second
	// keysStale is when they are read again in any case, so that a key that
	// was taken out stops working.
	keysStale   = time.Hour
	maxKeys     = 1 << 20 // bytes of a key set
	keysTimeout = 10 * time.Second
)

// A KeySource brings the public keys of an issuer as a JWK set (RFC 7517).
type KeySource interface {
	Keys(ctx context.Context) ([]byte, error)
}

// KeyFile is a [KeySource] that is a file: what
// `kubectl get --raw /openid/v1/jwks` prints.
type KeyFile string

// Keys implements [KeySource].
func (f KeyFile) Keys(context.Context) ([]byte, error) {
	r, err := os.Open(string(f))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, maxKeys))
}

// KeyURL is a [KeySource] that is fetched by HTTPS.
type KeyURL struct {
	url  string
	http *http.Client
}

// NewKeyURL returns the source at url. caFile, if not empty, names the
// certificates to trust instead of the system's, PEM.
func NewKeyURL(url, caFile string) (*KeyURL, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	if caFile != "" {
		b, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("read the certificates to trust: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("%s holds no certificate in PEM", caFile)
		}
		t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &KeyURL{url, &http.Client{Transport: t, Timeout: keysTimeout}}, nil
}

// Keys implements [KeySource].
func (u *KeyURL) Keys(ctx context.Context) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := u.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s answered %s", u.url, resp.Status)
	}
	return io.ReadAll(io.LimitReader(resp.Body, maxKeys))
}

// noKeys begins the error that no keys could be had, so that nothing can be
// said of a token.
const noKeys = "read the keys of the issuer: "

// A keyring is the keys of one cluster, kept in memory. It implements
// oidc.KeySet.
type keyring struct {
	source KeySource
	clock  clock.Clock

	mu   sync.Mutex
	keys []crypto.PublicKey
	err  error
	read time.Duration // when they were last asked for, on the monotonic clock
	ever bool
}

func newKeyring(s KeySource, c clock.Clock) *keyring { return &keyring{source: s, clock: c} }

// VerifySignature returns what a token says if one of the keys signed it.
func (k *keyring) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	keys, err := k.current(ctx, keysStale)
	if err == nil {
		var b []byte
		if b, err = (&oidc.StaticKeySet{PublicKeys: keys}).VerifySignature(ctx, token); err == nil {
			return b, nil
		}
	}
	// Perhaps a new key signed it.
	keys, again := k.current(ctx, keysAgain)
	if again != nil {
		return nil, again
	}
	return (&oidc.StaticKeySet{PublicKeys: keys}).VerifySignature(ctx, token)
}

// current returns keys that were asked for within age. Where asking fails, the
// old ones are good until they are asked for with success.
func (k *keyring) current(ctx context.Context, age time.Duration) ([]crypto.PublicKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.clock.Mono()
	if k.err != nil {
		age = min(age, keysAgain)
	}
	if !k.ever || now-k.read >= age {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keysTimeout)
		keys, err := k.fetch(ctx)
		cancel()
		k.ever, k.read, k.err = true, now, err
		if err == nil {
			k.keys = keys
		}
	}
	if len(k.keys) == 0 {
		return nil, fmt.Errorf(noKeys+"%w", k.err)
	}
	return k.keys, nil
}

func (k *keyring) fetch(ctx context.Context) ([]crypto.PublicKey, error) {
	b, err := k.source.Keys(ctx)
	if err != nil {
		return nil, err
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(b, &set); err != nil {
		return nil, fmt.Errorf("it is not a JWK set: %w", err)
	}
	var keys []crypto.PublicKey
	for _, key := range set.Keys {
		if key.Valid() && key.IsPublic() && (key.Use == "" || key.Use == "sig") {
			keys = append(keys, key.Key)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("it holds no public key for signatures")
	}
	return keys, nil
}
