package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"cairn.dev/cairn/internal/clock"
)

// renewals is how often something is written to a cluster in which nothing
// happens: controller manager and scheduler renew their leases each two seconds
// where there may be several of them, which here they do not. It matters to
// whoever lists: an API server answers from what it watches, and learns that
// this is up to date at once if nothing was written since, else each 100 ms.
const renewals = time.Second

// rest writes what is written in a cluster that rests, until ctx ends.
func (w *world) rest(ctx context.Context) error {
	const leases = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
	holder := func() object {
		return object{"spec": object{"holderIdentity": "bench", "renewTime": time.Now().UTC().Format("2006-01-02T15:04:05.000000Z07:00")}}
	}
	l := holder()
	l["metadata"] = object{"name": "bench"}
	_, err := w.admin.do(ctx, http.MethodPost, leases, l)
	for err == nil {
		if err = clock.Sleep(ctx, clock.Real(), renewals); err == nil {
			_, err = w.admin.do(ctx, http.MethodPatch, leases+"/bench", holder())
		}
	}
	if errors.Is(err, context.Canceled) || ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("renew a lease: %w", err)
}
