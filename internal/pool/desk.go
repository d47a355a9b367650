package pool

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"cairn.dev/cairn/internal/outbound"
	"cairn.dev/cairn/internal/task"
	"cairn.dev/cairn/internal/upstream"
	"cairn.dev/cairn/internal/worker"
)

// desk is where tasks come in, whoever runs them then: what cannot be run here
// is refused, requests are made, images are found, and what the machine has is
// handed out.
type desk struct {
	deps    Deps
	library library
	budget  *budget
}

func newDesk(cfg Config, d Deps, all amount) *desk {
	if cfg.CPU > 0 {
		all.cpu = cfg.CPU
	}
	if cfg.Memory > 0 {
		all.memory = cfg.Memory
	}
	return &desk{deps: d, budget: newBudget(all)}
}

// admit runs a task, by run, when it is its turn.
func (d *desk) admit(ctx context.Context, t task.Task, run func(name string, im description) (task.Outcome, error)) task.Outcome {
	if t.HTTP != nil {
		if d.deps.HTTP == nil {
			return failed(errors.New("this pool makes no requests: it was not configured to"), false)
		}
		return d.deps.HTTP(ctx, t.HTTP, t.Timeout)
	}
	if t.Resource != nil {
		return failed(errors.New("it makes a request to a cluster, and this pool is in none: run it in the pool of one"), false)
	}
	want := amount{cpu: t.CPU, memory: t.Memory}
	if err := d.refuse(t, want); err != nil {
		return failed(err, false)
	}
	name, im, err := d.find(ctx, t.Image)
	if err != nil {
		return worker.Ended(ctx, failed(err, atFault(err)))
	}
	if err := d.budget.take(ctx, want); err != nil {
		return worker.Ended(ctx, failed(err, true))
	}
	defer d.budget.put(want)
	o, err := run(name, im)
	if err != nil {
		return worker.Ended(ctx, failed(err, atFault(err)))
	}
	o.Isolation = Isolation
	return o
}

// refuse says what of a task cannot be done, whatever comes.
func (d *desk) refuse(t task.Task, want amount) error {
	switch t.Isolation {
	case "", "auto", "overlay", "readonly", "pod", "shared":
	default:
		return fmt.Errorf("isolation %.40q: say auto, overlay, readonly, pod or shared", t.Isolation)
	}
	if t.Set != nil {
		return errors.New("it is several containers in one pod, which only a cluster can give: run it in the pool of one")
	}
	if len(t.Pod) > 0 {
		var names []string
		for name := range t.Pod {
			names = append(names, name)
		}
		slices.Sort(names)
		return fmt.Errorf("it asks for %s, which only a cluster can give: run it in the pool of one", strings.Join(names, ", "))
	}
	for _, v := range t.Volumes {
		if err := checkVolume(v); err != nil {
			return fmt.Errorf("volume %s: %w", v.Name, err)
		}
	}
	return d.budget.refuse(want)
}

// claimRE is what a claim may be called: it is the name of a folder.
var claimRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,252}$`)

// claimOf is what a claim is called here: who may use a namespace may use its
// claims, and no others. Those of the namespace that runs are in unless they say
// otherwise have their own names. No claim has an @ in its name.
func claimOf(v task.Volume) string {
	if v.Namespace == "" || v.Namespace == "default" {
		return v.Claim
	}
	sum := sha256.Sum256([]byte(v.Namespace)) // which may have any letter
	return hex.EncodeToString(sum[:8]) + "@" + v.Claim
}

// engineVolume is the same for an engine, which knows fewer letters.
func engineVolume(v task.Volume) string {
	space, claim, other := strings.Cut(claimOf(v), "@")
	if !other {
		return "cairn-" + v.Claim
	}
	return "cairn_" + space + "_" + claim
}

func checkVolume(v task.Volume) error {
	if v.Claim != "" && !claimRE.MatchString(v.Claim) {
		return fmt.Errorf("%.80q is no name of a claim: use letters, digits, '.', '_' and '-'", v.Claim)
	}
	at := path.Clean(v.Path)
	for _, of := range []string{"/proc", "/sys", "/dev"} {
		if at == of || strings.HasPrefix(at, of+"/") {
			return fmt.Errorf("nothing can be mounted in %s", of)
		}
	}
	if !path.IsAbs(v.Path) || at == "/" {
		return fmt.Errorf("%.80q is no folder in the task", v.Path)
	}
	return nil
}

func (d *desk) find(ctx context.Context, reference string) (string, description, error) {
	if reference == "" {
		return "", description{}, fmt.Errorf("%w: it names none", ErrNoImage)
	}
	f, err := d.deps.Images.Find(ctx, reference)
	if err != nil {
		return "", description{}, fmt.Errorf("image %s: %w", reference, err)
	}
	im, err := d.library.describe(ctx, f)
	return f.Name, im, err
}

// atFault reports whether the network or this machine is, and not who wrote
// the task.
func atFault(err error) bool {
	var e *upstream.Error
	if errors.As(err, &e) {
		return e.Kind == upstream.Busy || e.Kind == upstream.Unreachable && !outbound.Never(e)
	}
	return !errors.Is(err, ErrNoImage)
}
