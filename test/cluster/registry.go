package cluster

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
)

// Expose makes a server that listens on an address of this computer, such as
// 127.0.0.1:5080, reachable for nodes and pods, and returns the address they
// use. It ends with the cluster.
func (c *Cluster) Expose(address string) (string, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(c.HostIP, "0"))
	if err != nil {
		return "", fmt.Errorf("expose %s to the cluster: %w", address, err)
	}
	c.lock.Lock()
	c.forwards = append(c.forwards, l)
	c.lock.Unlock()
	go forward(l, func() string { return address }, pass)
	return l.Addr().String(), nil
}

// NodeRegistry is the address of Options.Registry on each real node: images may
// be called 127.0.0.1:5000/team/app:v1 as well as by the names of the mirrored
// registries. It stays the same when [Cluster.SetRegistry] names another one.
const NodeRegistry = "127.0.0.1:5000"

// Registry is the address of Options.Registry for pods.
func (c *Cluster) Registry() string { return net.JoinHostPort(c.HostIP, "5000") }

// SetRegistry sends nodes to another registry from now on, for instance to the
// same one after it came back on another port.
func (c *Cluster) SetRegistry(address string) {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.opts.Registry = address
}

// exposeRegistry lets nodes and pods reach the registry, and tells the nodes'
// container runtimes which names of images it answers for. Nodes find it on
// their own loopback address, because that is what a Cairn that is open to all
// answers to.
func (c *Cluster) exposeRegistry() error {
	target := func() string {
		c.lock.Lock()
		defer c.lock.Unlock()
		return c.opts.Registry
	}
	l, err := net.Listen("tcp", c.Registry())
	if err != nil {
		return fmt.Errorf("expose the registry to pods: %w", err)
	}
	listeners := []net.Listener{l}
	content := fmt.Sprintf("server = \"http://%[1]s\"\n[host.\"http://%[1]s\"]\ncapabilities = [\"pull\", \"resolve\"]\n", NodeRegistry)
	for i := range c.opts.Nodes {
		l, err := listenOn(c.keeper.pid(i), NodeRegistry)
		if err != nil {
			return fmt.Errorf("expose the registry to %s: %w", nodeName(i), err)
		}
		listeners = append(listeners, l)
		for _, name := range c.opts.Mirrored {
			dir := filepath.Join(c.nodeDir(i), "hosts", name)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(content), 0o644); err != nil {
				return err
			}
		}
	}
	c.lock.Lock()
	defer c.lock.Unlock()
	c.forwards = append(c.forwards, listeners...)
	for _, l := range listeners {
		go forward(l, target, pass)
	}
	return nil
}

// pass passes on what comes.
func pass(dst, src net.Conn) { _, _ = io.Copy(dst, src) }

// forward passes both ways between each connection to l and one to the target,
// until either side has nothing more to say.
func forward(l net.Listener, target func() string, pass func(dst, src net.Conn)) {
	for {
		from, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		go func() {
			defer from.Close()
			to, err := net.Dial("tcp", target())
			if err != nil {
				return
			}
			defer to.Close()
			var wg sync.WaitGroup
			pipe := func(dst, src net.Conn) {
				pass(dst, src)
				if t, ok := dst.(*net.TCPConn); ok {
					_ = t.CloseWrite()
				}
			}
			wg.Go(func() { pipe(to, from) })
			pipe(from, to)
			wg.Wait()
		}()
	}
}
