package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cairn.dev/cairn/internal/agent"
	"cairn.dev/cairn/internal/agent/cri"
	"cairn.dev/cairn/internal/agent/docker"
	"cairn.dev/cairn/internal/agent/kube"
	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/usage"
)

// agentFlags is what the command line of `cairn agent` says.
type agentFlags struct {
	cluster, kubeconfig, kubeContext string
	node, cri, docker, podman        string
	tokenFile, caFile, health        string
	period                           config.Duration
	once                             bool
	log                              config.Log
}

func (a *app) agentCommand() *cobra.Command {
	f := agentFlags{period: config.Duration(agent.DefaultPeriod)}
	c := &cobra.Command{
		Use:   "agent",
		Short: "Tell a server which images are in use here",
		Long: `Tell a server which images are in use here, once in every period and within a
second when a container starts.

With --cluster it watches a Kubernetes cluster: everything its pods run, and what
Deployments, CronJobs and the like would run. One is enough for a cluster. With
--node it looks at one host through its container runtime (--cri), Docker or
Podman, and sees containers that live for a moment, and those that Kubernetes does
not know. With both it is one node of that cluster.

From then on the server counts on it: when a cluster or a host falls silent, no
image that it might use is deleted until it speaks again, or is forgotten
(cairn cluster forget). Nodes of a cluster may come and go.

The secret is in the file --token-file names, which is read again when it
changes, else in CAIRN_TOKEN. In a pod it is the pod's own ServiceAccount token.`,
		Example: "  cairn agent --cluster prod --server https://registry.example.org --token-file /var/run/secrets/cairn/token\n  cairn agent --node $(hostname) --docker\n  cairn agent --cluster prod --once",
		Args:    takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			source, cfg, err := a.agentSource(&f)
			if err != nil {
				return err
			}
			cl, err := a.agentClient(&f)
			if err != nil {
				return err
			}
			log := a.logger(f.log)
			ag, err := agent.New(cfg, agent.Deps{Source: source, Sink: agent.Server{Client: cl}, Clock: clock.Real(), Log: log})
			if err != nil {
				return usagef("%w", err)
			}
			if f.once {
				return a.look(cmd.Context(), ag, cfg)
			}
			log.Info("cairn agent reports", "reporter", cfg.Reporter, "server", cl.Server(), "every", f.period)
			return a.runAgent(cmd.Context(), ag, f.health)
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.cluster, "cluster", "", "name of the Kubernetes cluster this is, or is a node of")
	fl.StringVar(&f.kubeconfig, "kubeconfig", "", "file that says where its API server is (default: that of the pod, else $KUBECONFIG)")
	fl.StringVar(&f.kubeContext, "context", "", "context in that file")
	fl.StringVar(&f.node, "node", "", "name of the host this is")
	fl.StringVar(&f.cri, "cri", "", "socket of its container runtime (default "+cri.DefaultSocket+")")
	fl.StringVar(&f.docker, "docker", "", "socket of Docker, if it runs that")
	fl.StringVar(&f.podman, "podman", "", "socket of Podman, if it runs that")
	fl.Lookup("docker").NoOptDefVal, fl.Lookup("podman").NoOptDefVal = docker.DockerSocket, docker.PodmanSocket
	fl.Var(&f.period, "period", "how often to speak")
	fl.StringVar(&f.tokenFile, "token-file", "", "file with the secret of an account, or a ServiceAccount token")
	fl.StringVar(&f.caFile, "ca-file", "", "certificates to trust when calling the server, PEM (default: the system's)")
	fl.StringVar(&f.health, "health", "", "address for /healthz, /readyz, /status and /metrics, such as :8081")
	fl.BoolVar(&f.once, "once", false, "print what would be reported, report nothing, and end")
	fl.StringVar(&f.log.Level, "log-level", "info", strings.Join(logLevels, ", "))
	fl.StringVar(&f.log.Format, "log-format", "text", strings.Join(logFormats, ", "))
	return a.withOutput(c)
}

