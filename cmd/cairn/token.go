package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"cairn.dev/cairn/internal/access"
	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/serve"
)

func (a *app) tokenCommand() *cobra.Command {
	return group("token", "Accounts: who may pull, push, report and administer", `An account has a name and a secret. Clients of the registry log in with both
(docker login, skopeo login); commands and reporters use the secret alone.
Servers started with --open have no accounts.`,
		a.tokenCreate(), a.tokenLs(), a.tokenReset(), a.tokenRevoke())
}

func (a *app) tokenCreate() *cobra.Command {
	var (
		repositories, actions []string
		admin, noUse          bool
		expires               config.Duration
	)
	c := &cobra.Command{
		Use:   "create NAME",
		Short: "Make an account and print its secret, once",
		Example: `  cairn token create ci --actions pull,push --repositories 'app/**' --expires 90d
  cairn token create cluster-a --actions pull,report
  cairn token create scanner --actions pull --no-use
  cairn token create dev --actions run --repositories 'team-a'
  cairn token create worker-1 --actions work
  cairn token create jane --admin`,
		Args: takes(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n := wire.NewToken{Name: args[0], Kind: string(access.KindRobot), Expires: expires, NoUse: noUse}
			switch {
			case admin && (cmd.Flags().Changed("actions") || cmd.Flags().Changed("repositories")):
				return usagef("--admin may do everything everywhere: leave --actions and --repositories out")
			case admin:
				n.Kind = string(access.KindAdmin)
			default:
				g := access.Grant{Repositories: repositories}
				for _, s := range actions {
					g.Actions = append(g.Actions, access.Action(s))
				}
				n.Grants = []access.Grant{g}
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			t, err := cl.CreateToken(cmd.Context(), n)
			if err != nil {
				return err
			}
			a.secret(t.Name, t.Secret)
			return nil
		},
	}
	f := c.Flags()
	f.StringSliceVar(&repositories, "repositories", []string{"**"}, "globs of repositories it may use, or of namespaces of runs")
	f.StringSliceVar(&actions, "actions", []string{"pull"}, "what it may do there: pull, push, delete, report, run (its globs are of namespaces then), work (be a worker), admin")
	f.BoolVar(&admin, "admin", false, "it may do everything")
	f.BoolVar(&noUse, "no-use", false, "its pulls are not a use: for scanners and mirrors")
	durationVar(f, &expires, "expires", "how long the secret works, such as 90d (default: for ever)")
	return c
}

func (a *app) tokenLs() *cobra.Command {
	return a.withOutput(&cobra.Command{
		Use:   "ls",
		Short: "List accounts",
		Args:  takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			l, err := cl.Tokens(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(l, func(row func(...string)) {
				row("NAME", "KIND", "MAY", "CREATED", "EXPIRES", "LAST USED", "STATE")
				for _, t := range l.Tokens {
					state := "ok"
					switch {
					case !t.Revoked.IsZero():
						state = "revoked"
					case !t.Expires.IsZero() && !l.Now.Before(t.Expires):
						state = "expired"
					case !t.Counts:
						state = "ok, pulls are no use"
					}
					row(t.Name, string(t.Kind), grantsText(t.Grants), day(t.Created), day(t.Expires), day(t.LastUsed), state)
				}
			})
		},
	})
}

func grantsText(gs []access.Grant) string {
	var parts []string
	for _, g := range gs {
		var as []string
		for _, s := range g.Actions {
			as = append(as, string(s))
		}
		parts = append(parts, strings.Join(as, ",")+" on "+strings.Join(g.Repositories, ","))
	}
	return dash(strings.Join(parts, "; "))
}

func (a *app) tokenRevoke() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke NAME",
		Short: "End an account: its secret stops working at once",
		Args:  takes(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			if err := cl.RevokeToken(cmd.Context(), args[0]); err != nil {
				return err
			}
			fmt.Fprintf(a.stdout, "revoked %s\n", args[0])
			return nil
		},
	}
}

// secret shows a secret: it alone goes to stdout, so that a script can take it.
func (a *app) secret(name, secret string) {
	fmt.Fprintf(a.stderr, "The secret of %s, shown this once:\n", name)
	fmt.Fprintln(a.stdout, secret)
}

func (a *app) tokenReset() *cobra.Command {
	var data string
	c := &cobra.Command{
		Use:   "reset NAME",
		Short: "Give an account a new secret and print it, once",
		Long: `Give an account a new secret; the old one stops working at once. With --data it
works on the data folder of a stopped server, without a secret: the way back in
when the last one is lost (` + "`cairn token reset admin --data DIR`" + `).`,
		Args: takes(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if data != "" {
				secret, err := serve.ResetToken(cmd.Context(), data, args[0])
				if err != nil {
					return err
				}
				a.secret(args[0], secret)
				return nil
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			t, err := cl.ResetToken(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			a.secret(t.Name, t.Secret)
			return nil
		},
	}
	c.Flags().StringVar(&data, "data", "", "work on this data folder, while no server uses it")
	return c
}
