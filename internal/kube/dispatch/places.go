package dispatch

// maxPlaces bounds the tasks of a run of which is remembered which pod had them:
// more are not shown of one run anywhere.
const maxPlaces = 100

// place notes that a pod has a task; the lock is held.
func (d *Dispatcher) place(run, task, pod string) {
	m := d.places[run]
	if m == nil {
		m = map[string]string{}
		d.places[run] = m
	}
	if _, known := m[task]; known || len(m) < maxPlaces {
		m[task] = pod
	}
}

// Place is the pod that has a task of a run, or had it last; "" when that is not
// known: of many tasks of a run some are, of a run that has ended for some
// minutes, and none from before this process.
func (d *Dispatcher) Place(run, task string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.places[run][task]
}