// agentSource is what the flags say to look at, and in whose name.
func (a *app) agentSource(f *agentFlags) (agent.Source, agent.Config, error) {
	cfg := agent.Config{Period: f.period.Std(), Reporter: f.cluster}
	c, log := clock.Real(), a.logger(f.log)
	sockets := 0
	for _, s := range []string{f.cri, f.docker, f.podman} {
		if s != "" {
			sockets++
		}
	}
	switch {
	case f.node == "" && sockets > 0:
		return nil, cfg, usagef("--cri, --docker and --podman look at one host: name it with --node")
	case f.cluster == "" && f.node == "":
		return nil, cfg, usagef("name what to look at: --cluster for a Kubernetes cluster, --node for a host")
	case strings.ContainsAny(f.cluster+f.node, "/:"):
		return nil, cfg, usagef("names of clusters and nodes hold no '/' and no ':'")
	case !slices.Contains(logLevels, f.log.Level):
		return nil, cfg, usagef("--log-level %q is not one of %s", f.log.Level, strings.Join(logLevels, ", "))
	case !slices.Contains(logFormats, f.log.Format):
		return nil, cfg, usagef("--log-format %q is not one of %s", f.log.Format, strings.Join(logFormats, ", "))
	case sockets > 1:
		return nil, cfg, usagef("--cri, --docker and --podman exclude each other: run one agent for each")
	case f.node == "":
		rc, err := kube.Connect(f.kubeconfig, f.kubeContext)
		if err != nil {
			return nil, cfg, err
		}
		s, err := kube.New(kube.Config{Name: f.cluster, REST: rc}, kube.Deps{Clock: c, Log: log})
		return s, cfg, err
	}
	cfg.Reporter, cfg.Sources = f.node, []usage.Source{usage.Container}
	place, kind := f.node, ""
	if f.cluster != "" {
		cfg.Reporter, cfg.Dated = f.cluster+":"+f.node, true
		place, kind = f.cluster, "Pod"
	}
	if socket := f.docker + f.podman; socket != "" {
		s, err := docker.New(docker.Config{Socket: socket, Name: place}, docker.Deps{Clock: c, Log: log})
		return s, cfg, asUsage(err)
	}
	s, err := cri.New(cri.Config{Socket: f.cri, Place: place, Node: f.node, Kind: kind}, cri.Deps{Clock: c, Log: log})
	return s, cfg, asUsage(err)
}

func asUsage(err error) error {
	if err == nil {
		return nil
	}
	return &usageError{err}
}

// agentClient is how to reach the server.
func (a *app) agentClient(f *agentFlags) (*client.Client, error) {
	cfg := client.Config{Server: a.server}
	if f.tokenFile != "" {
		cfg.Secret = agent.SecretFile(f.tokenFile)
	}
	cfg = client.FromEnvironment(cfg, a.getenv)
	t := http.DefaultTransport.(*http.Transport).Clone()
	if f.caFile != "" {
		b, err := os.ReadFile(f.caFile)
		if err != nil {
			return nil, fmt.Errorf("read the certificates to trust: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("%s holds no certificate in PEM", f.caFile)
		}
		t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	cfg.HTTP = &http.Client{Transport: t, Timeout: time.Minute}
	cl, err := client.New(cfg)
	if err != nil {
		return nil, &usageError{err}
	}
	return cl, nil
}

// runAgent reports until ctx ends.
func (a *app) runAgent(ctx context.Context, ag *agent.Agent, health string) error {
	if health != "" {
		l, err := net.Listen("tcp", health)
		if err != nil {
			return fmt.Errorf("listen for health checks on %s: %w", health, err)
		}
		s := &http.Server{Handler: ag.Handler(), ReadHeaderTimeout: 10 * time.Second}
		go func() { _ = s.Serve(l) }()
		defer s.Close()
	}
	return ag.Run(ctx)
}

// look prints what would be reported.
func (a *app) look(ctx context.Context, ag *agent.Agent, cfg agent.Config) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	uses, unresolved, err := ag.Look(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("nothing is known for sure after a minute: %w", err)
	}
	if err != nil {
		return err
	}
	s := usage.Statement{Reporter: cfg.Reporter, Uses: uses}
	if !cfg.Dated {
		s.Period, s.Complete, s.Sources = cfg.Period, true, cfg.Sources
	}
	if err := a.print(s, func(row func(...string)) {
		row("SOURCE", "DIGEST", "SUBJECT")
		for _, u := range uses {
			row(u.Source.String(), short(u.Digest), u.Subject)
		}
	}); err != nil {
		return err
	}
	for _, w := range unresolved {
		fmt.Fprintf(a.stderr, "%s of %s: not known to the server\n", w.Reference, w.Subject)
	}
	return nil
}
