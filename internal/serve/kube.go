package serve

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"cairn.dev/cairn/internal/access"
	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/kube"
	"cairn.dev/cairn/internal/kube/controller"
	"cairn.dev/cairn/internal/kube/dispatch"
	"cairn.dev/cairn/internal/kube/images"
	"cairn.dev/cairn/internal/kube/jobs"
	"cairn.dev/cairn/internal/pool/source"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/work"
	"cairn.dev/cairn/internal/work/machine"
)

// cluster is what looks after one Kubernetes cluster: its custom resources
// come in, tasks go out to its pods, and Jobs make those.
type cluster struct {
	name      string
	resources *controller.Controller
	dispatch  *dispatch.Dispatcher
	jobs      *jobs.Controller
}

// openClusters makes those of the configuration. It contacts none: one that is
// away keeps nothing else from starting.
func (s *Server) openClusters() error {
	for _, k := range s.cfg.Work.Clusters {
		c, err := s.openCluster(k)
		if err != nil {
			return fmt.Errorf("work.clusters: %s: %w", k.Name, err)
		}
		s.work.clusters = append(s.work.clusters, c)
	}
	return nil
}

func (s *Server) openCluster(k config.WorkCluster) (*cluster, error) {
	api, err := kube.Connect(k.Kubeconfig, k.Context)
	if err != nil {
		return nil, err
	}
	pulse := kube.NewPulse(s.deps.Clock)
	api.Wrap(pulse.Wrap)
	secret, err := access.SigningKey(s.dir.Path("pods.secret"))
	if err != nil {
		return nil, err
	}
	own, err := source.New(source.Config{Content: usedContent{s.content, s.ledger}, Own: s.hosts()})
	if err != nil {
		return nil, err
	}
	c := &cluster{name: k.Name}
	w := s.work
	c.dispatch, err = dispatch.New(dispatch.Config{Cluster: k.Name, Secret: secret, Warm: k.Warm.Std()}, dispatch.Deps{Server: w.server, Clock: s.deps.Clock, Log: s.log,
		HTTP: w.requests.Do, Owner: func(run string) (task.Owner, bool) { return c.resources.Owner(run) }})
	if err != nil {
		return nil, err
	}
	if inClear(k.Server) {
		s.log.Warn("workers send their tokens in the clear to a host that is no Service of their cluster", "cluster", k.Name, "server", k.Server, "cure", "write https: in work.clusters[].server")
	}
	jc := jobs.Config{Cluster: k.Name, REST: api, Server: k.Server, Worker: k.Worker, Queue: k.Queue,
		MaxPerRun: k.MaxPodsPerRun, MaxPods: k.MaxPods, Rate: k.PodRate, Burst: k.PodRate, ImageVolume: k.ImageVolumes == "on", FindImageVolume: k.ImageVolumes == "auto"}
	if k.CAFile != "" {
		jc.CA = func() (string, error) { return readCA(k.CAFile) }
		if _, err := jc.CA(); err != nil {
			return nil, err
		}
	}
	if k.Kubeconfig == "" { // the cluster in which it runs itself
		jc.Namespace = kube.Namespace()
	}
	c.jobs, err = jobs.New(jc, jobs.Deps{Demander: c.dispatch, Teller: c.dispatch,
		Images: images.New(images.Config{Own: own, Secrets: c, Clock: s.deps.Clock}), Ease: pulse.Ease, Clock: s.deps.Clock, Log: s.log,
		Live:   func(_ context.Context, run string) (bool, error) { return w.server.Live(run), nil },
		Failed: w.failed,
		Waits:  func(run string) { c.resources.Changed(run) }})
	if err != nil {
		return nil, err
	}
	c.resources, err = controller.New(controller.Config{Cluster: k.Name, REST: api, Namespaces: k.Namespaces, Argo: k.Argo, URL: s.cfg.ExternalURL},
		controller.Deps{Server: w.server, Waits: c.jobs.Waits, Place: c.place, Ease: pulse.Ease, Clock: s.deps.Clock, Log: s.log})
	return c, err
}

