package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"cairn.dev/cairn/internal/config"
)

// configVariable names the configuration file where no flag does.
const configVariable = "CAIRN_CONFIG"

func (a *app) configCommand() *cobra.Command {
	return group("config", "Check a configuration file", "The configuration is one YAML file; `cairn schema config` describes it for\neditors, `cairn config example` prints one with every key explained.",
		a.configCheck(), a.configExample())
}

func (a *app) configCheck() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Say what is wrong in a configuration file",
		Args:  takes(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := config.Load(args[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(a.stdout, "%s is fine: data in %s, listens on %s, %d retention policies\n", args[0], c.Data, c.Listen, len(c.Retention.Policies))
			return nil
		},
	}
}

func (a *app) configExample() *cobra.Command {
	return &cobra.Command{
		Use:   "example",
		Short: "Print a configuration with every key explained",
		Args:  takes(0, 0),
		RunE: func(*cobra.Command, []string) error {
			_, err := a.stdout.Write(config.Example())
			return err
		},
	}
}
