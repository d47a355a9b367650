package main

import (
	"context"
	"fmt"
	"time"

	"cairn.dev/cairn/bench/load"
	"cairn.dev/cairn/internal/clock"
)

// measureLedger compares the registry that records pulls with the same one
// that does not, each in a process of its own.
func measureLedger(ctx context.Context, o options, _ *field) (result, error) {
	c := makeCargo()
	path := "/v2/" + repository + "/manifests/latest"
	var list []contender
	for _, name := range []string{"ledger on", "ledger off"} {
		s, err := startChild(ctx, o, name, "child-ledger", name[len("ledger "):])
		if err != nil {
			return result{}, err
		}
		defer s.stop()
		if err := c.push(ctx, s.addr); err != nil {
			return result{}, fmt.Errorf("fill %s: %w", name, err)
		}
		list = append(list, o.rate(s, 64, load.Get(s.addr, path, mediaType, int64(len(c.manifest)))))
	}
	// The difference looked for is a twentieth: twice the rounds.
	s, err := interleave(ctx, 2*o.rounds, list)
	if err != nil {
		return result{}, err
	}
	ratio := s.ratio("ledger on", "ledger off")
	return result{
		name:     "Ledger",
		title:    "Manifest GET by tag with the ledger on and off, 64 connections, without access control",
		rows:     rows(s, list, "/s"),
		verdicts: []verdict{{"≥ 0.95×", fmt.Sprintf("%.3f×", ratio), ratio >= 0.95}},
	}, nil
}

// childLedger serves the registry. ARGS: address, folder, on or off.
func childLedger(ctx context.Context, args []string) error {
	r, err := openRooms(ctx, args[1], clock.NewFake(time.Now()))
	if err != nil {
		return err
	}
	defer r.Close()
	go func() { _ = r.ledger.Run(ctx) }()
	return listen(ctx, args[0], r.handler(args[2] == "on"))
}
