package access

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	tokenLife   = 5 * time.Minute
	tokenPrefix = "ct1."
	// clockSlack is how far in the future a token may have been issued: more
	// means that the clock was set back, and its end can no longer be told.
	clockSlack   = time.Minute
	maxTokenForm = 64 << 10
)

// claims is what an access token says. Accounts are named by id, which no
// later account of the same name shares.
type claims struct {
	Service string  `json:"s"`
	Account string  `json:"n,omitempty"` // empty: anonymous
	ID      int64   `json:"i,omitempty"`
	Robot   string  `json:"k,omitempty"` // cluster/namespace/name of a ServiceAccount
	Issued  int64   `json:"t"`
	Expires int64   `json:"e"`
	Access  []scope `json:"x"`
}

// sign makes the token: prefix, claims and their HMAC-SHA256, each in base64url.
func (g *Guard) sign(c claims) (string, error) {
	b, err := json.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("write access token: %w", err)
	}
	body := tokenPrefix + base64.RawURLEncoding.EncodeToString(b)
	token := body + "." + base64.RawURLEncoding.EncodeToString(g.mac(body))
	if len(token) > maxAuthorization-len("Bearer ") {
		return "", errors.New("the access token would be too long: ask for fewer repositories in one token")
	}
	return token, nil
}

// mac covers the prefix, so that no other thing signed with the same key can
// be taken for a token.
func (g *Guard) mac(body string) []byte {
	m := hmac.New(sha256.New, g.cfg.Secret)
	m.Write([]byte(body))
	return m.Sum(nil)
}

// verify returns the claims of a token that this server signed. It does not
// look at times or accounts.
func (g *Guard) verify(token string) (c claims, ok bool) {
	i := strings.LastIndexByte(token, '.')
	if len(token) > maxAuthorization || !strings.HasPrefix(token, tokenPrefix) || i < len(tokenPrefix) {
		return c, false
	}
	// Exactly one text per token: Strict, and no line breaks, which the decoder skips.
	if strings.ContainsAny(token, "\r\n") {
		return c, false
	}
	sum, err := base64.RawURLEncoding.Strict().DecodeString(token[i+1:])
	if err != nil || !hmac.Equal(sum, g.mac(token[:i])) {
		return c, false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(token[len(tokenPrefix):i])
	if err != nil || json.Unmarshal(b, &c) != nil {
		return c, false
	}
	return c, true
}

// checkToken returns who holds the token, or why it is not accepted.
func (g *Guard) checkToken(token string) (*Principal, string) {
	c, ok := g.verify(token)
	now := g.now()
	switch {
	case !ok:
		return nil, "the bearer token is not one of this server: get a new one at the token endpoint, or use an account's secret"
	case c.Service != g.cfg.Service:
		return nil, fmt.Sprintf("the access token is for the service %q", c.Service)
	case now.Unix() >= c.Expires || c.Issued > now.Add(clockSlack).Unix():
		return nil, "the access token expired: get a new one"
	}
	if c.Robot != "" {
		p := g.clusterAccount(c.Robot)
		if p == nil {
			return nil, fmt.Sprintf("the ServiceAccount %q is no longer trusted", c.Robot)
		}
		p.Via, p.limit = ViaToken, c.Access
		return p, ""
	}
	p := &Principal{Via: ViaToken, limit: c.Access}
	if c.Account == "" {
		p.Name, p.Counts, p.Anonymous, p.grants = g.anonymous.Name, g.anonymous.Counts, true, g.anonymous.grants
		return p, ""
	}
	a := g.live()[c.Account]
	if a == nil || a.id != c.ID || a.ended(now) {
		return nil, fmt.Sprintf("the account %q was revoked, expired or got a new secret: log in again", c.Account)
	}
	a.touch(now)
	p.Name, p.Kind, p.Counts, p.grants = a.Name, a.Kind, a.Counts, a.effective()
	return p, ""
}

// tokenReply is the answer of the token endpoint, in the words of both the
// token specification and OAuth 2.
type tokenReply struct {
	Token       string `json:"token"`
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"`
	ExpiresIn   int    `json:"expires_in"`
	IssuedAt    string `json:"issued_at"`
	Scope       string `json:"scope"`
}

// Token is the token endpoint, to be mounted at [TokenPath].
//
// GET takes Basic credentials, or none for an anonymous token, and the query
// parameters of the docker token specification. POST takes the OAuth 2 form:
// grant_type=password with username and password, or grant_type=refresh_token
// with an account's secret as refresh_token. The token is for the intersection
// of what is asked for and what the account may do; asking for more is no error.
// No refresh tokens are issued, whatever offline_token or access_type say: the
// secret of an account already is a thing that can be kept, scoped and revoked.
func (g *Guard) Token() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		var (
			p      *Principal
			err    error
			values []string
		)
		switch r.Method {
		case http.MethodGet, http.MethodHead:
			p, err = g.Authenticate(r)
			values = r.URL.Query()["scope"]
		case http.MethodPost:
			r.Body = http.MaxBytesReader(w, r.Body, maxTokenForm)
			if e := r.ParseForm(); e != nil {
				tokenError(w, http.StatusBadRequest, "invalid_request", "the form cannot be read: "+e.Error())
				return
			}
			values = r.PostForm["scope"]
			switch gt := r.PostForm.Get("grant_type"); {
			case r.Header.Get("Authorization") != "":
				p, err = g.Authenticate(r)
			case g.cfg.Open:
				p = g.open
			case gt == "password":
				p, err = g.login(r, r.PostForm.Get("username"), r.PostForm.Get("password"))
			case gt == "refresh_token":
				secret := r.PostForm.Get("refresh_token")
				name, _ := secretAccount(secret)
				p, err = g.login(r, name, secret)
			default:
				tokenError(w, http.StatusBadRequest, "unsupported_grant_type", fmt.Sprintf("grant_type %.40q: use password, or refresh_token with the secret of an account", gt))
				return
			}
		default:
			w.Header().Set("Allow", "GET, POST")
			tokenError(w, http.StatusMethodNotAllowed, "invalid_request", "use GET or POST")
			return
		}
		if err == nil && p.Via == ViaToken && !p.Anonymous {
			// Else one leaked token would live for ever.
			err = refused("an access token cannot be used to get another one: log in with the account's secret")
		}
		if err != nil {
			g.refuseToken(w, err)
			return
		}
		scopes, err := parseScopes(values)
		if err != nil {
			tokenError(w, http.StatusBadRequest, "invalid_scope", err.Error())
			return
		}
		reply, err := g.issue(p, intersect(scopes, p))
		if err != nil {
			tokenError(w, http.StatusBadRequest, "invalid_scope", err.Error())
			return
		}
		writeJSON(w, http.StatusOK, "application/json", reply)
	})
}

