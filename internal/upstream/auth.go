package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

// Bounds of tokens.
const (
	// defaultTokenLife holds when the answer does not say (distribution,
	// "Token Authentication": clients should assume 60 seconds).
	defaultTokenLife = time.Minute
	maxTokenLife     = 24 * time.Hour
	maxTokenBody     = 1 << 20
	maxTokens        = 10_000
)

// An Account is whom a registry knows. The zero Account is nobody.
type Account struct {
	// Username; [IdentityToken] says that Password is one.
	Username string
	Password string
}

// IdentityToken is the username of accounts that are a refresh token, which
// only a token server takes (distribution, "OAuth2 Token Authentication"). The
// helpers of Docker write it so.
const IdentityToken = "<token>"

// sign is what one upstream wants to see in Authorization. Safe for
// concurrent use.
type sign struct {
	account func(context.Context) (Account, error) // nil without

	mu     sync.Mutex
	basic  bool // the upstream takes the account itself
	listed bool // it does so for what is of no repository
	tokens map[string]bearer
}

type bearer struct {
	value   string
	expires time.Duration // monotonic
}

// accountOf is how the configured account is read; nil without. Its error
// never holds the password.
func accountOf(c Config) (func(context.Context) (Account, error), error) {
	if c.Account != nil {
		if c.Username != "" || c.Password != "" || c.PasswordFile != "" || c.PasswordEnv != "" {
			return nil, errors.New("an account that is looked up needs no username and no password")
		}
		return c.Account, nil
	}
	password, err := passwordOf(c)
	if err != nil || password == nil {
		return nil, err
	}
	return func(context.Context) (Account, error) {
		p, err := password()
		return Account{c.Username, p}, err
	}, nil
}

// passwordOf is how the configured password is read. Its error never holds it.
func passwordOf(c Config) (func() (string, error), error) {
	switch {
	case c.Password != "":
		if c.Username == "" || c.PasswordFile != "" || c.PasswordEnv != "" {
			return nil, errors.New("a password needs a username, and no other place of it")
		}
		return func() (string, error) { return c.Password, nil }, nil
	case c.PasswordFile != "" && c.PasswordEnv != "":
		return nil, errors.New("both password_file and password_env are set: keep one")
	case c.PasswordFile == "" && c.PasswordEnv == "":
		if c.Username != "" {
			return nil, errors.New("username needs password_file or password_env")
		}
		return nil, nil
	case c.Username == "":
		return nil, errors.New("a password needs a username")
	case c.PasswordEnv != "":
		return func() (string, error) {
			if p := c.Getenv(c.PasswordEnv); p != "" {
				return p, nil
			}
			return "", fmt.Errorf("the environment has no %s, which password_env names", c.PasswordEnv)
		}, nil
	}
	return func() (string, error) {
		b, err := os.ReadFile(c.PasswordFile)
		if err != nil {
			return "", fmt.Errorf("read the password of %s: %w", c.Host, err)
		}
		return strings.TrimRight(string(b), "\r\n"), nil
	}, nil
}

// who is the account to sign on with now, or nobody.
func (s *sign) who(ctx context.Context) (Account, error) {
	if s.account == nil {
		return Account{}, nil
	}
	return s.account(ctx)
}

// add puts what is known to be wanted into a request for what a token is granted for, and
// reports whether that was anything.
func (s *sign) add(req *http.Request, q Question, granted string, now time.Duration) (bool, error) {
	s.mu.Lock()
	t, basic := s.tokens[granted], s.basic || s.listed && q.Repository == ""
	s.mu.Unlock()
	switch {
	case t.value != "" && now < t.expires:
		req.Header.Set("Authorization", "Bearer "+t.value)
	case basic:
		a, err := s.who(req.Context())
		if err != nil || a.Username == "" {
			return false, err
		}
		req.SetBasicAuth(a.Username, a.Password)
	default:
		return false, nil
	}
	return true, nil
}

