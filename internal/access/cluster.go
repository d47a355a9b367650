package access

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"cairn.dev/cairn/internal/image"
)

// clusterName is the word before the names of clusters among reporters.
const clusterName = "cluster"

// DefaultAudience is who tokens for Cairn are meant for, unless configured.
const DefaultAudience = "cairn"

// A Cluster is a Kubernetes cluster whose ServiceAccounts sign on with the
// tokens it gives them, so that no secret has to be put there. A token is
// accepted if the cluster signed it (RS256 or ES256), for Audience, and it has
// not expired. That its pod or account was deleted meanwhile is not seen: the
// tokens that kubelets mount live for an hour.
type Cluster struct {
	Name     string // speaks for reporter cluster/Name
	Issuer   string // as in its tokens (--service-account-issuer)
	Audience string // DefaultAudience when empty
	Keys     KeySource
	// Agents are the ServiceAccounts, as namespace/name, that may report what
	// the cluster uses.
	Agents []string
	// Pull is the globs of repositories that every ServiceAccount of the
	// cluster may pull: nodes pull with the accounts of pods.
	Pull []string
}

// trust is a cluster that is trusted.
type trust struct {
	Cluster
	verifier *oidc.IDTokenVerifier
}

// newTrust checks what is configured.
func newTrust(c Cluster, g *Guard) (*trust, error) {
	fail := func(format string, args ...any) (*trust, error) {
		return nil, fmt.Errorf("cluster %q: %s", c.Name, fmt.Sprintf(format, args...))
	}
	if err := CheckName(c.Name); err != nil {
		return fail("%v", err)
	}
	if c.Issuer == "" {
		return fail("no issuer: it is what the cluster's API server has as --service-account-issuer")
	}
	if c.Keys == nil {
		return fail("no keys to verify its tokens with")
	}
	if c.Audience == "" {
		c.Audience = DefaultAudience
	}
	for _, a := range c.Agents {
		if ns, sa, ok := strings.Cut(a, "/"); !ok || ns == "" || sa == "" || strings.Contains(sa, "/") {
			return fail("agent %q: write namespace/serviceaccount", a)
		}
	}
	for _, p := range c.Pull {
		if err := image.CheckGlob(p); err != nil {
			return fail("pull: %v", err)
		}
	}
	return &trust{c, oidc.NewVerifier(c.Issuer, newKeyring(c.Keys, g.cfg.Clock), &oidc.Config{
		ClientID: c.Audience, SupportedSigningAlgs: []string{oidc.RS256, oidc.ES256}, Now: g.now})}, nil
}

// signed reports whether a secret has the form of a signed token (JWS compact
// serialisation of a JSON header), which no secret of ours has.
func signed(secret string) bool {
	return strings.HasPrefix(secret, "eyJ") && strings.Count(secret, ".") == 2
}

// serviceAccount is the claims of a token that we read.
type serviceAccount struct {
	Subject    string `json:"sub"`
	Kubernetes struct {
		Namespace      string `json:"namespace"`
		ServiceAccount struct {
			Name string `json:"name"`
		} `json:"serviceaccount"`
	} `json:"kubernetes.io"`
}

// clusterLogin checks a ServiceAccount token.
func (g *Guard) clusterLogin(r *http.Request, token string) (*Principal, error) {
	p, name, why := g.checkCluster(r.Context(), token)
	if why != "" {
		return nil, g.failed(r, name, why)
	}
	return p, nil
}

func (g *Guard) checkCluster(ctx context.Context, token string) (p *Principal, name, why string) {
	if len(token) > maxAuthorization {
		return nil, "", fmt.Sprintf("the token is longer than %d bytes", maxAuthorization)
	}
	// Whom it claims to come from says whose keys to try. Clusters that were
	// set up alike claim the same: then it is the keys that tell them apart.
	issuer := unverifiedIssuer(token)
	why = "the token is of no cluster that is configured here (clusters in cairn.yaml)"
	for _, t := range g.clusters {
		if t.Issuer != issuer {
			continue
		}
		id, err := t.verifier.Verify(ctx, token)
		if err != nil {
			name, why = t.Name, whyNot(t, err)
			continue
		}
		var c serviceAccount
		if err := id.Claims(&c); err != nil {
			return nil, t.Name, "the token's claims cannot be read"
		}
		ns, sa := c.Kubernetes.Namespace, c.Kubernetes.ServiceAccount.Name
		if ns == "" || sa == "" || c.Subject != "system:serviceaccount:"+ns+":"+sa {
			return nil, t.Name, fmt.Sprintf("the token is not of a ServiceAccount of the cluster %s", t.Name)
		}
		p := t.principal(ns + "/" + sa)
		if len(p.grants) == 0 {
			return nil, t.Name, fmt.Sprintf("the ServiceAccount %s/%s of the cluster %s may do nothing here: it is not its agent, and the cluster may pull nothing (clusters in cairn.yaml)", ns, sa, t.Name)
		}
		p.Via, p.until = ViaCluster, id.Expiry
		return p, t.Name, ""
	}
	return nil, name, why
}

// principal is what a ServiceAccount of the cluster may do.
func (t *trust) principal(account string) *Principal {
	p := &Principal{Name: t.Name + "/" + account, Kind: KindRobot, Counts: true, Cluster: t.Name}
	if slices.Contains(t.Agents, account) {
		p.grants = append(p.grants, Grant{Repositories: []string{"**"}, Actions: []Action{Report}})
	}
	if len(t.Pull) > 0 {
		p.grants = append(p.grants, Grant{Repositories: t.Pull, Actions: []Action{Pull}})
	}
	return p
}

// clusterAccount is who an access token that was issued to a ServiceAccount
// stands for, as the configuration is now; nil if it is no longer trusted.
func (g *Guard) clusterAccount(name string) *Principal {
	cluster, account, _ := strings.Cut(name, "/")
	for _, t := range g.clusters {
		if t.Name == cluster {
			if p := t.principal(account); len(p.grants) > 0 {
				return p
			}
		}
	}
	return nil
}

// unverifiedIssuer reads who a token says made it.
func unverifiedIssuer(token string) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return ""
	}
	var c struct {
		Issuer string `json:"iss"`
	}
	if json.Unmarshal(b, &c) != nil {
		return ""
	}
	return c.Issuer
}

// whyNot says what is wrong with a token in words for who holds it.
func whyNot(t *trust, err error) string {
	// The library keeps only the words of what the keyring said.
	if _, cause, ok := strings.Cut(err.Error(), noKeys); ok {
		return fmt.Sprintf("the keys of the cluster %s cannot be had: %s", t.Name, cause)
	}
	var expired *oidc.TokenExpiredError
	switch {
	case errors.As(err, &expired) && expired.Expiry.Unix() <= 0:
		return "the token has no end: use one that the kubelet mounts (a projected volume), not that of a Secret"
	case errors.As(err, &expired):
		return fmt.Sprintf("the token expired at %s", expired.Expiry.UTC().Format(time.RFC3339))
	case strings.Contains(err.Error(), "audience"):
		return fmt.Sprintf("the token is not for Cairn: ask for the audience %q", t.Audience)
	case strings.Contains(err.Error(), "not before"):
		return "the token is not valid yet: compare the clocks"
	}
	return fmt.Sprintf("the token was not signed by the cluster %s, or not by RS256 or ES256", t.Name)
}
