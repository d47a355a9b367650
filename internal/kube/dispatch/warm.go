package dispatch

import (
	"crypto/sha256"
	"encoding/hex"
	"iter"
	"strings"

	"cairn.dev/cairn/internal/task"
)

// warmPrefix begins what stands in place of a run where pods are shared by all
// runs of a namespace. No run is called so: their names have no dash.
const warmPrefix = "warm-"

// Shared says whether what stands in place of a run, in a [Demand] or a label,
// is none: its pods are for all runs of their namespace.
func Shared(run string) bool { return strings.HasPrefix(run, warmPrefix) }

// sharedBy is what stands in place of a run for pods of a namespace. Names of
// namespaces may be as long as labels, hence the digest.
func sharedBy(namespace string) string {
	sum := sha256.Sum256([]byte(namespace))
	return warmPrefix + hex.EncodeToString(sum[:6])
}

// sharable says whether pods of this shape may run tasks of several runs: they
// can be told apart from nothing, and nothing in them is one run's own.
func (s *Shape) sharable() bool {
	return !s.Single() && s.Isolation != "shared" && s.Pod["volumeClaimTemplates"] == nil
}

// covers says whether a lease may be one of the bearer's. Its own token is what
// proves that it is.
func (c Claims) covers(l task.Ref) bool { return c.Run == l.Run || Shared(c.Run) }

// owner is the run that a group belongs to, or what stands in its place; nil
// where there is none. The lock is held.
func (d *Dispatcher) owner(c Claims) *run {
	if r := d.runs[c.Run]; r != nil {
		return r
	}
	if !Shared(c.Run) || c.Run != sharedBy(c.Namespace) {
		return nil
	}
	return d.shared(c.Namespace)
}

// shared stands in place of a run for a namespace; the lock is held.
func (d *Dispatcher) shared(namespace string) *run {
	id := sharedBy(namespace)
	r := d.warm[id]
	if r == nil {
		r = &run{id: id, namespace: namespace, groups: map[string]*group{}}
		d.warm[id] = r
	}
	return r
}

// groups are all there are; the lock is held.
func (d *Dispatcher) groups() iter.Seq[*group] {
	return func(yield func(*group) bool) {
		for _, owners := range []map[string]*run{d.runs, d.warm} {
			for _, r := range owners {
				for _, g := range r.groups {
					if !yield(g) {
						return
					}
				}
			}
		}
	}
}

// count changes how many tasks of a run wait; the lock is held.
func (d *Dispatcher) count(x *item, by int) {
	d.queued += by
	r := d.runs[x.Run]
	if r == nil {
		return
	}
	half := d.cfg.Ahead / 2
	before := r.queued
	if r.queued += by; before > half && r.queued <= half {
		d.signal(d.nudge)
	}
}