// place says where a task runs, or ran.
func (c *cluster) place(run, namespace, task string) (pod, node string) {
	if pod = c.dispatch.Place(run, task); pod == "" {
		return "", ""
	}
	return pod, c.jobs.Node(namespace, pod)
}

// inClear says whether what goes to an address can be read on its way, by others
// than whoever runs the cluster: its Services are within it.
func inClear(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" {
		return false
	}
	host := strings.TrimSuffix(u.Hostname(), ".")
	return !strings.HasSuffix(host, ".svc") && !strings.HasSuffix(host, ".svc.cluster.local")
}

// maxCA bounds the certificates that every pod carries.
const maxCA = 64 << 10

// readCA reads the certificates by which pods know this server.
func readCA(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("read ca_file, the certificates by which pods know this server: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxCA+1))
	if err != nil {
		return "", fmt.Errorf("read ca_file %s: %w", file, err)
	}
	if len(b) > maxCA {
		return "", fmt.Errorf("ca_file %s has more than %d bytes: name the certificate of the CA alone", file, maxCA)
	}
	var out strings.Builder
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" { // a key, by mistake: it would be in every pod
			return "", fmt.Errorf("ca_file %s holds a %s: it is shown to everybody, and may hold certificates only", file, block.Type)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return "", fmt.Errorf("ca_file %s: %w", file, err)
		}
		if err := pem.Encode(&out, &pem.Block{Type: block.Type, Bytes: block.Bytes}); err != nil {
			return "", err
		}
	}
	if out.Len() == 0 {
		return "", fmt.Errorf("ca_file %s holds no certificate: it has to be PEM", file)
	}
	return out.String(), nil
}

// PullSecrets implements [images.Secrets]; it is asked for by jobs, which is
// what answers it.
func (c *cluster) PullSecrets(ctx context.Context, namespace string) ([]string, error) {
	if c.jobs == nil {
		return nil, errors.New("the cluster is not looked after yet")
	}
	return c.jobs.PullSecrets(ctx, namespace)
}

// PullSecret implements [images.Secrets].
func (c *cluster) PullSecret(ctx context.Context, namespace, name string) ([]byte, error) {
	if c.jobs == nil {
		return nil, errors.New("the cluster is not looked after yet")
	}
	return c.jobs.PullSecret(ctx, namespace, name)
}

// changed tells the clusters of a run to which something happened.
func (w *works) changed(run string) {
	for _, c := range w.clusters {
		c.resources.Changed(run)
	}
}

// ended tells those who keep something for a run that it has ended.
func (w *works) ended(run string) {
	w.logs.Ended(run)
	for _, c := range w.clusters {
		c.dispatch.Ended(run)
	}
}

// failed says whether a run that is still known has ended otherwise than well.
func (w *works) failed(ctx context.Context, run string) (bool, error) {
	i, err := w.server.Get(ctx, run)
	if errors.Is(err, work.ErrNotFound) {
		return false, nil
	}
	return err == nil && !i.Ended.IsZero() && i.Phase != machine.Succeeded, err
}

// clusterParts are the loops of the clusters.
func (w *works) clusterParts(part func(name string, run func(context.Context) error)) {
	for _, c := range w.clusters {
		part("workflows of cluster "+c.name, c.resources.Run)
		part("tasks of cluster "+c.name, c.dispatch.Run)
		part("pods of cluster "+c.name, c.jobs.Run)
	}
}

// podDoor lets pods of the clusters in, by tokens of their own; whoever else
// asks goes on to next.
func (w *works) podDoor(next http.Handler) http.Handler {
	if len(w.clusters) == 0 {
		return next
	}
	var all []*dispatch.Dispatcher
	for _, c := range w.clusters {
		all = append(all, c.dispatch)
	}
	return dispatch.Door(next, all...)
}

// orPod lets in whom the guard lets in, and pods that came by [works.podDoor].
func orPod(guard func(*http.Request) (int, error)) func(*http.Request) (int, error) {
	return func(r *http.Request) (int, error) {
		if _, ok := dispatch.Admitted(r.Context()); ok {
			return 0, nil
		}
		return guard(r)
	}
}
