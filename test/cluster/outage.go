package cluster

import (
	"context"
	"fmt"
	"os/exec"
	"syscall"
)

// Stop kills a program at once, as a crash does: "etcd", "kube-apiserver",
// "kube-controller-manager", "kube-scheduler", "kwok" on machine 0,
// "containerd" and "kubelet" on each real node's machine. Containers live on.
func (c *Cluster) Stop(ctx context.Context, machine int, program string) error {
	if err := c.keeper.stop(ctx, machine, program, syscall.SIGKILL); err != nil {
		return fmt.Errorf("stop %s: %w", program, err)
	}
	return nil
}

// Run starts a program again that was stopped. It does not wait until it is
// ready: see [Cluster.Ready].
func (c *Cluster) Run(ctx context.Context, machine int, program string) error {
	if err := c.keeper.start(ctx, machine, program); err != nil {
		return fmt.Errorf("start %s: %w", program, err)
	}
	return nil
}

// Ready waits until the API answers and all nodes are ready.
func (c *Cluster) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyWithin, fmt.Errorf("not ready after %s", readyWithin))
	defer cancel()
	return c.ready(ctx)
}

// Disconnect cuts the network between this computer and all machines of the
// cluster (and between these), until [Cluster.Connect].
func (c *Cluster) Disconnect() error { return c.link("down") }

// Connect ends what [Cluster.Disconnect] began.
func (c *Cluster) Connect() error { return c.link("up") }

func (c *Cluster) link(state string) error {
	machines := max(1, c.opts.Nodes)
	for i := range machines {
		port := fmt.Sprintf("%sm%d", c.Name, i)
		if out, err := exec.Command("ip", "link", "set", port, state).CombinedOutput(); err != nil {
			return fmt.Errorf("set the network of machine %d %s: %w: %s", i, state, err, out)
		}
	}
	return nil
}
