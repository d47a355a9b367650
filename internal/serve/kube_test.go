package serve

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestInClear(t *testing.T) {
	for address, want := range map[string]bool{
		"http://cairn.cairn.svc:5080": false, "http://cairn.cairn.svc.cluster.local": false, "http://cairn.cairn.svc.:5080": false,
		"https://cairn.example.org": false, "http://cairn.example.org": true, "http://10.0.0.1:5080": true, "http://svc": true, "http://x.svc.example.org": true,
	} {
		if got := inClear(address); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
}

// What every pod carries holds certificates and nothing else.
func TestReadCA(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	one := block("CERTIFICATE", der)
	for name, c := range map[string]struct{ text, want, err string }{
		"one":            {text: one, want: one},
		"two, with text": {text: "# ours\n" + one + "and\n" + one, want: one + one},
		"nothing":        {text: "", err: "holds no certificate"},
		"no PEM":         {text: "hello", err: "holds no certificate"},
		"a key, too":     {text: one + block("PRIVATE KEY", private), err: "certificates only"},
		"broken":         {text: block("CERTIFICATE", []byte("x")), err: "ca_file"},
		"too long":       {text: strings.Repeat("#", maxCA) + one, err: "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "ca.pem")
			if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := readCA(file)
			if got != c.want || c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	if _, err := readCA(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "ca_file") {
		t.Error(err)
	}
}