// answer does what a 401 asks for, and reports whether it is worth to ask
// again.
func (s *sign) answer(ctx context.Context, u *Client, q Question, h http.Header) (bool, error) {
	a, err := s.who(ctx)
	if err != nil {
		return false, err
	}
	var basic bool
	for _, c := range challenges(h) {
		switch c.scheme {
		case "bearer":
			if q.Repository == "" && c.params["scope"] == "" && a.Username != "" {
				// No token is for that; Cairn is such a registry.
				basic = true
				continue
			}
			t, err := s.fetch(ctx, u, q, a, c.params)
			if err != nil {
				return false, err
			}
			s.mu.Lock()
			if len(s.tokens) >= maxTokens {
				clear(s.tokens)
			}
			s.tokens[u.granted(q)] = t
			s.mu.Unlock()
			return true, nil
		case "basic":
			basic = true
		}
	}
	if basic && a.Username != "" {
		s.mu.Lock()
		if q.Repository == "" {
			s.listed = true
		} else {
			s.basic = true
		}
		s.mu.Unlock()
		return true, nil
	}
	return false, nil
}

// forget drops what an upstream no longer accepts.
func (s *sign) forget(granted string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tokens, granted)
}

// fetch asks the token server (distribution, "Token Authentication
// Specification"), as the account if there is one.
func (s *sign) fetch(ctx context.Context, u *Client, ask Question, a Account, params map[string]string) (bearer, error) {
	realm, err := url.Parse(params["realm"])
	if err != nil || realm.Host == "" || realm.Scheme != "https" && realm.Scheme != u.base.Scheme {
		return bearer{}, fmt.Errorf("its sign-on leads to %.100q, which is no address that can be trusted with a password", params["realm"])
	}
	q := realm.Query()
	if params["service"] != "" {
		q.Set("service", params["service"])
	}
	scope := params["scope"]
	if scope == "" && ask.Repository != "" {
		scope = "repository:" + u.path + ask.Repository + ":pull"
		if ask.changes() {
			scope += ",push,delete"
		}
	}
	if scope != "" {
		q.Set("scope", scope)
	}
	req, err := tokenRequest(ctx, realm, q, a)
	if err != nil {
		return bearer{}, err
	}
	req.Header.Set("User-Agent", u.agent)
	asked := u.clock.Mono()
	resp, err := u.http.Do(req)
	if err != nil {
		return bearer{}, &temporary{err}
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		err := fmt.Errorf("its token server %s answers %s", realm.Host, resp.Status)
		if transient(resp.StatusCode) || resp.StatusCode == http.StatusTooManyRequests {
			return bearer{}, &temporary{err}
		}
		return bearer{}, &refusal{err}
	}
	var body struct {
		Token       string  `json:"token"`
		AccessToken string  `json:"access_token"`
		ExpiresIn   float64 `json:"expires_in"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxTokenBody)).Decode(&body); err != nil {
		return bearer{}, fmt.Errorf("its token server %s answers no token", realm.Host)
	}
	t := bearer{value: body.Token}
	if t.value == "" {
		t.value = body.AccessToken
	}
	if t.value == "" || strings.ContainsAny(t.value, "\r\n") {
		return bearer{}, fmt.Errorf("its token server %s answers no token", realm.Host)
	}
	life := defaultTokenLife
	if body.ExpiresIn >= 1 {
		life = time.Duration(min(body.ExpiresIn, maxTokenLife.Seconds()) * float64(time.Second))
	}
	// A tenth early: the upstream's clock and the way there are not ours.
	t.expires = asked + life - life/10
	return t, nil
}

// tokenRequest asks the realm as the account may: by a form for who has a
// refresh token, else by a query.
func tokenRequest(ctx context.Context, realm *url.URL, q url.Values, a Account) (*http.Request, error) {
	if a.Username == IdentityToken {
		q.Set("grant_type", "refresh_token")
		q.Set("client_id", "cairn")
		q.Set("refresh_token", a.Password)
		realm.RawQuery = ""
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, realm.String(), strings.NewReader(q.Encode()))
		if err == nil {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		return req, err
	}
	if a.Username != "" {
		q.Set("account", a.Username)
	}
	realm.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, realm.String(), nil)
	if err == nil && a.Username != "" {
		req.SetBasicAuth(a.Username, a.Password)
	}
	return req, err
}

// A refusal is an answer that will not change by asking again.
type refusal struct{ error }

func (e *refusal) Unwrap() error { return e.error }

// A temporary failure may pass.
type temporary struct{ error }

func (e *temporary) Unwrap() error { return e.error }
