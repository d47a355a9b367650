package cluster

import (
	"errors"
	"testing"

	"cairn.dev/cairn/test/parts"
)

// Shared is one cluster for the tests of a package, one after the other: it
// starts with the first that wants it. Tests leave it as they found it, and
// TestMain closes it.
type Shared struct {
	Options Options

	c   *Cluster
	err error
}

// Lend gives the cluster to a test until that ends: what fails, fails that test.
func (s *Shared) Lend(t testing.TB) *Cluster {
	t.Helper()
	if why := Unable(); why != "" {
		parts.Missing(t, why)
	}
	if s.c == nil && s.err == nil {
		s.c, s.err = New(t.Context(), s.Options)
	}
	if s.err != nil {
		fail(t, s.err)
	}
	if s.c.tb != nil {
		t.Fatalf("the cluster is lent to %s, which has not ended", s.c.tb.Name())
	}
	s.c.attach(t)
	t.Cleanup(func() { s.c.tb = nil })
	return s.c
}

// Close ends the cluster, if there is one.
func (s *Shared) Close() error {
	if s.c == nil {
		return nil
	}
	return s.c.Close()
}

// fail ends a test whose cluster did not start.
func fail(t testing.TB, err error) {
	t.Helper()
	var m missing
	if errors.As(err, &m) {
		parts.Missing(t, err.Error()+"; then: make parts")
	}
	t.Fatal(err)
}

// attach has the helpers fail this test, which shows what the programs said if
// it fails.
func (c *Cluster) attach(t testing.TB) {
	c.tb = t
	t.Cleanup(func() {
		if t.Failed() {
			select {
			case err := <-c.keeper.failed:
				t.Log(err)
			default:
			}
			t.Log(c.Logs(15))
		}
	})
}
