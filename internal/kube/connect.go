// Package kube finds Kubernetes API servers.
//
// It owns how a cluster is named in the configuration: by a kubeconfig and a
// context in it, or by nothing, which is the cluster in which this process
// runs. It promises to contact nobody. What is done with clusters is the rooms'
// below: custom resources in (controller, crd), Jobs out (dispatch, jobs), and
// what puts Cairn there (install).
package kube

import (
	"fmt"
	"os"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Connect says how an API server is reached. kubeconfig "" is the cluster in
// which this process runs; context "" is the kubeconfig's current one.
func Connect(kubeconfig, context string) (*rest.Config, error) {
	if kubeconfig == "" {
		cfg, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("find the cluster in which this server runs: %w; name a kubeconfig where it runs in none", err)
		}
		return cfg, nil
	}
	// Only this file: what $KUBECONFIG of whoever starts the server says is not
	// what its configuration means.
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: kubeconfig}
	cfg, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: context}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig %s: %w", kubeconfig, err)
	}
	return cfg, nil
}

// account is where Kubernetes tells a pod what it is.
const account = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// Namespace is the one in which this process runs; "" where it runs in no
// cluster, or is not told.
func Namespace() string {
	b, err := os.ReadFile(account)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
