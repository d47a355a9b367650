package catalog

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/image"
)

// What cosign writes. Up to version 2 a signature is a layer with a payload in
// the simple signing format, under the tag sha256-<hex>.sig (cosign,
// SIGNATURE_SPEC) or, if asked to, as a referrer; from version 3 on it is a
// Sigstore bundle that refers to the image and holds a signed statement
// (cosign, BUNDLE_SPEC; DSSE; in-toto Statement v1).
//
// Only signatures by a key that is configured count. Those that a certificate
// vouches for (keyless) do not: to verify them takes the roots of Sigstore and
// its log.
const (
	simpleSigning    = "application/vnd.dev.cosign.simplesigning.v1+json"
	simpleArtifact   = "application/vnd.dev.cosign.artifact.sig.v1+json"
	simpleType       = "cosign container image signature"
	simpleSignature  = "dev.cosignproject.cosign/signature"
	bundlePrefix     = "application/vnd.dev.sigstore.bundle"
	bundlePredicate  = "dev.sigstore.bundle.predicateType"
	statementPayload = "application/vnd.in-toto+json"
	signPredicate    = "https://sigstore.dev/cosign/sign/v1"
)

const (
	// maxReferrers and maxSignatures bound what is read for one image. Whoever
	// may push to the repository can add more than that, and what comes after
	// does not count.
	maxReferrers  = 200
	maxSignatures = 32
	// maxSigned is how many digests are known to be signed, or not to be.
	maxSigned = 100_000
)

// A verifier finds out which of its keys signed an image. That a key did is
// true for ever; that none did is so for a while.
type verifier struct {
	keys  []Key
	clock clock.Clock   // nil: ask again each time
	again time.Duration // how long an image without signature has none

	mu    sync.Mutex
	known map[factKey]verdict
}

type verdict struct {
	signer string
	until  time.Duration // monotonic; of no signer
}

func newVerifier(keys []Key) *verifier {
	return &verifier{keys: keys, known: map[factKey]verdict{}}
}

// check returns the name of a key that signed d, or "".
func (v *verifier) check(ctx context.Context, repo string, s source, d image.Digest) (string, error) {
	if len(v.keys) == 0 {
		return "", nil
	}
	k := factKey{repo, d}
	v.mu.Lock()
	known, ok := v.known[k]
	v.mu.Unlock()
	if ok && (known.signer != "" || v.clock != nil && v.clock.Mono() < known.until) {
		return known.signer, nil
	}
	signer, err := v.find(ctx, s, d)
	if err != nil {
		return "", err
	}
	known = verdict{signer: signer}
	if v.clock != nil {
		known.until = v.clock.Mono() + v.again
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.known) >= maxSigned {
		clear(v.known)
	}
	v.known[k] = known
	return signer, nil
}

// find looks in all places where cosign puts signatures.
func (v *verifier) find(ctx context.Context, s source, d image.Digest) (string, error) {
	left := maxSignatures
	tag := strings.Replace(string(d), ":", "-", 1) + ".sig"
	signer, err := v.inManifest(ctx, s, tag, d, &left)
	if err != nil || signer != "" {
		return signer, err
	}
	refs, err := s.referrers(ctx, d)
	if err != nil {
		return "", err
	}
	for _, r := range refs[:min(len(refs), maxReferrers)] {
		if r.ArtifactType != simpleArtifact && !strings.HasPrefix(r.ArtifactType, bundlePrefix) {
			continue
		}
		if p := r.Annotations[bundlePredicate]; p != "" && p != signPredicate {
			continue // an SBOM, or who built it
		}
		signer, err := v.inManifest(ctx, s, string(r.Digest), d, &left)
		if err != nil || signer != "" {
			return signer, err
		}
	}
	return "", nil
}

// inManifest looks through the layers of a manifest that may hold signatures.
// One that is broken counts as none: anybody who pushes can add it.
func (v *verifier) inManifest(ctx context.Context, s source, reference string, d image.Digest, left *int) (string, error) {
	_, m, err := s.manifest(ctx, reference)
	if errors.Is(err, ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read %s: %w", reference, err)
	}
	for _, l := range m.Layers {
		bundle := strings.HasPrefix(l.MediaType, bundlePrefix)
		signature := l.Annotations[simpleSignature]
		if !bundle && (l.MediaType != simpleSigning || signature == "") {
			continue
		}
		if *left--; *left < 0 {
			return "", nil
		}
		payload, err := s.blob(ctx, l)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("read the signature %s: %w", l.Digest, err)
		}
		var signer string
		if bundle {
			signer = v.bundle(payload, d)
		} else {
			signer = v.simple(payload, signature, d)
		}
		if signer != "" {
			return signer, nil
		}
	}
	return "", nil
}

// signer is the name of the key that signed the message.
func (v *verifier) signer(message []byte, signature string) string {
	sig, err := base64.StdEncoding.DecodeString(signature)
	if err != nil {
		return ""
	}
	for _, k := range v.keys {
		if k.verify(message, sig) {
			return k.name
		}
	}
	return ""
}

// simple verifies a payload in the simple signing format. What repository it
// claims does not count, as with cosign verify: an image that was copied keeps
// its signature.
func (v *verifier) simple(payload []byte, signature string, d image.Digest) string {
	var p struct {
		Critical struct {
			Type  string `json:"type"`
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
		} `json:"critical"`
	}
	signer := v.signer(payload, signature)
	if signer == "" || json.Unmarshal(payload, &p) != nil || p.Critical.Type != simpleType || p.Critical.Image.Digest != string(d) {
		return ""
	}
	return signer
}

// bundle verifies a Sigstore bundle with a signed statement.
func (v *verifier) bundle(text []byte, d image.Digest) string {
	var b struct {
		Envelope struct {
			Payload     []byte `json:"payload"` // base64
			PayloadType string `json:"payloadType"`
			Signatures  []struct {
				Sig string `json:"sig"`
			} `json:"signatures"`
		} `json:"dsseEnvelope"`
	}
	if json.Unmarshal(text, &b) != nil || b.Envelope.PayloadType != statementPayload {
		return ""
	}
	var st struct {
		Type          string `json:"_type"`
		PredicateType string `json:"predicateType"`
		Subject       []struct {
			Digest map[string]string `json:"digest"`
		} `json:"subject"`
	}
	if json.Unmarshal(b.Envelope.Payload, &st) != nil || !strings.HasPrefix(st.Type, "https://in-toto.io/Statement/") || st.PredicateType != signPredicate {
		return ""
	}
	about := false
	for _, s := range st.Subject {
		about = about || s.Digest[string(d.Algorithm())] == d.Encoded()
	}
	if !about {
		return ""
	}
	message := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(statementPayload), statementPayload, len(b.Envelope.Payload), b.Envelope.Payload)
	for _, s := range b.Envelope.Signatures[:min(len(b.Envelope.Signatures), maxSignatures)] {
		if signer := v.signer(message, s.Sig); signer != "" {
			return signer
		}
	}
	return ""
}
