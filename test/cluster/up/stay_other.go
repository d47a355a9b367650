//go:build !linux

package main

import "os/exec"

func stay(*exec.Cmd) {}
