package rest

import "sync"

// A Memo remembers a bounded number of facts that do not change. Its zero
// value is ready; it is safe for concurrent use.
type Memo[K comparable, V any] struct {
	mu sync.Mutex
	m  map[K]V
}

// maxMemo facts are remembered.
const maxMemo = 10_000

// Get returns the fact, or what ask says, which is remembered unless it failed.
func (m *Memo[K, V]) Get(k K, ask func() (V, error)) (V, error) {
	m.mu.Lock()
	v, ok := m.m[k]
	m.mu.Unlock()
	if ok {
		return v, nil
	}
	v, err := ask()
	if err != nil {
		return v, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.m == nil || len(m.m) >= maxMemo {
		m.m = map[K]V{}
	}
	m.m[k] = v
	return v, nil
}

// Forget forgets one fact.
func (m *Memo[K, V]) Forget(k K) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.m, k)
}
