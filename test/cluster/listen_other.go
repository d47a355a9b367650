//go:build !linux

package cluster

import (
	"errors"
	"net"
)

func listenOn(int, string) (net.Listener, error) { return nil, errors.New(Unable()) }
