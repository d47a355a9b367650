package work_test

import (
	"net"
	"sync"
	"testing"
)

// A wireTap is a network between the server and somebody who asks it: an
// address that stays while servers come and go, a line that can be cut, and a
// place where what is said can be counted.
type wireTap struct {
	listener net.Listener

	mu    sync.Mutex
	back  string // where the server is
	cut   bool
	conns map[net.Conn]bool
	count int
	at    int        // the piece at which act is called; 0: none
	up    bool       // of those to the server
	act   func()     // called once, without the lock
	goes  *sync.Cond // signalled when cut ends
}

func newWireTap(t *testing.T) *wireTap {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wireTap{listener: l, conns: map[net.Conn]bool{}}
	w.goes = sync.NewCond(&w.mu)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go w.serve(c)
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		w.hang(false)
		w.drop()
	})
	return w
}

func (w *wireTap) url() string { return "http://" + w.listener.Addr().String() }

// to says where the server is now.
func (w *wireTap) to(address string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.back = address
}

// hang cuts the line as a network does: nobody is told, nothing arrives. What
// was on its way arrives when it is whole again.
func (w *wireTap) hang(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = on
	w.goes.Broadcast()
}

// drop ends all connections, as a network that was mended may.
func (w *wireTap) drop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		_ = c.Close()
	}
}

// arm has act called at the n-th piece from now on, up to the server or down
// from it. A piece up arrives and is not answered; one down is lost: what was
// done is not heard of.
func (w *wireTap) arm(n int, up bool, act func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count, w.at, w.up, w.act = 0, n, up, act
}

func (w *wireTap) serve(c net.Conn) {
	w.mu.Lock()
	back := w.back
	w.mu.Unlock()
	b, err := net.Dial("tcp", back)
	if err != nil {
		_ = c.Close()
		return
	}
	w.mu.Lock()
	w.conns[c], w.conns[b] = true, true
	w.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { w.pump(b, c, true) })
	both.Go(func() { w.pump(c, b, false) })
	both.Wait()
	w.mu.Lock()
	delete(w.conns, c)
	delete(w.conns, b)
	w.mu.Unlock()
}

func (w *wireTap) pump(to, from net.Conn, up bool) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		act := w.pass(up)
		if act != nil && !up {
			act()
			return
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if act != nil {
			act()
		}
		if err != nil {
			return
		}
	}
}

// pass waits while the line is cut, and says what is due at this piece.
func (w *wireTap) pass(up bool) (act func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.cut {
		w.goes.Wait()
	}
	if w.at > 0 && w.up == up {
		if w.count++; w.count == w.at {
			act, w.at, w.act = w.act, 0, nil
		}
	}
	return act
}
