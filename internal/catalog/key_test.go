package catalog_test

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/catalog"
	"cairn.dev/cairn/internal/catalog/catalogtest"
)

func TestReadKeys(t *testing.T) {
	a, b := catalogtest.NewSigner(t, "ecdsa"), catalogtest.NewSigner(t, "ed25519")
	keys, err := catalog.ReadKeys("ci", slices.Concat([]byte("# the keys of CI\n"), a.PEM, []byte("\n"), b.PEM))
	if err != nil || len(keys) != 2 || keys[0].Name() != "ci (1)" || keys[1].Name() != "ci (2)" {
		t.Errorf("%v, %v", keys, err)
	}
	weak := rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 1023, 1), E: 65537}
	block := func(kind string, b []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b})
	}
	for name, tc := range map[string]struct {
		text []byte
		want string
	}{
		"nothing":     {nil, "no public key"},
		"no PEM":      {[]byte("ssh-ed25519 AAAA"), "no public key"},
		"private key": {block("ENCRYPTED SIGSTORE PRIVATE KEY", []byte("x")), "cosign.pub"},
		"damaged":     {block("PUBLIC KEY", []byte("x")), "read key k"},
		"weak":        {block("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&weak)), "too weak"},
	} {
		if keys, err := catalog.ReadKeys("k", tc.text); err == nil || !strings.Contains(err.Error(), tc.want) || keys != nil {
			t.Errorf("%s: %v, %v", name, keys, err)
		}
	}
}