// TokenPath is where clients are sent for tokens.
const TokenPath = "/auth/token"

func (g *Guard) issue(p *Principal, access []scope) (*tokenReply, error) {
	now := g.now()
	c := claims{Service: g.cfg.Service, Issued: now.Unix(), Expires: now.Add(tokenLife).Unix(), Access: access}
	switch {
	case p.Cluster != "":
		c.Robot = p.Name
		if !p.until.IsZero() { // no longer than the token it was given for
			c.Expires = min(c.Expires, p.until.Unix())
		}
	case !p.Anonymous:
		a := g.live()[p.Name]
		if a == nil {
			return nil, fmt.Errorf("the account %q was revoked", p.Name)
		}
		c.Account, c.ID = a.Name, a.id
	}
	token, err := g.sign(c)
	if err != nil {
		return nil, err
	}
	var words []string
	for _, s := range access {
		words = append(words, s.String())
	}
	return &tokenReply{Token: token, AccessToken: token, TokenType: "Bearer", ExpiresIn: int(c.Expires - c.Issued),
		IssuedAt: now.Format(time.RFC3339), Scope: strings.Join(words, " ")}, nil
}

func (g *Guard) refuseToken(w http.ResponseWriter, err error) {
	var e *Error
	if !errors.As(err, &e) {
		e = refused(err.Error())
	}
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", RetryAfter(e.RetryAfter))
	}
	if e.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", basicChallenge)
	}
	tokenError(w, e.Status, "invalid_grant", e.Why)
}

// RetryAfter is the value of a Retry-After header that says d.
func RetryAfter(d time.Duration) string {
	return strconv.Itoa(int(math.Ceil(max(d.Seconds(), 1))))
}

// tokenError answers in the form of OAuth 2 and of the distribution
// specification at once: clients read either.
func tokenError(w http.ResponseWriter, status int, code, why string) {
	oci := "UNAUTHORIZED"
	switch status {
	case http.StatusTooManyRequests:
		oci = "TOOMANYREQUESTS"
	case http.StatusBadRequest, http.StatusMethodNotAllowed:
		oci = "UNSUPPORTED"
	}
	writeJSON(w, status, "application/json", map[string]any{
		"error": code, "error_description": why,
		"errors": []map[string]string{{"code": oci, "message": why}},
	})
}

func writeJSON(w http.ResponseWriter, status int, contentType string, v any) {
	b, err := json.Marshal(v)
	if err != nil { // only plain values come here
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	w.Write(b)
}
