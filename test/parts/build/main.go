// Command build puts the programs that tests use into the cache, and installs
// Debian packages: what "make parts" runs. It can be interrupted and run
// again; what is there already is not built twice. It owns nothing but its
// command line; see package parts.
//
//	go run ./test/parts/build [-apt PACKAGES] [-list] [NAME...]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"cairn.dev/cairn/test/parts"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "parts:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("parts", flag.ContinueOnError)
	apt := flags.String("apt", "", "Debian packages to install where missing, separated by commas or spaces")
	list := flags.Bool("list", false, "print the table of parts and build nothing")
	none := flags.Bool("none", false, "build no part when none is named (default: all that tests use)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *list {
		for _, p := range parts.Table() {
			fmt.Printf("%-12s %-40s %s\n", p.Name, p.Version, p.Purpose)
		}
		return nil
	}
	if packages := strings.FieldsFunc(*apt, func(r rune) bool { return r == ',' || r == ' ' }); len(packages) > 0 {
		if err := parts.Install(ctx, os.Stderr, packages...); err != nil {
			return err
		}
	}
	names := flags.Args()
	if len(names) == 0 && !*none {
		for _, p := range parts.Table() {
			if !p.Alone {
				names = append(names, p.Name)
			}
		}
	}
	for _, name := range names {
		file, err := parts.Build(ctx, name, os.Stderr)
		if err != nil {
			return err
		}
		fmt.Println(file)
	}
	return nil
}
