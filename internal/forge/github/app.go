package github

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/forge"
	"cairn.dev/cairn/internal/forge/rest"
)

const (
	// renewBefore a token ends: whoever got it still has to use it.
	renewBefore = 5 * time.Minute
	// statementLife is less than the ten minutes that GitHub allows; it begins a
	// minute ago, because clocks differ.
	statementLife, statementSkew = 8 * time.Minute, time.Minute
)

// app signs on as a GitHub App: with statements signed by its key where it
// speaks for itself, else with tokens of its installations, which last an hour.
type app struct {
	id    string
	key   rest.Secret
	rest  *rest.Client
	api   string
	clock clock.Clock
	where rest.Memo[string, int64] // installations by repository

	mu     sync.Mutex
	tokens map[int64]token
}

type token struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expires_at"`
}

func newApp(c App, config rest.Config, api string) (*app, error) {
	a := &app{id: c.ID, key: c.Key, api: api, clock: config.Clock, tokens: map[int64]token{}}
	if _, err := a.statement(); err != nil {
		return nil, err
	}
	config.Sign = func(_ context.Context, as string, h http.Header) error {
		h.Set("X-GitHub-Api-Version", "2022-11-28")
		if as != "" { // a token that is at hand
			h.Set("Authorization", "Bearer "+as)
			return nil
		}
		s, err := a.statement()
		h.Set("Authorization", "Bearer "+s)
		return err
	}
	var err error
	a.rest, err = rest.New(config)
	return a, err
}

// statement says who we are, signed with our key: a JWT with RS256 (RFC 7519, RFC 7518 3.3).
func (a *app) statement() (string, error) {
	text, err := a.key.Read()
	if err != nil {
		return "", err
	}
	key, err := parseKey([]byte(text))
	if err != nil {
		return "", err
	}
	now := a.clock.Now()
	claims, err := json.Marshal(map[string]any{"iss": a.id, "iat": now.Add(-statementSkew).Unix(), "exp": now.Add(statementLife).Unix()})
	if err != nil {
		return "", err
	}
	b64 := base64.RawURLEncoding.EncodeToString
	s := b64([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + b64(claims)
	sum := sha256.Sum256([]byte(s))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		return "", fmt.Errorf("sign with the key of the app: %w", err)
	}
	return s + "." + b64(signature), nil
}

// parseKey reads both forms of PEM that GitHub's keys come in.
func parseKey(text []byte) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("the key of the app is not in PEM: it begins -----BEGIN RSA PRIVATE KEY-----")
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	any, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("the key of the app is no private RSA key") // x509's error could quote it
	}
	key, ok := any.(*rsa.PrivateKey)
	if !ok {
		return nil, errors.New("the key of the app is no private RSA key")
	}
	return key, nil
}

// account is the name under which an app writes.
func (a *app) account(ctx context.Context) (string, error) {
	var me struct {
		Slug string `json:"slug"`
	}
	err := a.rest.JSON(ctx, rest.Request{Path: a.api + "/app"}, &me)
	return me.Slug + "[bot]", err
}

// token of the installation that a repository belongs to.
func (a *app) token(ctx context.Context, repo string) (string, error) {
	if repo == "" {
		return "", fmt.Errorf("an app has no account of its own: %w", forge.ErrUnsupported)
	}
	id, err := a.where.Get(repo, func() (int64, error) {
		var i struct {
			ID int64 `json:"id"`
		}
		owner, name, err := forge.SplitRepository(repo)
		if err != nil {
			return 0, err
		}
		err = a.rest.JSON(ctx, rest.Request{Path: a.api + "/repos" + rest.Path(owner, name) + "/installation"}, &i)
		if errors.Is(err, forge.ErrNotFound) {
			err = fmt.Errorf("is the app installed for %s? %w", repo, err)
		}
		return i.ID, err
	})
	if err != nil {
		return "", err
	}
	t, err := a.installation(ctx, id)
	if errors.Is(err, forge.ErrNotFound) {
		a.where.Forget(repo) // it was taken away, and perhaps installed again
	}
	return t, err
}

// installation is a token of an installation, made anew before it ends. One
// request makes it, however many wait: so the lock is held meanwhile.
func (a *app) installation(ctx context.Context, id int64) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if t, ok := a.tokens[id]; ok && a.clock.Now().Before(t.Expires.Add(-renewBefore)) {
		return t.Token, nil
	}
	var t token
	// A second token does no harm: it may be asked for again.
	err := a.rest.JSON(ctx, rest.Request{Method: "POST", Path: fmt.Sprintf("%s/app/installations/%d/access_tokens", a.api, id), Asks: true}, &t)
	if err != nil {
		return "", err
	}
	if t.Token == "" {
		return "", &forge.LaterError{Err: errors.New("ask for a token of the installation: none is in the answer")}
	}
	a.tokens[id] = t
	return t.Token, nil
}

// repositories of all installations.
func (a *app) repositories(ctx context.Context) ([]repository, error) {
	type one struct {
		ID        int64      `json:"id"`
		Suspended *time.Time `json:"suspended_at"`
	}
	var ids []one
	whole, err := a.rest.Pages(ctx, rest.Request{Path: a.api + "/app/installations", Query: url.Values{"per_page": {"100"}}}, maxPages, func(page json.RawMessage) (bool, error) {
		var some []one
		err := json.Unmarshal(page, &some)
		ids = append(ids, some...)
		return true, err
	})
	if err != nil {
		return nil, err
	}
	var all []repository
	for _, i := range ids {
		if i.Suspended != nil {
			continue
		}
		t, err := a.installation(ctx, i.ID)
		if err != nil {
			return nil, err
		}
		some, err := a.rest.Pages(ctx, rest.Request{Path: a.api + "/installation/repositories", Query: url.Values{"per_page": {"100"}}, As: t}, maxPages, func(page json.RawMessage) (bool, error) {
			var r struct {
				Repositories []repository `json:"repositories"`
			}
			err := json.Unmarshal(page, &r)
			all = append(all, r.Repositories...)
			return true, err
		})
		if err != nil {
			return nil, err
		}
		whole = whole && some
	}
	if !whole {
		return nil, fmt.Errorf("list repositories: there are more than %d; name them in the configuration: %w", len(all), forge.ErrInvalid)
	}
	return all, nil
}
