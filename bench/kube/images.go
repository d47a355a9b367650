package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"cairn.dev/cairn/test/images"
	"cairn.dev/cairn/test/parts"
)

// build makes a program of this repository.
func build(ctx context.Context, dir, name string) (string, error) {
	fmt.Fprintln(os.Stderr, "building", name)
	return parts.Compile(ctx, name, dir)
}

// fillRegistry starts a registry with the images of the real node, until stop.
func fillRegistry(ctx context.Context, dir string) (address string, stop func(), err error) {
	cairn, err := build(ctx, dir, "cairn")
	if err != nil {
		return "", nil, err
	}
	program, err := build(ctx, dir, "cairn-worker")
	if err != nil {
		return "", nil, err
	}
	if address, err = free(); err != nil {
		return "", nil, err
	}
	cmd := exec.CommandContext(ctx, cairn, "serve", "--open", "--listen", address, "--data", filepath.Join(dir, "registry"), "--log-level", "error")
	cmd.Env, cmd.Stderr = append(os.Environ(), "CAIRN_TOKEN="), os.Stderr
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() { _, _ = cmd.Process.Signal(os.Interrupt), cmd.Wait() }
	all, err := images.Build(ctx, os.Stderr, "library/busybox:1")
	if err == nil {
		var w images.Image
		w, err = images.OfProgram(program, "cairn/worker:1")
		all = append(all, w)
	}
	if err == nil {
		err = until(ctx, "the registry answers", time.Minute, func() (bool, error) { return answers(ctx, "http://"+address+"/readyz"), nil })
	}
	for _, i := range all {
		if err == nil {
			err = i.Push(ctx, address)
		}
	}
	if err != nil {
		stop()
		return "", nil, fmt.Errorf("a registry for the node: %w", err)
	}
	return address, stop, nil
}
