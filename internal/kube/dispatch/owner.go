package dispatch

import (
	"errors"

	"cairn.dev/cairn/internal/task"
)

var errNoOwner = errors.New("what it makes is to go with its run, and the run is no object of the cluster, as far as is known: hand it to the cluster as an object, or leave the owner out")

// owned says of a request with whom goes what it makes.
func (d *Dispatcher) owned(x *item) error {
	if x.body.Resource == nil || x.body.Resource.Owner == nil {
		return nil
	}
	if d.d.Owner == nil {
		return errNoOwner
	}
	o, ok := d.d.Owner(x.Run)
	if !ok {
		return errNoOwner
	}
	t, r := *x.body, *x.body.Resource // others may have the same body
	r.Owner = &task.Owner{APIVersion: o.APIVersion, Kind: o.Kind, Name: o.Name, UID: o.UID}
	t.Resource = &r
	x.body = &t
	return nil
}
