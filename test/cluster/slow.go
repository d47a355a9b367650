package cluster

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// etcdPort is where etcd listens, and etcdDoor where the API server finds it
// when this process is in between.
const (
	etcdPort = "2379"
	etcdDoor = "127.0.0.1:2378"
)

// DelayEtcd holds back each piece of what the API server and etcd say to each
// other for a while that is chosen anew each time, until it is called again; 0
// and 0 end it. Pieces stay in order, and those that follow each other closely
// are late together: it is slow, not narrow. It needs [Options.EtcdDoor].
func (c *Cluster) DelayEtcd(least, most time.Duration) {
	c.slow.mu.Lock()
	defer c.slow.mu.Unlock()
	c.slow.least, c.slow.most = least, most
}

// delay is how long something is held back.
type delay struct {
	mu          sync.Mutex
	least, most time.Duration
}

func (d *delay) next() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.most <= d.least {
		return d.least
	}
	return d.least + rand.N(d.most-d.least)
}

// openEtcd puts this process between the API server and etcd.
func (c *Cluster) openEtcd(n network) error {
	l, err := listenOn(c.keeper.pid(0), etcdDoor)
	if err != nil {
		return fmt.Errorf("stand between the API server and etcd: %w", err)
	}
	c.lock.Lock()
	c.forwards = append(c.forwards, l)
	c.lock.Unlock()
	etcd := net.JoinHostPort(n.machine(0), etcdPort)
	go forward(l, func() string { return etcd }, c.slow.copy)
	return nil
}

// piece is what came at once, and when it is passed on.
type piece struct {
	bytes []byte
	due   time.Time
}

// copy passes on what comes, late.
func (d *delay) copy(dst, src net.Conn) {
	pieces := make(chan piece, 1024)
	go func() {
		defer close(pieces)
		buf := make([]byte, 64<<10)
		for {
			n, err := src.Read(buf)
			if n > 0 {
				pieces <- piece{append([]byte(nil), buf[:n]...), time.Now().Add(d.next())}
			}
			if err != nil {
				return
			}
		}
	}()
	broken := false
	for p := range pieces {
		if broken {
			continue // whoever reads is let go
		}
		time.Sleep(time.Until(p.due))
		if _, err := dst.Write(p.bytes); err != nil {
			broken = true
			src.Close()
		}
	}
}
