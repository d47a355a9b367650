package outbound

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"syscall"
	"testing"
)

// What no waiting mends is told apart from a network that is down today.
func TestNever(t *testing.T) {
	_, nobody := net.DefaultResolver.LookupHost(t.Context(), strings.Repeat("a", 64)+".example") // a label that no name may have
	for _, c := range []struct {
		err   error
		never bool
	}{
		{Check(netip.MustParseAddr("127.0.0.1")), true},
		{nobody, true},
		{&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "h", IsNotFound: true}}, true},
		{&net.DNSError{Err: "server misbehaving", Name: "h", IsTemporary: true}, false},
		{&net.DNSError{Err: "i/o timeout", Name: "h", IsTimeout: true}, false},
		{&net.DNSError{Err: "no such host, but one of two did not answer", Name: "h", IsNotFound: true, IsTemporary: true}, false},
		{syscall.ECONNREFUSED, false},
		{nil, false},
	} {
		if got := Never(c.err); got != c.never {
			t.Errorf("%v: %v", c.err, got)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		addr    string
		refused bool
	}{
		{"127.0.0.1", true}, {"127.9.8.7", true}, {"::1", true}, {"::ffff:127.0.0.1", true}, {"::127.0.0.1", true},
		{"0.0.0.0", true}, {"0.1.2.3", true}, {"::", true}, {"::ffff:0.0.0.0", true},
		{"169.254.169.254", true}, {"::ffff:169.254.169.254", true}, {"fe80::1", true}, {"fe80::1%lo", true},
		{"64:ff9b::a9fe:a9fe", true}, {"64:ff9b:1::a9fe:a9fe", true}, {"2002:7f00:1::", true}, {"2002:a9fe:a9fe::1", true},
		{"fd00:ec2::254", true}, {"fd20:ce::254", true}, {"168.63.129.16", true}, {"100.100.100.200", true}, {"192.0.0.192", true},
		{"224.0.0.1", true}, {"ff02::1", true}, {"255.255.255.255", true},
		{"10.0.0.1", false}, {"192.168.1.1", false}, {"172.16.0.1", false}, {"100.64.0.1", false}, {"fd00::1", false},
		{"1.1.1.1", false}, {"2606:4700::1111", false}, {"64:ff9b::101:101", false}, {"2002:101:101::", false}, {"128.0.0.1", false},
	} {
		if err := Check(netip.MustParseAddr(c.addr)); errors.Is(err, ErrRefused) != c.refused {
			t.Errorf("%s: %v", c.addr, err)
		}
	}
}

func TestTransport(t *testing.T) {
	asked := 0
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	defer s.Close()
	port := s.URL[strings.LastIndex(s.URL, ":"):]
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433"} {
		tr := Transport(false)
		tr.DisableKeepAlives = true
		r, err := (&http.Client{Transport: tr}).Get("http://" + host + port)
		if err == nil {
			r.Body.Close()
			t.Errorf("%s was asked", host)
		} else if host != "2130706433" && !errors.Is(err, ErrRefused) { // that one is no name for some resolvers
			t.Errorf("%s: %v", host, err)
		}
	}
	if asked != 0 {
		t.Errorf("the server was asked %d times", asked)
	}
	r, err := (&http.Client{Transport: Transport(true)}).Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
}
