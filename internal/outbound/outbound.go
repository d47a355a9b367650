// Package outbound makes connections to addresses that a user wrote down: the
// requests of workflows, and artifacts that are fetched for them.
//
// It owns which addresses are refused, so that nobody reads through the server
// what only the server itself may reach: the services of its own machine, and
// those by which a cloud tells a machine its secrets. It promises that the
// address which was looked at is the one that is connected to, whatever a name
// resolves to a moment later and wherever an answer redirects. It does not
// refuse private networks, whose registries and stores a company's workflows
// are there to use; and it bounds no body and follows no redirect, which who
// makes a request does.
package outbound

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"
)

// ErrRefused means that an address is not connected to.
var ErrRefused = errors.New("the server connects there for nobody unless its configuration allows it")

// Never reports whether no connection can be made, however often it is tried:
// the address is refused, or there is no host of the name, as who answers for
// its domain says (RFC 2308 section 2). A resolver that does not answer, or
// cannot today, says nothing of the kind.
func Never(err error) bool {
	if errors.Is(err, ErrRefused) {
		return true
	}
	d, ok := errors.AsType[*net.DNSError](err)
	return ok && d.IsNotFound && !d.IsTemporary && !d.IsTimeout
}

// The bounds of a connection. An answer has to begin in time, too; how long it
// may take as a whole is for the context of the request to say.
const (
	dialTimeout   = 10 * time.Second
	answerTimeout = 5 * time.Minute
	maxHeader     = 64 << 10
)

// Transport makes connections to what [Check] allows, or to anything when open
// is set. It uses no proxy, because it could not know what that connects to,
// unless it is open; then it uses that of the environment.
func Transport(open bool) *http.Transport {
	d := &net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
	t := &http.Transport{
		DialContext: d.DialContext, TLSHandshakeTimeout: dialTimeout, ResponseHeaderTimeout: answerTimeout, MaxResponseHeaderBytes: maxHeader,
		MaxIdleConns: 100, MaxIdleConnsPerHost: 4, IdleConnTimeout: 90 * time.Second, ForceAttemptHTTP2: true,
	}
	if open {
		t.Proxy = http.ProxyFromEnvironment
		return t
	}
	// Control sees each address that is about to be connected to, after the name
	// was resolved.
	d.Control = func(_, address string, _ syscall.RawConn) error {
		a, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrRefused, err)
		}
		return Check(a.Addr())
	}
	return t
}

// told are single addresses by which clouds tell a machine about itself and
// that lie in no range of their own: those of EC2 and of Google over IPv6, of
// Azure, of Oracle and of Alibaba.
var told = [...]netip.Addr{
	netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("fd00:ec2::23"), netip.MustParseAddr("fd20:ce::254"),
	netip.MustParseAddr("168.63.129.16"), netip.MustParseAddr("192.0.0.192"), netip.MustParseAddr("100.100.100.200"),
}

// within are ranges of IPv6 that hold addresses of IPv4, and at which byte
// (RFC 6052 section 2.1, RFC 8215, RFC 3056 section 2).
var within = [...]struct {
	prefix netip.Prefix
	at     int
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12},
	{netip.MustParsePrefix("64:ff9b:1::/48"), 12},
	{netip.MustParsePrefix("2002::/16"), 2},
	{netip.MustParsePrefix("::/96"), 12},
}

// zeros is "this network" (RFC 1122 section 3.2.1.3): Linux takes 0.0.0.0 for
// itself.
var zeros = netip.MustParsePrefix("0.0.0.0/8")

// Check returns an error that is [ErrRefused] for an address of this machine,
// of its link, of a cloud's word to it, or of many.
func Check(a netip.Addr) error {
	a = a.Unmap().WithZone("")
	for _, w := range within {
		if a.Is6() && w.prefix.Contains(a) && !a.IsUnspecified() && !a.IsLoopback() {
			b := a.As16()
			if err := Check(netip.AddrFrom4([4]byte(b[w.at : w.at+4]))); err != nil {
				return err
			}
		}
	}
	what := ""
	switch {
	case a.IsLoopback(), a.IsUnspecified(), a.Is4() && zeros.Contains(a):
		what = "is of the server's own machine"
	case a.IsLinkLocalUnicast():
		what = "is of the server's link, where a cloud tells machines their secrets"
	case a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		what = "is of many"
	}
	for _, t := range told {
		if a == t {
			what = "is where a cloud tells machines their secrets"
		}
	}
	if what == "" {
		return nil
	}
	return fmt.Errorf("the address %s %s: %w", a, what, ErrRefused)
}
