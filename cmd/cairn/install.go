package main

import (
	"errors"

	"github.com/spf13/cobra"

	"cairn.dev/cairn/internal/kube/install"
)

func (a *app) installCommand() *cobra.Command {
	return a.manifestCommand(&cobra.Command{
		Use:   "install",
		Short: "Print what puts Cairn on a Kubernetes cluster",
		Long: `Print the manifests of a server in a Kubernetes cluster: its namespace and
rights, its pod with a claim, and the custom resources that kubectl apply takes
as workflows. Nothing is sent anywhere; hand it to kubectl.

With --argo Argo's kinds are defined as well, and all their objects are run. Not
where Argo is installed: its own definitions would be replaced. There, label
objects workflows.argoproj.io/controller-instanceid: cairn.`,
		Example: "  cairn install --cluster prod --image registry.example.org/cairn:1.0 | kubectl apply -f -",
	}, install.Manifest)
}

func (a *app) uninstallCommand() *cobra.Command {
	return a.manifestCommand(&cobra.Command{
		Use:   "uninstall",
		Short: "Print what takes Cairn off a Kubernetes cluster again",
		Long: `Print everything that cairn install with the same flags put there, workflows
first, so that what runs is canceled while the server is there to do it. The
namespace goes with its claim: with it go runs, logs, artifacts and images.`,
		Example: "  cairn uninstall --cluster prod | kubectl delete --ignore-not-found -f -",
	}, install.Removal)
}

// manifestCommand prints manifests made of the same flags.
func (a *app) manifestCommand(c *cobra.Command, manifest func(install.Options) ([]byte, error)) *cobra.Command {
	o := install.Default()
	f := c.Flags()
	f.StringVar(&o.Namespace, "namespace", o.Namespace, "namespace of the server, Cairn's alone")
	f.StringVar(&o.Cluster, "cluster", o.Cluster, "what to call the cluster; keep it: its runs are named by it")
	f.StringVar(&o.Image, "image", o.Image, "image of the server")
	f.StringVar(&o.Worker, "worker", o.Worker, "image of cairn-worker, which is put beside programs into their pods")
	f.StringVar(&o.Storage, "storage", o.Storage, "size of the server's claim")
	f.StringVar(&o.StorageClass, "storage-class", o.StorageClass, "its StorageClass (default the cluster's)")
	f.StringVar(&o.URL, "url", o.URL, "where people reach the server, for links")
	f.StringSliceVar(&o.Watch, "watch", nil, "namespaces whose workflows are run (default all)")
	f.StringVar(&o.TLSSecret, "tls-secret", "", "Secret with tls.crt, tls.key and ca.crt: the server speaks https, as cairn.NAMESPACE.svc to workers (default http)")
	f.BoolVar(&o.NetworkPolicy, "network-policy", o.NetworkPolicy, "let the server's port be reached, and no other of its pod")
	f.BoolVar(&o.ResetAdmin, "reset-admin", false, "give the account admin a new secret whenever the pod starts: kubectl logs -c reset-admin has it. Apply without it afterwards")
	f.BoolVar(&o.Argo, "argo", o.Argo, "define Argo's kinds, for clusters where Argo is not")
	f.BoolVar(&o.PullSecrets, "pull-secrets", o.PullSecrets, "let the server read secrets, to look into images of private registries")
	c.Args = takes(0, 0)
	c.RunE = func(*cobra.Command, []string) error {
		b, err := manifest(o)
		if err != nil {
			var e *install.Error
			if errors.As(err, &e) {
				return usagef("%w", err)
			}
			return err
		}
		_, err = a.stdout.Write(b)
		return err
	}
	return c
}
