package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/dynamic"

	"cairn.dev/cairn/internal/kube/crd"
	"cairn.dev/cairn/internal/task"
)

// MaxStatus bounds the status of an object, in bytes of JSON, whatever its run
// is.
const MaxStatus = 16 << 10

// pace is how often an object is written to at most, and slowest how often at
// least while its run gets on.
const (
	pace    = time.Second
	slowest = 5 * time.Minute
)

// All objects together are written to so often a second, after so many at once.
const (
	writesPerSecond = 50
	writesAtOnce    = 10
)

// record is what is remembered of an object between two looks at it. It
// belongs to whoever deals with the object; others read whether it was refused,
// under the lock.
type record struct {
	uid, run string
	failures int
	begun    time.Duration  // when its run was, on the monotonic clock; 0: by an earlier process
	written  time.Duration  // when it was written to; 0: never
	since    time.Duration  // when its phase was
	turn     time.Duration  // before it is nothing written; 0: no turn was taken
	status   map[string]any // that was written, until it is seen to be there
	labels   map[string]string
	version  string   // of the object then
	older    []string // runs before the newest that had not ended when it began

	spec       string // fingerprint of that which the run is of
	refused    bool   // it may be taken when a template comes
	steered    bool   // suspended is what the spec said last, at this generation
	generation int64
	suspend    bool
	stopped    string // how the run was told to end
	samples    []sample
	sampled    int    // how many had failed when the samples were taken
	put        string // hash of the documents of the schedule
}

func (c *Controller) record(r ref) *record {
	c.mu.Lock()
	defer c.mu.Unlock()
	rec := c.records[r]
	if rec == nil {
		rec = &record{}
		c.records[r] = rec
	}
	return rec
}

// begin forgets what was remembered of another object of the same name.
func (c *Controller) begin(r ref, rec *record, uid string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range append(rec.older, rec.run) {
		delete(c.runs, id)
	}
	*rec = record{uid: uid, failures: rec.failures}
}

// belong ties a run to its object, whose status then follows it. Those that it
// had before are known until they have ended.
func (c *Controller) belong(r ref, rec *record, run string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if rec.run != "" && rec.run != run {
		rec.older = slices.DeleteFunc(append(rec.older, rec.run), func(id string) bool {
			over := !c.d.Server.Live(id)
			if over {
				delete(c.runs, id)
			}
			return over
		})
	}
	rec.run = run
	c.runs[run] = owner{r, rec.uid}
}

// owner is an object that has a run.
type owner struct {
	ref
	uid string
}

// Owner is the object that has a run, as references to owners name it. It is not
// found where the run was handed in otherwise, or so soon after a start that the
// object was not looked at yet.
func (c *Controller) Owner(run string) (task.Owner, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o, ok := c.runs[run]
	if !ok {
		return task.Owner{}, false
	}
	return task.Owner{APIVersion: o.kind.group + "/" + crd.Version, Kind: o.kind.name, Name: o.name, UID: o.uid}, true
}

// refuse notes whether an object was refused.
func (c *Controller) refuse(rec *record, refused bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	rec.refused = refused
}

// wait is how long an object is not to be written to. How far a run is is told
// the less often the longer it takes, so that what it costs does not grow with
// it: each time it is half as old again, and at least each [slowest].
func (c *Controller) wait(rec *record, progress bool) time.Duration {
	at := rec.turn
	if rec.written > 0 {
		d := pace
		if progress {
			d = min(max(pace, (rec.written-rec.since)/2), slowest)
		}
		at = max(at, rec.written+d)
	}
	return max(0, at-c.d.Clock.Mono())
}

// queued is how long an object has to wait for its turn among all.
func (c *Controller) queued(rec *record, last bool) time.Duration {
	now := c.d.Clock.Mono()
	switch {
	case rec.turn > 0: // this is it
	case last:
		rec.turn = max(1, c.brake.final(now))
		return rec.turn - now
	default:
		if d, spread := c.brake.passing(now); d > 0 {
			return d + rand.N(max(pace, spread)) // there may be many, and few turns
		}
	}
	return 0
}

// there is the status that an object has: that which was written last, until the
// object is seen as it was then or later. From there on it is what is seen,
// whoever wrote it.
func (rec *record) there(u *unstructured.Unstructured) map[string]any {
	if rec.status != nil && rec.version != "" {
		if n, err := resourceversion.CompareResourceVersion(u.GetResourceVersion(), rec.version); err == nil && n >= 0 {
			rec.status, rec.labels, rec.version = nil, nil, ""
		}
	}
	if rec.status != nil {
		return rec.status
	}
	status, _ := u.Object["status"].(map[string]any)
	return status
}

