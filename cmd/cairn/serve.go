package main

import (
	"errors"
	"io/fs"
	"log/slog"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/config"
	"cairn.dev/cairn/internal/serve"
)

// inDisk is how many threads are in a sync or a write of the disk at a time, more
// or less. Go takes the processor of such a thread away only after a while, so
// that with two cores and both in a sync nobody computes: a fifth fewer pushes.
const inDisk = 4

// Values of --log-level and --log-format.
var (
	logLevels  = []string{"debug", "info", "warn", "error"}
	logFormats = []string{"text", "json"}
)

func (a *app) serveCommand() *cobra.Command {
	var (
		file, pprof string
		f           config.Config // what the flags say
	)
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the registry",
		Long: `Run the registry: push and pull under /v2/, the API under /api/v1/, retention in
the background. It needs nothing but a data folder.

The first start makes an account "admin" and prints its secret, once. With
--open there is no sign-on, which is allowed on loopback addresses only.
Flags win over the environment (CAIRN_LISTEN, CAIRN_DATA), that over the
configuration file, that over the defaults.`,
		Example: "  cairn serve --open\n  cairn serve --config /etc/cairn.yaml\n  cairn serve --data /srv/cairn --listen :5080 --tls-cert tls.crt --tls-key tls.key",
		Args:    takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				file = a.getenv(configVariable)
			}
			c, err := config.Load(file)
			if err != nil {
				if errors.Is(err, fs.ErrNotExist) {
					return &hinted{err, "`cairn config example` prints one to start from; without --config all defaults hold"}
				}
				return err
			}
			changed := cmd.Flags().Changed
			for name, set := range map[string]func(){
				"data": func() { c.Data = f.Data }, "listen": func() { c.Listen = f.Listen }, "open": func() { c.Open = f.Open },
				"tls-cert": func() { c.TLS.Cert = f.TLS.Cert }, "tls-key": func() { c.TLS.Key = f.TLS.Key },
				"log-level": func() { c.Log.Level = f.Log.Level }, "log-format": func() { c.Log.Format = f.Log.Format },
			} {
				if changed(name) {
					set()
				}
			}
			if !slices.Contains(logLevels, c.Log.Level) {
				return usagef("--log-level %q is not one of %s", c.Log.Level, strings.Join(logLevels, ", "))
			}
			if !slices.Contains(logFormats, c.Log.Format) {
				return usagef("--log-format %q is not one of %s", c.Log.Format, strings.Join(logFormats, ", "))
			}
			if err := c.Validate(); err != nil {
				return usagef("%w", err)
			}
			if a.getenv("GOMAXPROCS") == "" {
				runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + inDisk)
			}
			s, err := serve.New(cmd.Context(), serve.Config{Config: *c, Pprof: pprof}, serve.Deps{Clock: clock.Real(), Log: a.logger(c.Log), Stdout: a.stdout, Version: serve.Version(version)})
			if err != nil {
				return err
			}
			return s.Run(cmd.Context())
		},
	}
	d := config.Default()
	fl := c.Flags()
	fl.StringVar(&file, "config", "", "configuration file (default $"+configVariable+")")
	fl.StringVar(&f.Data, "data", "", "folder of everything Cairn stores (default $XDG_DATA_HOME/cairn, for root /var/lib/cairn)")
	fl.StringVar(&f.Listen, "listen", "", "address to listen on (default "+d.Listen+")")
	fl.BoolVar(&f.Open, "open", false, "no sign-on: everybody who reaches the address may do everything; loopback only")
	fl.StringVar(&f.TLS.Cert, "tls-cert", "", "file with the certificate chain, PEM")
	fl.StringVar(&f.TLS.Key, "tls-key", "", "file with its private key, PEM")
	fl.StringVar(&f.Log.Level, "log-level", "", strings.Join(logLevels, ", ")+" (default "+d.Log.Level+")")
	fl.StringVar(&f.Log.Format, "log-format", "", strings.Join(logFormats, ", ")+" (default "+d.Log.Format+")")
	fl.StringVar(&pprof, "pprof", "", "loopback address for profiles, such as 127.0.0.1:6060")
	return c
}

// hinted is an error with its cure.
type hinted struct {
	error
	hint string
}

func (e *hinted) Hint() string  { return e.hint }
func (e *hinted) Unwrap() error { return e.error }

// logger writes to stderr.
func (a *app) logger(c config.Log) *slog.Logger {
	o := &slog.HandlerOptions{}
	var level slog.Level
	if level.UnmarshalText([]byte(c.Level)) == nil {
		o.Level = level
	}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(a.stderr, o))
	}
	return slog.New(slog.NewTextHandler(a.stderr, o))
}
