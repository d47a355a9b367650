package cluster

import (
	"errors"
	"testing"
)

// A cluster is one test's at a time, and those that are free are taken first.
func TestSharedIsLentToOne(t *testing.T) {
	var s Shared
	if c, err := s.take(); c != nil || err != nil {
		t.Fatalf("%v, %v: there is none yet", c, err)
	}
	a, b := &Cluster{tb: t}, &Cluster{tb: t}
	s.started(a, nil)
	if c, _ := s.take(); c != nil {
		t.Fatal("what was just started is lent twice")
	}
	s.started(b, nil)
	s.back(a)
	if a.tb != nil {
		t.Error("what was given back still fails the test that had it")
	}
	if c, err := s.take(); c != a || err != nil {
		t.Errorf("%v, %v: want the one that was given back", c, err)
	}
	broken := errors.New("no more")
	s.started(nil, broken)
	if c, err := s.take(); c != nil || err != broken {
		t.Errorf("%v, %v: one did not start, and no other is to be tried", c, err)
	}
	s.back(b)
	if c, err := s.take(); c != b || err != nil {
		t.Errorf("%v, %v: want the one that was given back", c, err)
	}
}
