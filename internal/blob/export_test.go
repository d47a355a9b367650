package blob

import "os"

// Waiting is how many callers of Sync wait for the round that has not begun.
func Waiting(d *Disk) int {
	d.sync.mu.Lock()
	defer d.sync.mu.Unlock()
	if d.sync.next == nil {
		return 0
	}
	return d.sync.next.waiting
}

// Watch has f called before each sync of the whole file system ("all") and of
// a log ("log"), which fails with what f returns.
func Watch(d *Disk, f func(what string) error) {
	all, log := d.sync.syncAll, d.sync.syncLog
	d.sync.syncAll = func(root *os.File) error {
		if err := f("all"); err != nil {
			return err
		}
		return all(root)
	}
	d.sync.syncLog = func(l *os.File) error {
		if err := f("log"); err != nil {
			return err
		}
		return log(l)
	}
}
