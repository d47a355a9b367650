package resource

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// AccountDir is where Kubernetes puts what a pod needs to speak for its service
// account.
const AccountDir = "/var/run/secrets/kubernetes.io/serviceaccount"

// maxFile bounds what is read of one of its files.
const maxFile = 1 << 20

// An Account is how an API server is reached, and as whom.
type Account struct {
	URL       string // https://HOST:PORT
	Namespace string // of what says none
	// Token is asked for each request: tokens of pods are replaced while they
	// run. "" for none.
	Token  func() (string, error)
	Client *http.Client
}

// InCluster is the account of the pod that this process is in. It reads the
// files of dir, which is [AccountDir], and two variables of the environment
// (NAME=VALUE) that Kubernetes sets.
func InCluster(env []string, dir string) (*Account, error) {
	get := func(name string) string {
		for _, e := range env {
			if v, ok := strings.CutPrefix(e, name+"="); ok {
				return v
			}
		}
		return ""
	}
	host, port := get("KUBERNETES_SERVICE_HOST"), get("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return nil, errors.New("find the API server: there are no KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT: this is no pod of a cluster")
	}
	ca, err := contents(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("read the certificates of the API server: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("read the certificates of the API server: there is none in %s", filepath.Join(dir, "ca.crt"))
	}
	namespace, err := contents(filepath.Join(dir, "namespace"))
	if err != nil {
		return nil, fmt.Errorf("read the pod's namespace: %w", err)
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy = nil // a variable of the user's must not lead the token elsewhere
	t.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	t.MaxIdleConnsPerHost, t.IdleConnTimeout = 16, time.Minute
	t.DialContext, t.TLSHandshakeTimeout = (&net.Dialer{Timeout: connectTimeout}).DialContext, connectTimeout
	return &Account{
		URL: "https://" + net.JoinHostPort(host, port), Namespace: strings.TrimSpace(string(namespace)), Client: &http.Client{Transport: t},
		Token: func() (string, error) {
			b, err := contents(filepath.Join(dir, "token"))
			if err != nil {
				return "", fmt.Errorf("read the token of the pod's service account: %w", err)
			}
			return strings.TrimSpace(string(b)), nil
		},
	}, nil
}

func contents(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s has %d bytes, at most %d are read", file, info.Size(), maxFile)
	}
	return os.ReadFile(file)
}
