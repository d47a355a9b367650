//go:build !linux

package process

import (
	"context"
	"errors"
)

// Run refuses: tasks are kept apart by what only Linux has.
func Run(_ context.Context, c Config) error {
	if err := c.complete(); err != nil {
		return err
	}
	if _, err := c.api(); err != nil {
		return err
	}
	_ = inherited(c.Env)
	return errors.New("workers run on Linux only: start one in a container or virtual machine, or on a cluster")
}
