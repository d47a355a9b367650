package cluster

import (
	"errors"
	"sync"
	"testing"

	"cairn.dev/cairn/test/parts"
)

// Shared is clusters of one kind for the tests of a package: a test has one to
// itself while it runs, and the next one gets the same. There are as many as
// tests that want one run at a time; each starts when there is no other that is
// free. Tests leave them as they found them, and TestMain closes them all.
type Shared struct {
	Options Options

	mu   sync.Mutex
	all  []*Cluster
	free []*Cluster
	err  error // of the first that did not start: no other is tried
}

// Lend gives a cluster to a test until that ends: what fails, fails that test.
// Cleanups that the test registers afterwards come before it is given back.
func (s *Shared) Lend(t testing.TB) *Cluster {
	t.Helper()
	if why := Unable(); why != "" {
		parts.Missing(t, why)
	}
	c, err := s.take()
	if c == nil && err == nil {
		c, err = New(t.Context(), s.Options)
		s.started(c, err)
	}
	if err != nil {
		fail(t, err)
	}
	t.Cleanup(func() { s.back(c) })
	c.attach(t)
	return c
}

// take is a cluster that is free, or nil.
func (s *Shared) take() (*Cluster, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.free); n > 0 {
		c := s.free[n-1]
		s.free = s.free[:n-1]
		return c, nil
	}
	return nil, s.err
}

func (s *Shared) started(c *Cluster, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.err = err
		return
	}
	s.all = append(s.all, c)
}

func (s *Shared) back(c *Cluster) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.tb = nil
	s.free = append(s.free, c)
}

// Close ends the clusters. No test may have one.
func (s *Shared) Close() error {
	var errs []error
	for _, c := range s.all {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
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
