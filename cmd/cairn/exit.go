package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"cairn.dev/cairn/internal/api/wire"
	"cairn.dev/cairn/internal/client"
	"cairn.dev/cairn/internal/image"
)

// Exit codes, which scripts rely on.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitHeld        = 3
	exitNotFound    = 4
	exitForbidden   = 5
	exitUnreachable = 6
	exitRunFailed   = 7
	exitRunCanceled = 8
	exitInterrupted = 130
)

const exitCodes = `  0    done
  1    failed; the message says what and what to do
  2    the command line is wrong
  3    refused or held back: it needs --yes, something is in use, or Cairn is
       not sure and does nothing
  4    the image, repository, reporter, account or run does not exist
  5    not allowed with this secret, or no secret given
  6    no server answered
  7    the run that was waited for failed, or ended with an error
  8    the run that was waited for was canceled
  130  interrupted

` + "`cairn run --wait`" + ` of one container ends with the exit code of its program, when
that failed.
`

func exitCodesTopic() *cobra.Command {
	return &cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: "Every command ends with one of these exit codes:\n\n" + exitCodes}
}

// usageError is a mistake on the command line.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// heldError is a refusal that is not the server's.
type heldError struct{ msg, hint string }

func (e *heldError) Error() string { return e.msg }
func (e *heldError) Hint() string  { return e.hint }

// takes allows between least and most arguments.
func takes(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		n := len(args)
		if least <= n && n <= most {
			return nil
		}
		got := "none was given"
		switch {
		case n == 1:
			got = fmt.Sprintf("%q was given", args[0])
		case n > 1:
			got = fmt.Sprintf("%d were given", n)
		}
		want := fmt.Sprintf("%d", least)
		switch {
		case most == 0:
			want = "no"
		case least == 0:
			want = fmt.Sprintf("at most %d", most)
		}
		noun := "arguments"
		if most == 1 {
			noun = "argument"
		}
		return usagef("%s takes %s %s, %s; write: %s", cmd.CommandPath(), want, noun, got, strings.TrimSuffix(cmd.UseLine(), " [flags]"))
	}
}

// exitCode tells the kinds of failure apart.
func exitCode(err error) int {
	var nameErr *image.NameError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.As(err, new(*usageError)), errors.As(err, &nameErr):
		return exitUsage
	case errors.As(err, new(*heldError)):
		return exitHeld
	case errors.As(err, new(*client.Unreachable)):
		return exitUnreachable
	}
	if e, ok := errors.AsType[*programError](err); ok {
		return e.code
	}
	if e, ok := errors.AsType[*runError](err); ok {
		if e.phase == "canceled" {
			return exitRunCanceled
		}
		return exitRunFailed
	}
	if p, ok := errors.AsType[*wire.Problem](err); ok {
		switch p.Status {
		case http.StatusNotFound:
			return exitNotFound
		case http.StatusConflict, http.StatusPreconditionRequired, http.StatusLocked:
			return exitHeld
		case http.StatusUnauthorized, http.StatusForbidden:
			return exitForbidden
		}
	}
	return exitError
}

// report prints the error, with its hint, and returns the exit code.
func (a *app) report(cmd *cobra.Command, err error) int {
	code := exitCode(err)
	switch {
	case err == nil, code == exitInterrupted:
		return code
	}
	// cobra's own errors about unknown commands are usage errors, too.
	if strings.HasPrefix(err.Error(), "unknown command") || strings.HasPrefix(err.Error(), "required flag") {
		code = exitUsage
	}
	fmt.Fprintf(a.stderr, "cairn: %s\n", strings.TrimSpace(err.Error()))
	if h := hint(err); h != "" {
		fmt.Fprintf(a.stderr, "  %s\n", h)
	} else if code == exitUsage && !errors.As(err, new(*programError)) {
		fmt.Fprintf(a.stderr, "  `%s --help` shows how it is used\n", cmd.CommandPath())
	}
	return code
}

func hint(err error) string {
	if p, ok := errors.AsType[*wire.Problem](err); ok {
		return p.Hint
	}
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}
