package resource

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"cairn.dev/cairn/internal/clock"
)

const (
	pageOf    = 500 // objects that are listed at once
	maxPages  = 200
	goneEvery = time.Second // how often is looked whether an object is gone, and
	goneMost  = 10 * time.Second
)

// remove deletes an object, or those that a selector finds, and waits until
// they are gone. What is not there is gone.
func (q *request) remove(ctx context.Context, name string) error {
	if name != "" {
		return q.removeOne(ctx, name)
	}
	next := ""
	for range maxPages {
		v := url.Values{"limit": {strconv.Itoa(pageOf)}}
		if q.Selector != "" {
			v.Set("labelSelector", q.Selector)
		}
		if next != "" {
			v.Set("continue", next)
		}
		var list struct {
			Metadata struct{ Continue string }
			Items    []object
		}
		if err := q.api.do(ctx, call{method: http.MethodGet, path: q.kind.collection(q.namespace), query: v}, &list, q.say); err != nil {
			return err
		}
		for _, o := range list.Items {
			if err := q.removeOne(ctx, at(o, "metadata", "name")); err != nil {
				return err
			}
		}
		if next = list.Metadata.Continue; next == "" {
			return nil
		}
	}
	return fmt.Errorf("delete %s: there are more than %d", q.kind.resource, pageOf*maxPages)
}

func (q *request) removeOne(ctx context.Context, name string) error {
	options := map[string]any{"propagationPolicy": "Background"}
	switch q.Propagation {
	case "", "background":
	case "foreground":
		options["propagationPolicy"] = "Foreground"
	case "orphan":
		options["propagationPolicy"] = "Orphan"
	default:
		return fmt.Errorf("propagation %.40q: there are background, foreground and orphan", q.Propagation)
	}
	if q.Grace != nil {
		options["gracePeriodSeconds"] = *q.Grace
	}
	body, err := json.Marshal(options)
	if err != nil {
		return err
	}
	var answer object
	err = q.api.do(ctx, call{method: http.MethodDelete, path: q.path(name), form: "application/json", body: body}, &answer, q.say)
	if refused(err, http.StatusNotFound) {
		q.say("%s is not there", named(q.kind, q.namespace, name))
		return nil
	}
	if err != nil {
		return err
	}
	uid := at(answer, "metadata", "uid") // it is still there: somebody finishes with it first
	if uid == "" {
		uid = at(answer, "details", "uid")
	}
	for wait := goneEvery; ; wait = min(2*wait, goneMost) {
		there, err := q.get(ctx, name)
		switch {
		case refused(err, http.StatusNotFound), err == nil && uid != "" && at(there, "metadata", "uid") != uid:
			q.say("%s deleted", named(q.kind, q.namespace, name))
			return nil
		case refused(err, http.StatusForbidden):
			q.say("%s is being deleted; the account may not see when it is gone", named(q.kind, q.namespace, name))
			return nil
		case err != nil:
			return err
		}
		q.seen = "; it is still there"
		if clock.Sleep(ctx, q.api.clock, wait) != nil {
			return context.Cause(ctx)
		}
	}
}
