package dispatch_test

import (
	"testing"

	"cairn.dev/cairn/internal/kube/dispatch"
	"cairn.dev/cairn/internal/work/machine"
)

// A pod that the kernel ended for want of memory had one task: that was it, and
// it is the user's to try it again. Of several nobody knows which it was.
func TestOutOfMemory(t *testing.T) {
	const why = "container main ended: exit code 137 (" + dispatch.OutOfMemory + ")"
	r := newRig(t, dispatch.Config{})
	one := r.submit("one", 1, nil)
	x := r.demand(one, 1)
	r.ask(x, "pod-1", 1)
	r.d.Gone(one, x.Class, "pod-1", why)
	r.until("its end", func() bool { return !r.get(one).Ended.IsZero() })
	if i := r.get(one); i.Phase != machine.Failed || i.Counts.Crashes != 0 {
		t.Errorf("one task: %v, %+v", i.Phase, i.Counts)
	}
	two := r.submit("two", 2, nil)
	x = r.demand(two, 2)
	r.ask(x, "pod-2", 2)
	r.d.Gone(two, x.Class, "pod-2", why)
	r.until("the loss to be told", func() bool { return r.get(two).Counts.Crashes == 2 })
}
