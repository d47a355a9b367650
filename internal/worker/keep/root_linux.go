package keep

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"cairn.dev/cairn/internal/worker/isolate"
)

// enter makes the root that a worker described the one of this thread.
func (k *kept) enter(r isolate.Root) error {
	if k.files != nil {
		_ = k.files.Close()
		k.files = nil
	}
	if k.inside != nil {
		if err := k.inside.Leave(); err != nil {
			return err
		}
		k.inside = nil
	}
	inside, err := r.Enter()
	if err != nil {
		return fmt.Errorf("assemble a fresh root: %w", err)
	}
	if err := isolate.Renounce(r); err != nil {
		return fmt.Errorf("renounce what made the root: %w", err)
	}
	if r.Again && (k.barred || isolate.ForbidKeys() == nil) { // else it is for one task, like others
		k.inside, k.barred, k.used = inside, true, false
	}
	return nil
}

// renew has the next task find what this one found.
func (k *kept) renew() report {
	if k.inside == nil {
		return failure(errors.New("this root is for one task"))
	}
	// Queues, semaphores and memory that have names are nobody's when their
	// maker ends.
	if err := unix.Unshare(unix.CLONE_NEWIPC); err != nil {
		return failure(fmt.Errorf("leave what tasks told each other: %w", err))
	}
	left, err := k.inside.Renew()
	rep := outcome(err)
	rep.Left = left
	k.used = k.used && err != nil
	return rep
}
