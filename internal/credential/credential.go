// Package credential answers a kubelet that asks for credentials to pull an
// image: the exec plugin protocol credentialprovider.kubelet.k8s.io/v1.
//
// It owns reading the request and writing the answer. It promises that the
// token of the pod's ServiceAccount, which the kubelet sends along, becomes the
// password for the image's registry and nothing else, and that the kubelet
// does not remember it beyond its end. It is pure, contacts nobody, and does
// not verify the token: the registry does.
package credential

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

const (
	version = "credentialprovider.kubelet.k8s.io/v1"
	// The name beside a token says nothing: the token says whose it is.
	username = "serviceaccount"
	// remember is how long a kubelet may keep an answer.
	remember = 10 * time.Minute
	// early is how much before a token's end it is no longer given out: a pull
	// of large layers takes a while.
	early = time.Minute
	// MaxRequest bounds a request, in bytes.
	MaxRequest = 1 << 20
)

// request is what a kubelet asks (CredentialProviderRequest).
type request struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Image      string `json:"image"`
	Token      string `json:"serviceAccountToken"`
}

// response is the answer (CredentialProviderResponse).
type response struct {
	APIVersion    string          `json:"apiVersion"`
	Kind          string          `json:"kind"`
	CacheKeyType  string          `json:"cacheKeyType"`
	CacheDuration string          `json:"cacheDuration"`
	Auth          map[string]auth `json:"auth"`
}

type auth struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

// Answer reads a request and returns the response. secret, if not empty, is of
// an account, for kubelets that send no tokens: cairn_NAME_….
func Answer(in []byte, secret string, now time.Time) ([]byte, error) {
	var r request
	if err := json.Unmarshal(in, &r); err != nil {
		return nil, fmt.Errorf("read the kubelet's request: %w", err)
	}
	if r.Kind != "CredentialProviderRequest" || r.APIVersion != version {
		return nil, fmt.Errorf("the request is a %.80q of %.80q: this plugin speaks %s (apiVersion in the kubelet's CredentialProviderConfig)", r.Kind, r.APIVersion, version)
	}
	host, err := registry(r.Image)
	if err != nil {
		return nil, err
	}
	out := response{APIVersion: version, Kind: "CredentialProviderResponse", CacheKeyType: "Registry", CacheDuration: remember.String(), Auth: map[string]auth{}}
	switch {
	case r.Token != "":
		out.Auth[host] = auth{username, r.Token}
		out.CacheDuration = max(min(remember, ends(r.Token, now).Sub(now)-early), 0).Truncate(time.Second).String()
	case secret != "":
		name, ok := owner(secret)
		if !ok {
			return nil, errors.New("the secret in the token file is not of an account: it reads cairn_<account>_<43 characters>")
		}
		out.Auth[host] = auth{name, secret}
	default:
		return nil, errors.New("the kubelet sent no token: set tokenAttributes in its CredentialProviderConfig (Kubernetes 1.34 and later), or give the plugin --token-file")
	}
	b, err := json.Marshal(out)
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

// registry is the host of an image's name, as kubelets compare it.
func registry(image string) (string, error) {
	host, _, ok := strings.Cut(image, "/")
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" {
		return "", fmt.Errorf("image %.200q names no registry: matchImages in the kubelet's CredentialProviderConfig must only name this one", image)
	}
	return host, nil
}

// ends is when a token ends, by its own word; now if it does not say.
func ends(token string, now time.Time) time.Time {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return now
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return now
	}
	var c struct {
		Expires json.Number `json:"exp"`
	}
	if json.Unmarshal(b, &c) != nil {
		return now
	}
	s, err := c.Expires.Int64()
	if err != nil || s > now.Add(24*365*time.Hour).Unix() {
		return now
	}
	return time.Unix(s, 0)
}

// owner is the account of a secret.
func owner(secret string) (string, bool) {
	rest, ok := strings.CutPrefix(secret, "cairn_")
	i := strings.LastIndexByte(rest, '_')
	if !ok || i <= 0 {
		return "", false
	}
	return rest[:i], true
}