// write brings an object's status to what it should be, and its labels where
// there are some to set: in one request, and in none when it is so already.
// again is when to come back because it is too early.
func (c *Controller) write(ctx context.Context, r ref, rec *record, u *unstructured.Unstructured, status map[string]any, labels map[string]string) (again time.Duration, err error) {
	old, had := rec.there(u), rec.labels
	if had == nil {
		had = u.GetLabels()
	}
	change := difference(old, status)
	set := map[string]any{}
	for k, v := range labels {
		if had[k] != v {
			set[k] = v
		}
	}
	if len(change) == 0 && len(set) == 0 {
		return 0, nil
	}
	_, moved := change["phase"]
	if d := c.wait(rec, !moved && len(set) == 0); d > 0 {
		return d, nil
	}
	if d := c.queued(rec, moved && status["phase"] != "Running"); d > 0 {
		return d, nil
	}
	rec.turn = 0
	if rec.written = max(1, c.d.Clock.Mono()); moved {
		rec.since = rec.written
	}
	got, err := c.send(ctx, r, u, change, set, status)
	if apierrors.IsNotFound(err) && !c.together(r.kind) {
		return 0, nil // it went; its deletion is on its way
	}
	if err != nil {
		rec.status, rec.labels, rec.version = nil, nil, "" // what is there now is read again
		return 0, fmt.Errorf("write the status of %s: %w", r, err)
	}
	rec.status, rec.version, rec.labels = status, got.GetResourceVersion(), maps.Clone(had)
	if rec.labels == nil {
		rec.labels = map[string]string{}
	}
	maps.Copy(rec.labels, labels)
	return 0, nil
}

// together has the status of Argo's kinds written with the rest of an object
// again, and says whether it was not: definitions come and go, and where one has
// no status apart, there seems to be no such object.
func (c *Controller) together(k *kind) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.watches[k]
	if w == nil || !k.argo() || !w.separate {
		return false
	}
	w.separate = false
	return true
}

// send writes labels and status: together where the kind's status is a field
// like others.
func (c *Controller) send(ctx context.Context, r ref, u *unstructured.Unstructured, change, labels, want map[string]any) (got *unstructured.Unstructured, err error) {
	if c.separate(r.kind) {
		if len(labels) > 0 {
			if got, err = c.patch(ctx, r, u, nil, labels, ""); err != nil {
				return nil, err
			}
		}
		if len(change) == 0 {
			return got, nil
		}
		return c.patch(ctx, r, u, change, nil, "status")
	}
	got, err = c.patch(ctx, r, u, change, labels, "")
	if err != nil || len(change) == 0 {
		return got, err
	}
	if phase, _, _ := unstructured.NestedFieldNoCopy(got.Object, "status", "phase"); reflect.DeepEqual(phase, want["phase"]) {
		return got, nil
	}
	// It was not taken: with this definition the status is written apart.
	// Argo's differ in this from version to version.
	c.mu.Lock()
	if w := c.watches[r.kind]; w != nil {
		w.separate = true
	}
	c.mu.Unlock()
	now, _ := got.Object["status"].(map[string]any)
	return c.patch(ctx, r, u, difference(now, want), nil, "status")
}

func (c *Controller) separate(k *kind) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.watches[k]
	return w != nil && w.separate
}

// patch sends a merge patch.
func (c *Controller) patch(ctx context.Context, r ref, u *unstructured.Unstructured, status, labels map[string]any, sub ...string) (*unstructured.Unstructured, error) {
	// The uid keeps a status from another object of the same name.
	meta := map[string]any{"uid": string(u.GetUID())}
	if len(labels) > 0 {
		meta["labels"] = labels
	}
	p := map[string]any{"metadata": meta}
	if len(status) > 0 {
		p["status"] = status
	}
	body, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	var api dynamic.ResourceInterface = c.api.Resource(r.kind.gvr())
	if r.namespace != "" {
		api = c.api.Resource(r.kind.gvr()).Namespace(r.namespace)
	}
	sub = slices.DeleteFunc(sub, func(s string) bool { return s == "" })
	ctx, end := context.WithTimeout(ctx, c.patience)
	defer end()
	return api.Patch(ctx, r.name, types.MergePatchType, body, metav1.PatchOptions{FieldManager: "cairn"}, sub...)
}

// difference is a merge patch that makes of one object another.
func difference(old, new map[string]any) map[string]any {
	out := map[string]any{}
	for k, v := range new {
		was, there := old[k]
		a, isMap := was.(map[string]any)
		b, willBe := v.(map[string]any)
		switch {
		case isMap && willBe:
			if d := difference(a, b); len(d) > 0 {
				out[k] = d
			}
		case !there || !same(was, v):
			out[k] = v
		}
	}
	for k := range old {
		if _, ok := new[k]; !ok {
			out[k] = nil
		}
	}
	return out
}

// same compares what was read with what was made: numbers may be of another
// type.
func same(a, b any) bool {
	if reflect.DeepEqual(a, b) {
		return true
	}
	x, err := json.Marshal(a)
	if err != nil {
		return false
	}
	y, err := json.Marshal(b)
	return err == nil && string(x) == string(y)
}
