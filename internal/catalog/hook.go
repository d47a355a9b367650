package catalog

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"cairn.dev/cairn/internal/image"
)

// MaxHook is the largest body of a webhook that is read, in bytes.
const MaxHook = 1 << 20

// maxHookPushes bounds what one webhook may tell.
const maxHookPushes = 1000

// Senders of webhooks that are understood.
const (
	HookDistribution = "distribution" // CNCF Distribution: notifications.endpoints
	HookDockerHub    = "dockerhub"
	HookGHCR         = "ghcr" // GitHub: events "package" and "registry_package"
	HookHarbor       = "harbor"
	HookQuay         = "quay"
	HookECR          = "ecr" // EventBridge: "ECR Image Action", sent to an API destination
)

// HookKinds lists them.
func HookKinds() []string {
	return []string{HookDistribution, HookDockerHub, HookGHCR, HookHarbor, HookQuay, HookECR}
}

// ErrHookSecret means that a webhook does not prove that it comes from who was
// told the secret.
var ErrHookSecret = errors.New("the webhook does not carry the secret")

// A Hook is a webhook that a registry was told to call.
type Hook struct {
	Kind string
	// Host is what code calls the registry, where the sender does not say it
	// or calls it otherwise. Needed for distribution and harbor.
	Host string
	// Secret that the sender signs with (ghcr), or sends along: as the whole or
	// the bearer token of the header Authorization, or as the last part of the
	// path it calls, because some senders can do nothing else. Empty: anybody
	// may say that there was a push.
	Secret string
}

// Read verifies a webhook and returns the pushes it tells of; none of other
// events. token is the last part of the path that was called, or "". What it
// says is only worth a look at the registry: nothing of it is believed.
func (h Hook) Read(header http.Header, token string, body []byte) ([]Pushed, error) {
	if len(body) > MaxHook {
		return nil, fmt.Errorf("a webhook of %d bytes: at most %d are read", len(body), MaxHook)
	}
	if err := h.verify(header, token, body); err != nil {
		return nil, err
	}
	var raw []event
	var err error
	switch h.Kind {
	case HookDistribution:
		raw, err = readDistribution(body)
	case HookDockerHub:
		raw, err = readDockerHub(body)
	case HookGHCR:
		raw, err = readGitHub(header.Get("X-GitHub-Event"), body)
	case HookHarbor:
		raw, err = readHarbor(body)
	case HookQuay:
		raw, err = readQuay(body)
	case HookECR:
		raw, err = readECR(body)
	default:
		return nil, fmt.Errorf("webhook of kind %q: it has to be one of %s", h.Kind, strings.Join(HookKinds(), ", "))
	}
	if err != nil {
		return nil, fmt.Errorf("read a webhook of %s: %w", h.Kind, err)
	}
	return h.pushes(raw)
}

// event is a push in the sender's words.
type event struct {
	host       string // where the sender says it
	repository string
	tag        string
	digest     string
}

// pushes checks what the sender says and gives it our names. A push without a
// tag says nothing about tags and is left out.
func (h Hook) pushes(raw []event) ([]Pushed, error) {
	var out []Pushed
	for _, e := range raw {
		if e.tag == "" || strings.Contains(e.tag, ":") { // Harbor writes the digest there
			continue
		}
		host := h.Host
		if host == "" {
			host = e.host
		}
		name, err := Normal(host + "/" + e.repository)
		if err != nil {
			return nil, fmt.Errorf("a webhook of %s names no repository: %w", h.Kind, err)
		}
		if err := image.CheckTag(e.tag); err != nil {
			return nil, fmt.Errorf("a webhook of %s names no tag: %w", h.Kind, err)
		}
		p := Pushed{Repository: name, Tag: e.tag}
		p.Digest, _ = image.ParseDigest(e.digest)
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
		if len(out) > maxHookPushes {
			return nil, fmt.Errorf("a webhook of %s tells of more than %d pushes", h.Kind, maxHookPushes)
		}
	}
	return out, nil
}

// verify compares in constant time, so that the secret cannot be felt for.
func (h Hook) verify(header http.Header, token string, body []byte) error {
	if h.Secret == "" {
		return nil
	}
	if h.Kind == HookGHCR {
		mac := hmac.New(sha256.New, []byte(h.Secret))
		mac.Write(body)
		got, err := hex.DecodeString(strings.TrimPrefix(header.Get("X-Hub-Signature-256"), "sha256="))
		if err != nil || !hmac.Equal(got, mac.Sum(nil)) {
			return ErrHookSecret
		}
		return nil
	}
	want := sha256.Sum256([]byte(h.Secret))
	authorization := header.Get("Authorization")
	bearer := authorization
	if scheme, rest, ok := strings.Cut(authorization, " "); ok && strings.EqualFold(scheme, "bearer") {
		bearer = strings.TrimSpace(rest)
	}
	for _, s := range []string{token, authorization, bearer} {
		got := sha256.Sum256([]byte(s))
		if s != "" && subtle.ConstantTimeCompare(got[:], want[:]) == 1 {
			return nil
		}
	}
	return ErrHookSecret
}
