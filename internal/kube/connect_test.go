package kube_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cairn.dev/cairn/internal/kube"
)

const kubeconfig = `apiVersion: v1
kind: Config
current-context: a
clusters:
- {name: a, cluster: {server: "https://a.example.org"}}
- {name: b, cluster: {server: "https://b.example.org"}}
contexts:
- {name: a, context: {cluster: a, user: u}}
- {name: b, context: {cluster: b, user: u}}
users:
- {name: u, user: {token: secret}}
`

func TestConnect(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte(kubeconfig), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBECONFIG", "")
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for _, tt := range []struct{ file, context, host, err string }{
		{file, "", "https://a.example.org", ""},
		{file, "b", "https://b.example.org", ""},
		{file, "c", "", `context "c" does not exist`},
		{file + "x", "", "", "no such file"},
		{"", "", "", "name a kubeconfig"},
	} {
		cfg, err := kube.Connect(tt.file, tt.context)
		switch {
		case tt.err == "" && (err != nil || cfg.Host != tt.host):
			t.Errorf("%q, %q: %v, %v", tt.file, tt.context, cfg, err)
		case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
			t.Errorf("%q, %q: error %v, want %q", tt.file, tt.context, err, tt.err)
		}
	}
}
