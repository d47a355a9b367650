package kube

import (
	"fmt"

	"cairn.dev/cairn/internal/usage"
)

// A store takes what a reflector reads of one kind into the model.
type store struct {
	cluster *Cluster
	kind    *kind
}

// Add implements cache.ReflectorStore.
func (s *store) Add(obj any) error {
	return s.take(obj, func(i *item) []usage.Use { return s.cluster.model.put(i, false) })
}

// Update implements cache.ReflectorStore.
func (s *store) Update(obj any) error { return s.Add(obj) }

// Delete implements cache.ReflectorStore.
func (s *store) Delete(obj any) error {
	return s.take(obj, func(i *item) []usage.Use { return s.cluster.model.drop(i, s.cluster.clock.Now()) })
}

func (s *store) take(obj any, do func(*item) []usage.Use) error {
	i, ok := obj.(*item)
	if !ok {
		return fmt.Errorf("a reflector of %s brought a %T", s.kind.resource, obj)
	}
	s.cluster.mu.Lock()
	uses, seen := do(i), s.cluster.seen
	s.cluster.mu.Unlock()
	if len(uses) > 0 {
		seen(uses...)
	}
	return nil
}

// Replace implements cache.ReflectorStore: a whole list was read. What it lacks
// went away while nobody watched.
func (s *store) Replace(list []any, _ string) error {
	c := s.cluster
	c.mu.Lock()
	var uses []usage.Use
	now := c.clock.Now()
	listed := make(map[place]bool, len(list))
	for _, obj := range list {
		i, ok := obj.(*item)
		if !ok {
			c.mu.Unlock()
			return fmt.Errorf("a list of %s has a %T", s.kind.resource, obj)
		}
		listed[place{i.namespace, i.name}] = true
		uses = append(uses, c.model.put(i, !s.kind.synced)...)
	}
	for at, i := range c.model.kinds[intern(s.kind.name)] {
		if !listed[at] {
			uses = append(uses, c.model.drop(i, now)...)
		}
	}
	s.kind.synced = true
	seen := c.seen
	c.mu.Unlock()
	if len(uses) > 0 {
		seen(uses...)
	}
	return nil
}

// Resync implements cache.ReflectorStore.
func (s *store) Resync() error { return nil }
