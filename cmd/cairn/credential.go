package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"cairn.dev/cairn/internal/agent"
	"cairn.dev/cairn/internal/credential"
)

func (a *app) credentialCommand() *cobra.Command {
	var tokenFile string
	c := &cobra.Command{
		Use:   "credential-provider",
		Short: "Answer a kubelet that asks for credentials to pull",
		Long: `Answer a kubelet that asks for credentials to pull an image, as an exec plugin
(credentialprovider.kubelet.k8s.io/v1): the request is read from standard input, the
answer goes to standard output. The pod's ServiceAccount token, which the kubelet
sends along, becomes the password, so that no secret is stored anywhere; the
server has to know the cluster (clusters in cairn.yaml). docs/agent.md shows the
kubelet's configuration.`,
		Args: takes(0, 0),
		RunE: func(*cobra.Command, []string) error {
			in, err := io.ReadAll(io.LimitReader(a.stdin, credential.MaxRequest))
			if err != nil {
				return fmt.Errorf("read the kubelet's request: %w", err)
			}
			secret := ""
			if tokenFile != "" {
				if secret, err = agent.SecretFile(tokenFile)(); err != nil {
					return err
				}
			}
			out, err := credential.Answer(in, secret, time.Now())
			if err != nil {
				return err
			}
			_, err = a.stdout.Write(out)
			return err
		},
	}
	c.Flags().StringVar(&tokenFile, "token-file", "", "file with an account's secret, for kubelets that send no tokens")
	return c
}
