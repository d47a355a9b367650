package catalogtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"testing"

	"cairn.dev/cairn/internal/catalog"
	"cairn.dev/cairn/internal/image"
)

// A Signer signs as cosign does.
type Signer struct {
	private crypto.Signer
	// PEM is the public key, as in cosign.pub.
	PEM []byte
}

// NewSigner makes a key: "ecdsa", "ed25519" or "rsa".
func NewSigner(t testing.TB, kind string) Signer {
	t.Helper()
	var s crypto.Signer
	var err error
	switch kind {
	case "ecdsa":
		s, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ed25519":
		_, s, err = ed25519.GenerateKey(rand.Reader)
	case "rsa":
		s, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		t.Fatalf("no kind of key: %s", kind)
	}
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(s.Public())
	if err != nil {
		t.Fatal(err)
	}
	return Signer{s, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})}
}

// Keys are what verifies.
func (s Signer) Keys(t testing.TB, name string) []catalog.Key {
	t.Helper()
	keys, err := catalog.ReadKeys(name, s.PEM)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// Sign signs a message; the answer is in base64.
func (s Signer) Sign(t testing.TB, message []byte) string {
	t.Helper()
	var sig []byte
	var err error
	if _, ok := s.private.(ed25519.PrivateKey); ok {
		sig, err = s.private.Sign(rand.Reader, message, crypto.Hash(0))
	} else {
		sum := sha256.Sum256(message)
		sig, err = s.private.Sign(rand.Reader, sum[:], crypto.SHA256)
	}
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(sig)
}

// Payload is what cosign signs in the simple signing format.
func Payload(reference string, d image.Digest) []byte {
	return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, reference, d)
}

// SimpleLayer is a signature as cosign stored it up to version 2.
func (s Signer) SimpleLayer(t testing.TB, payload []byte) Layer {
	t.Helper()
	return Layer{Type: "application/vnd.dev.cosign.simplesigning.v1+json", Data: payload,
		Annotations: map[string]string{"dev.cosignproject.cosign/signature": s.Sign(t, payload)}}
}

// SimpleTag is the tag that cosign put signatures of d under.
func SimpleTag(d image.Digest) string {
	return string(d.Algorithm()) + "-" + d.Encoded() + ".sig"
}

// Simple is the manifest of signatures, for [SimpleTag].
func Simple(layers ...Layer) Doc { return Doc{Config: []byte(`{"architecture":""}`), Layers: layers} }

const bundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"

// Statement is what cosign signs from version 3 on.
func Statement(predicate string, d image.Digest) []byte {
	b, err := json.Marshal(map[string]any{
		"_type":         "https://in-toto.io/Statement/v1",
		"subject":       []any{map[string]any{"digest": map[string]string{string(d.Algorithm()): d.Encoded()}}},
		"predicateType": predicate, "predicate": map[string]any{},
	})
	if err != nil {
		panic(err) // strings
	}
	return b
}

// SignPredicate is the type of statements that are signatures.
const SignPredicate = "https://sigstore.dev/cosign/sign/v1"

// Bundle refers to an image and holds a signed statement.
func (s Signer) Bundle(t testing.TB, subject image.Digest, statement []byte) Doc {
	t.Helper()
	const kind = "application/vnd.in-toto+json"
	message := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(kind), kind, len(statement), statement)
	b, err := json.Marshal(map[string]any{
		"mediaType":            bundleType,
		"verificationMaterial": map[string]any{"publicKey": map[string]string{"hint": "x"}},
		"dsseEnvelope": map[string]any{"payload": base64.StdEncoding.EncodeToString(statement), "payloadType": kind,
			"signatures": []any{map[string]string{"sig": s.Sign(t, message)}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return Doc{Type: image.MediaTypeEmpty, Config: []byte("{}"), Layers: []Layer{{Type: bundleType, Data: b}}, Subject: subject, Artifact: bundleType}
}

// FallbackTag is where clients list what refers to d, where a registry has no
// such list.
func FallbackTag(d image.Digest) string { return string(d.Algorithm()) + "-" + d.Encoded() }

// FallbackIndex is that list.
func FallbackIndex(docs ...Doc) Doc {
	var out Doc
	for _, d := range docs {
		c := child(d, nil)
		c.ArtifactType, c.Annotations = d.Artifact, d.Annotations
		out.Children = append(out.Children, c)
	}
	return out
}
