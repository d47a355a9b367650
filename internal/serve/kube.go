package serve

import (
	"context"
	"fmt"

	"cairn.dev/cairn/internal/kube"
	"cairn.dev/cairn/internal/kube/controller"
)

// openClusters makes what looks after the clusters of the configuration. It
// contacts none: one that is away keeps nothing else from starting.
func (s *Server) openClusters() error {
	for _, k := range s.cfg.Work.Clusters {
		api, err := kube.Connect(k.Kubeconfig, k.Context)
		if err != nil {
			return fmt.Errorf("work.clusters: %s: %w", k.Name, err)
		}
		c, err := controller.New(controller.Config{Cluster: k.Name, REST: api, Namespaces: k.Namespaces, Argo: k.Argo, URL: s.cfg.ExternalURL},
			controller.Deps{Server: s.work.server, Clock: s.deps.Clock, Log: s.log})
		if err != nil {
			return fmt.Errorf("work.clusters: %w", err)
		}
		s.work.clusters = append(s.work.clusters, c)
	}
	return nil
}

// changed tells the clusters of a run to which something happened.
func (w *works) changed(run string) {
	for _, c := range w.clusters {
		c.Changed(run)
	}
}

// clusterParts are the loops of the clusters.
func (w *works) clusterParts(part func(name string, run func(context.Context) error)) {
	for _, c := range w.clusters {
		part("a cluster", c.Run)
	}
}
