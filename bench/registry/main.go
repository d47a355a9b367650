// Command registry measures Cairn's registry against other registries, a web
// server and the disk, side by side on one machine, and writes a report.
//
// It owns the choice of what is measured and the targets it is held to. It
// promises that all contenders of a measurement run in the same minutes, in
// rounds that alternate between them, so that what disturbs the machine
// disturbs all; that every loop ends; and that nothing listens beyond
// loopback. It does not test correctness, and it does not fail when a target
// is missed: the report says so.
//
//	go run ./bench/registry [-o FILE] [-rounds N] [-seconds S] [-only LIST]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"cairn.dev/cairn/test/parts"
)

// options of a run.
type options struct {
	out     string        // report; standard output always gets the table
	dir     string        // where the servers keep their data: a real disk
	cairn   string        // binary; built when empty
	rounds  int           // of each measurement
	measure time.Duration // of each contender in each round
	only    []string      // measurements; all when empty
	small   bool          // sizes for a trial of the benchmark itself
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 && strings.HasPrefix(args[0], "child-") {
		return child(ctx, args[0], args[1:])
	}
	var o options
	var seconds float64
	var only string
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&o.out, "o", "", "file to write the report to")
	flags.StringVar(&o.dir, "dir", "", "folder on a real disk for the data (default: a new one in the temporary folder)")
	flags.StringVar(&o.cairn, "cairn", "", "the binary to measure (default: build it)")
	flags.IntVar(&o.rounds, "rounds", 7, "rounds of each measurement")
	flags.Float64Var(&seconds, "seconds", 2, "how long each contender is measured in each round")
	flags.StringVar(&only, "only", "", "measurements to make, separated by commas (default: all): "+strings.Join(measurementNames(), ","))
	flags.BoolVar(&o.small, "small", false, "small sizes, to try the benchmark itself")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || o.rounds < 1 || seconds <= 0 {
		return errors.New("takes flags only, at least one round, and a time above zero")
	}
	o.measure = time.Duration(seconds * float64(time.Second))
	if only != "" {
		o.only = strings.Split(only, ",")
		for _, n := range o.only {
			if !contains(measurementNames(), n) {
				return fmt.Errorf("no measurement is called %q; there are %s", n, strings.Join(measurementNames(), ", "))
			}
		}
	}
	if o.dir == "" {
		dir, err := os.MkdirTemp("", "cairn-bench-")
		if err != nil {
			return fmt.Errorf("make a folder for the data: %w", err)
		}
		defer os.RemoveAll(dir)
		o.dir = dir
	}
	if o.cairn == "" {
		say("building cairn")
		file, err := parts.Compile(ctx, "cairn", o.dir)
		if err != nil {
			return err
		}
		o.cairn = file
	}
	r, err := measureAll(ctx, o)
	if err != nil {
		return err
	}
	fmt.Println()
	fmt.Print(r.table())
	if o.out == "" {
		return nil
	}
	if err := os.WriteFile(o.out, []byte(r.markdown()), 0o644); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	say("wrote " + o.out)
	return nil
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// say prints progress, which is not part of the report.
func say(s string) { fmt.Fprintf(os.Stderr, "%s %s\n", time.Now().UTC().Format("15:04:05"), s) }
