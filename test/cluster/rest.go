package cluster

import "k8s.io/client-go/rest"

// Config is what clients of the API need, as the cluster's administrator and
// without a limit of requests. Each call makes a new one, to change at will.
func (c *Cluster) Config() *rest.Config {
	return &rest.Config{Host: c.Server, BearerToken: c.Token, TLSClientConfig: rest.TLSClientConfig{CAFile: c.CA}, QPS: -1}
}
