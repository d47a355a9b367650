package catalog

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// A Key verifies signatures.
type Key struct {
	name   string
	public crypto.PublicKey
}

// Name is what the key was called when it was read.
func (k Key) Name() string { return k.name }

const minRSA = 2048 // bits

// ReadKeys reads public keys in PEM, as cosign writes them (cosign.pub): ECDSA,
// Ed25519 and RSA. They are called name, and counted if there are several.
func ReadKeys(name string, text []byte) ([]Key, error) {
	var keys []Key
	for {
		var b *pem.Block
		if b, text = pem.Decode(text); b == nil {
			break
		}
		var public any
		var err error
		switch b.Type {
		case "PUBLIC KEY":
			public, err = x509.ParsePKIXPublicKey(b.Bytes)
		case "RSA PUBLIC KEY":
			public, err = x509.ParsePKCS1PublicKey(b.Bytes)
		default:
			err = fmt.Errorf("it holds a %.40q; what verifies is the public key, cosign.pub", b.Type)
		}
		if err != nil {
			return nil, fmt.Errorf("read key %s: %w", name, err)
		}
		switch p := public.(type) {
		case *ecdsa.PublicKey, ed25519.PublicKey:
		case *rsa.PublicKey:
			if p.N.BitLen() < minRSA {
				return nil, fmt.Errorf("read key %s: RSA with %d bits is too weak; use %d or more", name, p.N.BitLen(), minRSA)
			}
		default:
			return nil, fmt.Errorf("read key %s: %T is no kind of key that cosign signs with", name, public)
		}
		keys = append(keys, Key{name, public})
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("read key %s: %w", name, errors.New("it holds no public key in PEM"))
	}
	if len(keys) > 1 {
		for i := range keys {
			keys[i].name = fmt.Sprintf("%s (%d)", name, i+1)
		}
	}
	return keys, nil
}

// verify reports whether the key signed the message, as cosign does: over its
// SHA-256 with ECDSA and RSA (PKCS #1 v1.5), over itself with Ed25519.
func (k Key) verify(message, signature []byte) bool {
	sum := sha256.Sum256(message)
	switch p := k.public.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(p, sum[:], signature)
	case ed25519.PublicKey:
		return ed25519.Verify(p, message, signature)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(p, crypto.SHA256, sum[:], signature) == nil
	}
	return false
}
