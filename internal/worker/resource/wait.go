package resource

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"cairn.dev/cairn/internal/clock"
	"cairn.dev/cairn/internal/task/condition"
)

const (
	// watchFor is how long one watch is; then the object is looked at again, so
	// that what no watch told is noticed.
	watchFor = 5 * time.Minute
	// lookEvery is how often is looked where the account may not watch.
	lookEvery = 5 * time.Second
	maxEvent  = 4 << 20 // bytes
)

// conditions are what ends a wait.
type conditions struct{ success, failure *condition.Condition }

func parseConditions(success, failure string) (c conditions, err error) {
	for into, text := range map[**condition.Condition]string{&c.success: success, &c.failure: failure} {
		if text == "" {
			continue
		}
		if *into, err = condition.Parse(text); err != nil {
			return c, err
		}
	}
	return c, nil
}

// judge says whether a wait is over; the error is that of a failure. Without a
// success that is waited for, what has not failed is well.
func (c *conditions) judge(o object) (over bool, err error) {
	if c.failure != nil {
		if text, met := c.failure.Any(o); met {
			return true, fmt.Errorf("failed: %s", text)
		}
	}
	return c.success == nil || c.success.All(o), nil
}

// await waits until the object meets a condition.
func (q *request) await(ctx context.Context, o object, until conditions) (object, error) {
	name, waits, watching := at(o, "metadata", "name"), false, true
	for {
		over, err := until.judge(o)
		if err != nil {
			return o, fmt.Errorf("%s %w", named(q.kind, q.namespace, name), err)
		}
		if over {
			return o, nil
		}
		if !waits {
			waits = true
			q.say("waiting until %s meets %s", named(q.kind, q.namespace, name), until.success)
		}
		q.seen = fmt.Sprintf("; %s did not meet %s", named(q.kind, q.namespace, name), until.success)
		if watching {
			begun := q.api.clock.Mono()
			next, err := q.watch(ctx, name, at(o, "metadata", "resourceVersion"), func(o object) bool {
				over, err := until.judge(o)
				return over || err != nil
			})
			switch {
			case ctx.Err() != nil:
				return o, context.Cause(ctx)
			case errors.Is(err, errGone):
				return o, q.gone(name)
			case refused(err, http.StatusForbidden), refused(err, http.StatusMethodNotAllowed), refused(err, http.StatusNotFound):
				q.say("the account may not watch %s: it is looked at every %v", q.kind.resource, lookEvery)
				watching = false
			case next != nil:
				o = next
				continue
			}
			if err = q.rest(ctx, begun+minWait); err != nil { // a watch that ends at once is not begun again at once
				return o, err
			}
		} else if err = q.rest(ctx, q.api.clock.Mono()+lookEvery); err != nil {
			return o, err
		}
		next, err := q.get(ctx, name)
		if refused(err, http.StatusNotFound) {
			return o, q.gone(name)
		}
		if err != nil {
			return o, q.explain(name, err)
		}
		o = next
	}
}

// rest waits until a time of the clock.
func (q *request) rest(ctx context.Context, until time.Duration) error {
	if clock.Sleep(ctx, q.api.clock, until-q.api.clock.Mono()) != nil {
		return context.Cause(ctx)
	}
	return nil
}

func (q *request) gone(name string) error {
	return fmt.Errorf("%s was deleted while it was waited for", named(q.kind, q.namespace, name))
}

// errGone: a watch says that the object was deleted.
var errGone = errors.New("it was deleted")

// watch follows an object from a version on until it is as it is wanted, and
// returns it; nil when the watch has ended before that.
func (q *request) watch(ctx context.Context, name, version string, wanted func(object) bool) (object, error) {
	ctx, end := context.WithTimeout(ctx, watchFor+callTimeout)
	defer end()
	resp, err := q.api.send(ctx, call{method: http.MethodGet, path: q.kind.collection(q.namespace), query: url.Values{
		"watch": {"true"}, "fieldSelector": {"metadata.name=" + name}, "resourceVersion": {version}, "timeoutSeconds": {strconv.Itoa(int(watchFor.Seconds()))}}})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		var event struct {
			Type   string
			Object object
		}
		if err := decode(lines.Bytes(), &event); err != nil {
			return nil, err
		}
		switch event.Type {
		case "ADDED", "MODIFIED":
			if wanted(event.Object) {
				return event.Object, nil
			}
		case "DELETED":
			return nil, errGone
		case "ERROR": // the version is too old, or the server goes: look again
			return nil, nil
		}
	}
	if err := lines.Err(); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	return nil, nil
}
