package blob

// Waiting is how many callers of Sync wait for the round that has not begun.
func Waiting(d *Disk) int {
	d.sync.mu.Lock()
	defer d.sync.mu.Unlock()
	if d.sync.next == nil {
		return 0
	}
	return d.sync.next.waiting
}
