package upstream

import (
	"net/http"
	"reflect"
	"testing"
	"time"
)

func TestChallenges(t *testing.T) {
	type c = challenge
	type m = map[string]string
	for _, tc := range []struct {
		in   string
		want []challenge
	}{
		{`Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/busybox:pull"`,
			[]c{{"bearer", m{"realm": "https://auth.docker.io/token", "service": "registry.docker.io", "scope": "repository:library/busybox:pull"}}}},
		{`Basic realm="a, b"`, []c{{"basic", m{"realm": "a, b"}}}},
		{`Basic realm=plain, charset="UTF-8"`, []c{{"basic", m{"realm": "plain", "charset": "UTF-8"}}}},
		{`Negotiate, Basic realm="x", Bearer realm = "y" , service=z`, []c{{"negotiate", m{}}, {"basic", m{"realm": "x"}}, {"bearer", m{"realm": "y", "service": "z"}}}},
		{`BEARER REALM="y",realm="z"`, []c{{"bearer", m{"realm": "y"}}}},
		{`Bearer realm="a\"b\\c"`, []c{{"bearer", m{"realm": `a"b\c`}}}},
		{`Bearer realm="open`, []c{{"bearer", m{"realm": "open"}}}},
		{`Bearer realm="open\`, []c{{"bearer", m{"realm": "open"}}}},
		{`Bearer realm=`, []c{{"bearer", m{"realm": ""}}}},
		{`"Bearer`, nil},
		{``, nil},
		{` , ,`, nil},
	} {
		got := challenges(http.Header{"Www-Authenticate": {tc.in}})
		if !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s:\n got %v\nwant %v", tc.in, got, tc.want)
		}
	}
}

func FuzzChallenges(f *testing.F) {
	f.Add(`Bearer realm="https://auth.docker.io/token",service="s", Basic x=y`)
	f.Add(`a "b`)
	f.Fuzz(func(t *testing.T, s string) {
		n := 0
		for _, c := range parseChallenges(s) {
			n += len(c.scheme)
			for k, v := range c.params {
				n += len(k) + len(v)
			}
		}
		if n > 2*len(s) { // lower case may be longer
			t.Errorf("%q: %d bytes came out", s, n)
		}
	})
}

// The gate by itself: who is let through when.
func TestGate(t *testing.T) {
	down := &Error{Kind: Unreachable}
	var g gate
	pass := func(now time.Duration, want bool) {
		t.Helper()
		if got := g.enter(now) == nil; got != want {
			t.Fatalf("at %s: let through %v, want %v", now, got, want)
		}
	}
	// Two failures may be about an image.
	for range tolerated {
		pass(0, true)
		g.leave(0, down, false)
	}
	pass(0, true)
	g.leave(0, down, false)
	pass(0, false) // the third in a row is the upstream's
	pass(4*time.Second-1, false)
	pass(4*time.Second, true) // one may look
	pass(4*time.Second, false)
	g.leave(5*time.Second, down, false)
	pass(12*time.Second, false)
	pass(13*time.Second, true)
	g.leave(13*time.Second, &Error{Kind: NotFound}, false) // an answer is an answer
	pass(13*time.Second, true)
	pass(13*time.Second, true)
	g.leave(13*time.Second, nil, false)
	// A pause never grows beyond what people wait for.
	now := time.Minute
	for range 100 {
		pass(now, true)
		g.leave(now, down, true)
		now += longPause
	}
	pass(now, true)
	g.cancel()
	pass(now, true) // who gave up has found out nothing
	g.leave(now, nil, false)
	// An answer that was under way does not end what a 429 asked for.
	pass(now, true)
	g.leave(now, &Error{Kind: Busy, RetryAfter: time.Hour}, false)
	g.leave(now, nil, false)
	if e := g.enter(now + time.Minute); e == nil || e.Kind != Busy || e.RetryAfter != 59*time.Minute {
		t.Fatalf("during a 429: %+v", e)
	}
	pass(now+time.Hour, true)
}
