package jobs

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"cairn.dev/cairn/internal/kube/dispatch"
)

// hindrance is why there are no pods for a kind.
type hindrance struct {
	why   string
	since time.Duration // of what is not waited for longer than NoStart; 0: of what is
}

// full is a namespace that takes no more Jobs: its quota is used up, or a right
// in it is missing, which is no other's trouble.
type full struct {
	fails  int // in a row
	until  time.Duration
	why    string
	denied bool // a right is missing
}

// trouble is what the API server answered that is no Job. What will not pass
// is said to the tasks; the rest is tried again, later each time.
func (c *Controller) trouble(x *dispatch.Demand, what string, err error) {
	why := fmt.Sprintf("%s in namespace %s: %v", what, x.Namespace, err)
	forbidden := apierrors.IsForbidden(err)
	switch {
	case errors.Is(err, ErrPod):
		c.d.Teller.Fail(x.Run, x.Class, err.Error(), false)
		return
	case apierrors.IsNotFound(err):
		c.d.Teller.Fail(x.Run, x.Class, fmt.Sprintf("there is no namespace %s in cluster %s: make it, or name another one", x.Namespace, c.cfg.Cluster), false)
		return
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), forbidden && ruled(err):
		c.d.Teller.Fail(x.Run, x.Class, cured(why), false)
		return
	}
	denied := forbidden && !exceeded(err)
	if denied {
		why += "; the account of this server lacks that right: what cairn install prints gives it, kubectl apply it again"
	} else {
		why = cured(why)
	}
	c.mu.Lock()
	now := c.d.Clock.Mono()
	wait := time.Duration(0)
	if forbidden {
		f := c.full[x.Namespace]
		f.fails++
		wait = backoff(f.fails)
		f.until, f.why, f.denied = now+wait, why, denied
		c.full[x.Namespace] = f
	} else {
		c.fails++
		wait = max(backoff(c.fails), retryAfter(err))
		c.hold = now + wait
	}
	c.mu.Unlock()
	c.log.Warn("workers cannot be made", "run", x.Run, "error", why, "again_in", wait)
	c.hinder(x, why, denied)
}

// kept says whether a namespace took no Job a moment ago. Then those that have
// no pods wait for the same.
func (c *Controller) kept(x *dispatch.Demand) bool {
	c.mu.Lock()
	f := c.full[x.Namespace]
	kept := c.d.Clock.Mono() < f.until
	bare := x.Queued > 0 && c.tally().live[key{x.Run, x.Class}] == 0
	c.mu.Unlock()
	if kept && bare {
		c.hinder(x, f.why, f.denied)
	}
	return kept
}

// unfound is why an image is not known. A registry that is away is not the
// fault of tasks: they wait for it, and spend no attempts.
func (c *Controller) unfound(x *dispatch.Demand, err error) {
	if errors.Is(err, ErrImage) {
		c.d.Teller.Fail(x.Run, x.Class, err.Error(), false)
		return
	}
	c.hinder(x, cured(err.Error()), true)
}

// hinder notes why there are no pods for tasks. Of what is limited they end when
// it lasts, unless they have pods all the same.
func (c *Controller) hinder(x *dispatch.Demand, why string, limited bool) {
	k := key{x.Run, x.Class}
	c.mu.Lock()
	now := c.d.Clock.Mono()
	h := c.hindered[k]
	h.why = why
	switch {
	case !limited:
		h.since = 0
	case h.since == 0:
		h.since = max(1, now)
	}
	long := h.since > 0 && now-h.since > c.cfg.NoStart && c.tally().running[k] == 0
	c.hindered[k] = h
	if long {
		delete(c.hindered, k)
	}
	c.mu.Unlock()
	if long {
		c.d.Teller.Fail(x.Run, x.Class, fmt.Sprintf("%s; it was tried for %v", why, c.cfg.NoStart), false)
	}
}

// exceeded says whether a quota is used up.
func exceeded(err error) bool { return strings.Contains(err.Error(), "exceeded quota") }

// rules are how those name themselves that refuse what they are shown. Who
// refuses without a name misses a right, which may be given yet: while one
// version is replaced by another it is missing for a moment.
var rules = []string{"admission webhook", "validatingadmissionpolicy", "violates podsecurity", "usage per ", "limit to request ratio", "error looking up service account", "no priorityclass"}

// ruled says whether something was refused for what it is.
func ruled(err error) bool {
	low := strings.ToLower(err.Error())
	return apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) ||
		!exceeded(err) && slices.ContainsFunc(rules, func(r string) bool { return strings.Contains(low, r) })
}

// backoff is how long the API server is let alone after so many failures.
func backoff(fails int) time.Duration { return min(time.Second<<min(fails, 6), time.Minute) }

// maxRetryAfter bounds how long the API server may ask to be let alone: what it
// says is not always meant.
const maxRetryAfter = 5 * time.Minute

// retryAfter is how long it asks to be let alone.
func retryAfter(err error) time.Duration {
	s, ok := apierrors.SuggestsClientDelay(err)
	if !ok {
		return 0
	}
	return min(time.Duration(s)*time.Second, maxRetryAfter)
}
